"""A run's checkpoints: written whole or not at all, proved by a checksum, pruned by age.

A checkpoint is two files in the run's folder, `<step>.pt` and `<step>.json` (run, digest, epoch, sha256, spec,
versions, host, times, history); the second is written last, and without it there is no checkpoint. `last.pt` and
`best.pt` are links.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from hedflow import HedflowError
from hedflow.config import Checkpoints
from hedflow.files import atomic, read_json, sha256, write_json

WEIGHTS = "best_weights.pt"


class CheckpointFolder:
    """The checkpoints of one run.

    A checkpoint of another digest (the run was changed since) is none of this run's and is removed.
    """

    def __init__(
        self, folder: Path | None, settings: Checkpoints, run: str, digest: str, about: dict[str, Any]
    ) -> None:
        """folder: None = nothing is saved. about: what else a reader wants to know, as plain JSON."""
        self.folder = folder if settings.restart != "off" else None
        self.settings = settings
        self.run = run
        self.digest = digest
        self.about = about
        self.notes: list[str] = []
        self.saved_at = time.monotonic()
        self.holds = False  # whether there is a sound one to go on from

    def due(self, epoch: int) -> bool:
        """Whether the end of epoch number `epoch` (from 0) is to be saved."""
        late = time.monotonic() - self.saved_at >= 60 * self.settings.minutes
        return late and epoch >= self.settings.skip_epochs and (epoch + 1) % self.settings.interval == 0

    def save(self, state: dict[str, Any], value: float) -> bool:
        """Save a run's state; value: of the monitor, lower is better. False if it could not be written."""
        if self.folder is None:
            return False
        path, written = self.folder / f"{state['step']:09d}.pt", False
        try:
            with atomic(path) as temporary:
                check, size = _write(state, temporary)
            facts = {"run": self.run, "digest": self.digest, "sha256": check, "bytes": size, "value": _plain(value)}
            facts |= {name: state[name] for name in ("epoch", "batch", "step", "best_epoch", "seconds", "history")}
            write_json(
                path.with_suffix(".json"), {**facts, "saved": time.time(), "host": os.uname().nodename, **self.about}
            )
            written = True
            self._prune()
        except OSError as error:
            reason = error.strerror or error
            if not written:
                path.unlink(missing_ok=True)
                self._say(
                    f"checkpoint of step {state['step']} could not be written ({reason}); the one before it stays"
                )
                return False
            self._say(f"old checkpoints could not be removed, or links not renewed ({reason})")
        self.holds = True
        self.saved_at = time.monotonic()
        return True

    def newest(self, device: str = "cpu") -> dict[str, Any] | None:
        """The newest sound checkpoint's state; damaged ones are said, and passed over.

        Raises:
            HedflowError: there is none, and `restart` is required.
        """
        self._clean()
        for facts in reversed(self._all()):
            path = self._path(facts)
            problem = _problem(path, facts)
            if problem is None:
                state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
                self.holds = True
                return state
            self._say(f"checkpoint of step {facts['step']} is damaged ({problem}); the one before it is used")
            self._remove(facts)
        if self.settings.restart == "required":
            raise HedflowError(
                f"run {self.run}: training.checkpoints.restart is required, and {self.folder} has no sound checkpoint "
                "of it; set it to auto to begin anew."
            )
        return None

    def _clean(self) -> None:
        """Remove, and say, what a process left that was ended while it saved."""
        for path in sorted(self.folder.glob("[0-9]*.pt")) if self.folder is not None else ():
            if not path.with_suffix(".json").exists():
                self._say(f"checkpoint of step {int(path.stem)} is half written; the one before it is used")
                path.unlink(missing_ok=True)

    def finish(self, weights: dict[str, Any] | None) -> None:
        """The run is done: keep or remove what `when_done` says. weights: the best ones; None: it failed."""
        if self.folder is None or self.settings.when_done != "keep":
            self.clear()
        if self.folder is None or self.settings.when_done == "delete" or weights is None:
            return
        try:
            with atomic(self.folder / WEIGHTS) as temporary:
                _write(weights, temporary)
        except OSError as error:
            self._say(f"best weights could not be written ({error.strerror or error})")

    def clear(self) -> None:
        """Remove all checkpoints of the run."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _say(self, sentence: str) -> None:
        self.notes.append(sentence)
        print(f"{self.run}: {sentence}.", file=sys.stderr, flush=True)

    def _path(self, facts: dict[str, Any]) -> Path:
        assert self.folder is not None
        return self.folder / f"{facts['step']:09d}.pt"

    def _all(self) -> list[dict[str, Any]]:
        """The facts of this run's checkpoints, oldest first; those of another digest are removed."""
        if self.folder is None:
            return []
        found = []
        for path in sorted(self.folder.glob("[0-9]*.json")):
            try:
                facts = read_json(path)
                step = int(facts["step"])
            except (HedflowError, KeyError, TypeError, ValueError):
                facts, step = {}, int(path.stem)
            if facts.get("digest", self.digest) == self.digest:
                found.append({"sha256": None, "value": None, **facts, "step": step})
            else:
                self._remove({"step": step})
        return found

    def _remove(self, facts: dict[str, Any]) -> None:
        self._path(facts).with_suffix(".json").unlink(missing_ok=True)
        self._path(facts).unlink(missing_ok=True)

    def _prune(self) -> None:
        """Keep the last, the best, and what `keep` and `keep_mode` say; renew the links."""
        assert self.folder is not None
        found = self._all()
        kept = chosen([facts["step"] for facts in found], self.settings.keep, self.settings.keep_mode)
        valued = [facts for facts in found if facts["value"] is not None]
        best = min(valued, key=lambda facts: facts["value"])["step"] if valued else None
        for facts in found:
            if facts["step"] not in kept and facts["step"] != best:
                self._remove(facts)
        for name, step in (("last", max(kept)), ("best", best)):
            if step is not None:
                _link(self.folder / f"{name}.pt", f"{step:09d}.pt")


def chosen(steps: list[int], keep: int, mode: str) -> set[int]:
    """Which of some steps (ascending) to keep: the newest, or the newest and ever sparser ones before it."""
    if mode == "newest" or keep >= len(steps):
        return set(steps[-keep:])
    last, found = steps[-1], {steps[-1]}
    for i in range(1, keep):
        age = (last - steps[0]) * (2**i - 1) / (2 ** (keep - 1) - 1)
        found.add(min(steps, key=lambda step: abs(last - step - age)))
    return found


def _write(state: dict[str, Any], path: Path) -> tuple[str, int]:
    """Write a state; its sha256 and bytes. By way of memory: PyTorch's own writer hides that a disk is full."""
    content = io.BytesIO()
    torch.save(state, content)
    path.write_bytes(content.getbuffer())
    return hashlib.sha256(content.getbuffer()).hexdigest(), content.getbuffer().nbytes


def _problem(path: Path, facts: dict[str, Any]) -> str | None:
    """What is wrong with a checkpoint's file, if anything is."""
    if facts["sha256"] is None:
        return "its description cannot be read"
    if not path.is_file():
        return "its file is missing"
    try:
        return None if sha256(path) == facts["sha256"] else "its checksum is another"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def _link(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _plain(value: float) -> float | None:
    """A number for JSON, which has no infinity."""
    return json.loads(json.dumps(value)) if abs(value) < float("inf") else None
