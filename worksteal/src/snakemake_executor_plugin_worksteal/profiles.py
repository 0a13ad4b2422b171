"""Profiles: which files Snakemake was given, and what in them is left for their user to fill in.

A key that is left empty (`worksteal-account:   # FILL IN: the project that pays`) is no setting at all to Snakemake, so
a dry run needs no account; only what starts a pool asks for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

PREFIX = "worksteal-"
_EMPTY = re.compile(r"(worksteal-[\w-]+):\s*(?:#\s*(?:FILL IN:?)?\s*(.*?))?\s*$")

# `10:00:00` without quotes.
_CLOCK = re.compile(r"(worksteal-[\w-]+):\s*([1-9]\d*(?::[0-5]?\d)+)\s*(?:#.*)?$")


class ProfileError(Exception):
    """A profile is not there, cannot be read, or has to be filled in; one sentence."""


@dataclass(frozen=True, slots=True)
class Blank:
    """A key that is left empty: file, line (from 1), key, and what its comment asks for ("" without one)."""

    file: Path
    line: int
    key: str
    what: str


def profile_file(name: str) -> Path:
    """The file of a profile as Snakemake finds it, else of that name in the folder profiles/.

    Raises:
        ProfileError: there is none.
    """
    from snakemake.cli import get_profile_dir

    for place in (name, str(Path("profiles") / name)):
        if (found := get_profile_dir(place)) is not None:
            return Path(found[1])
    raise ProfileError(
        f"there is no profile {name!r}: expected a folder of that name with a config.yaml, here, in profiles/, or "
        "among your own profiles (~/.config/snakemake)"
    )


def given_profiles(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Files of the profiles in Snakemake's arguments (`--profile`), else in SNAKEMAKE_PROFILE.

    Snakemake has found them; where it is used as a library, the arguments are another program's, and may mean anything.
    """
    names = [next_one for word, next_one in pairwise(arguments) if word == "--profile"]
    names += [word.partition("=")[2] for word in arguments if word.startswith("--profile=")]
    names = names or [environment.get("SNAKEMAKE_PROFILE", "none")]
    found = []
    for name in names:
        with suppress(ProfileError):
            found.append(profile_file(name))
    return found


def blanks_of(file: Path) -> list[Blank]:
    """The keys of this executor that a profile leaves empty.

    Raises:
        ProfileError: it cannot be read.
    """
    found = (_EMPTY.match(line) for line in _read(file).splitlines())
    return [Blank(file, number, each[1], each[2] or "") for number, each in enumerate(found, 1) if each]


def settings_of(file: Path) -> dict[str, Any]:
    """The settings of this executor in a profile, named as in `ExecutorSettings`; empty keys are left out.

    Raises:
        ProfileError: it cannot be read, or is no mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(_read(file)) or {}
    except yaml.YAMLError as error:
        raise ProfileError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ProfileError(f"{file} is no profile: expected lines of the form key: value")
    return {
        str(key).removeprefix(PREFIX).replace("-", "_"): value
        for key, value in content.items()
        if str(key).startswith(PREFIX) and value is not None
    }


def check_profiles(files: Sequence[Path], settings: Any, *, filled: bool) -> None:
    """See that durations are in quotes, and, if filled, that all that was left empty has a value by now, from the
    command line or another profile.

    Raises:
        ProfileError: what is to be put in quotes or filled in, and where.
    """
    for file in files:
        for number, line in enumerate(_read(file).splitlines(), 1):
            if found := _CLOCK.match(line):
                raise ProfileError(
                    f"{shown(file)}, line {number}: put {found[2]} in quotes, or state minutes; YAML takes {found[1]} "
                    "for a number of base 60"
                )
    missing = [
        blank
        for file in files
        for blank in (blanks_of(file) if filled else ())
        if getattr(settings, blank.key.removeprefix(PREFIX).replace("-", "_"), None) is None
    ]
    if missing:
        asked = "; ".join(f"line {each.line}, {each.key}{f': {each.what}' if each.what else ''}" for each in missing)
        raise ProfileError(f"{shown(missing[0].file)} has to be filled in, or the same given as --{PREFIX}...: {asked}")


def shown(path: Path) -> str:
    """A path as its user would type it, links of the project's root followed."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"the profile {file} cannot be read: {error}") from None
