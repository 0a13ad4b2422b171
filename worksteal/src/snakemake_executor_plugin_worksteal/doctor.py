"""`worksteal doctor`: whether a pool can work here, one line a check, with what to do where it cannot.

    worksteal doctor --profile aurora
    worksteal doctor --launcher mpiexec --nodes 2

It starts what a run would start: the launcher, MPI, a process on each node, the channel back, at last a pool with one
task on every node. Settings are those of the profile, then those of the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .channel import ChannelError, Listener
from .executor import address_for
from .findings import FAILED, OK, WARNING, Finding, batch_system, from_reports, mpi4py_library, software
from .launch import Launch, LaunchError, allocated_nodes, choose_launch
from .node import NodeError, find_devices
from .pool import tail
from .probe import REPORT, STARTED, Report
from .profiles import ProfileError, check_profiles, profile_file, settings_of, shown
from .session import Session, SessionError, make_secret, parse_variables, remove_socket
from .settings import ExecutorSettings, check_ranges
from .stages import AUTO
from .start import PreambleError, environment_after
from .trial import reachable, run_trial

PROBE = f"{__package__}.probe"
# Without these there is no pool to try.
NEEDED = ("MPI", "shared files", "channel")
# Settings that the command line can give, by type.
GIVEN: dict[str, type] = {
    "launcher": str,
    "nodes": int,
    "slots": int,
    "devices": str,
    "environment": str,
    "address": str,
    "stage_dir": str,
    "folder": Path,
    "submit": str,
    "account": str,
    "queue": str,
    "walltime": str,
    "preamble": str,
}


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 1 if a check failed."""
    parser = argparse.ArgumentParser(
        prog="worksteal doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", help="a profile of Snakemake: its name, folder or file")
    for name, kind in GIVEN.items():
        option = name.replace("_", "-")
        parser.add_argument(f"--{option}", type=kind, help=f"as --worksteal-{option} of Snakemake")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds that the nodes may take (180)")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of lines")
    given = parser.parse_args(arguments)
    found = []
    for finding in examine(given):
        found.append(finding)
        if not given.json:
            print(f"{finding.state:<8} {finding.name:<14} {finding.text}", flush=True)
    failed = sum(finding.state == FAILED for finding in found)
    warnings = sum(finding.state == WARNING for finding in found)
    if given.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in found]}, indent=1))
    else:
        print(f"{failed} failed, {warnings} with a warning, of {len(found)} checks")
    return int(failed > 0)


def examine(given: argparse.Namespace) -> Iterator[Finding]:
    """All checks, each as soon as it is done."""
    yield software()
    try:
        settings, finding = read_settings(given)
        yield finding
        os.environ.update(parse_variables(settings.environment or ""))
        find_devices(settings.devices or "auto")
    except (ProfileError, SessionError, NodeError) as error:
        yield Finding("settings", FAILED, str(error))
        return
    except LaunchError as error:
        yield Finding("batch system", FAILED, f"{error}; start anew in an allocation that is still yours")
        return
    submit = getattr(settings, "submit", None) or "no"
    batch = batch_system(submit)
    yield batch
    if batch.state != OK:
        return
    if submit != "no" and not allocated_nodes():
        if (settings.nodes or 1) > 1 and not settings.preamble:  # which may bring it
            yield mpi4py_library()
        how = "qsub -I" if submit == "pbs" else "salloc"
        text = f"not tried: get an allocation of 2 nodes and give this command in it ({how})"
        yield Finding("nodes", WARNING, text)
        return
    if submit != "no" and settings.preamble:
        try:
            after = environment_after(settings.preamble, dict(os.environ))
        except PreambleError as error:
            yield Finding("preamble", FAILED, f"{error}; what it printed stands above")
            return
        os.environ.clear()
        os.environ.update(after)
        yield Finding("preamble", OK, settings.preamble)
    try:
        launch = choose_launch(settings.launcher or "auto", settings.nodes)
    except LaunchError as error:
        yield Finding("launcher", FAILED, str(error))
        return
    how = "one process, no MPI" if launch.is_local else " ".join(launch.prefix)
    yield Finding("launcher", OK, how)
    if not launch.is_local:
        yield mpi4py_library()
    yield from on_the_nodes(launch, settings, given)


def read_settings(given: argparse.Namespace) -> tuple[ExecutorSettings, Finding]:
    """The settings, and what there is to say of the profile.

    Raises:
        ProfileError: it is not there, or not understood.
        LaunchError: the allocation's file of nodes cannot be read.
    """
    values: dict[str, Any] = {}
    text = "those of the command line"
    files = [profile_file(given.profile)] if given.profile else []
    for file in files:
        values = settings_of(file)
        unknown = sorted(values.keys() - {each.name for each in fields(ExecutorSettings)})
        if unknown:
            name = unknown[0].replace("_", "-")
            raise ProfileError(f"{shown(file)} has worksteal-{name}, which is no setting: look for a misspelling")
        text = f"of {shown(file)}"
    values |= {name: value for name in GIVEN if (value := getattr(given, name)) is not None}
    settings = ExecutorSettings(**values)
    for name in ("devices", "walltime"):
        if isinstance(getattr(settings, name, None), int):  # YAML knows numbers, Snakemake's parser makes text of them
            setattr(settings, name, str(getattr(settings, name)))
    try:
        check_ranges(settings)
        check_profiles(files, settings, filled=not allocated_nodes())
    except (ProfileError, ValueError) as error:
        return settings, Finding("settings", FAILED, str(error))
    return settings, Finding("settings", OK, text)


def on_the_nodes(launch: Launch, settings: ExecutorSettings, given: argparse.Namespace) -> Iterator[Finding]:
    """Checks that need processes on the nodes, in a folder that is removed afterwards."""
    base = Path(settings.folder or Path(".snakemake") / "worksteal").resolve()
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="doctor-", dir=base))
    except OSError as error:
        text = f"{base} cannot be written ({error.strerror}): work in a folder of yours that all nodes share"
        yield Finding("folder", FAILED, text)
        return
    try:
        yield from in_folder(folder, launch, settings, given)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_folder(folder: Path, launch: Launch, settings: ExecutorSettings, given: argparse.Namespace) -> Iterator[Finding]:
    """The same, the folder being there."""
    try:
        session = make_session(launch, settings)
        problem, reports, seconds = run_probes(launch, session, folder, given.timeout)
    except (SessionError, ChannelError) as error:
        yield Finding("channel", FAILED, str(error))
        return
    if problem:
        yield Finding("start", FAILED, problem)
        return
    yield Finding(
        "start", OK, f"{len(reports)} process{'es' if len(reports) > 1 else ''}, {seconds:.1f} s from start to end"
    )
    failed = False
    for finding in from_reports(reports, launch, settings):
        failed = failed or (finding.state == FAILED and finding.name in NEEDED)
        yield finding
    if failed:
        yield Finding("pool", WARNING, "not tried: mend first what has failed")
        return
    devices = int(all(report.devices for report in reports))
    begin = time.monotonic()
    problem = run_trial(launch, make_session(launch, settings), folder, devices, given.timeout)
    if problem:
        yield Finding("pool", FAILED, f"one task on every node: {problem}")
        return
    text = "one task on every node at the same time" + (", each with a device" if devices else "")
    yield Finding("pool", OK, f"{text}; {time.monotonic() - begin:.1f} s from start to end")


def make_session(launch: Launch, settings: ExecutorSettings) -> Session:
    """What the executor would leave for its agents.

    Raises:
        SessionError: the secret's file is open to others, or too short.
    """
    return Session(
        pool="doctor",
        address=address_for(settings.address, launch),
        secret=make_secret(settings.secret_file),
        workdir=os.getcwd(),
        environment=dict(os.environ),
        host=socket.gethostname(),
        nodes=launch.nodes,
        slots=settings.slots,
        devices=settings.devices or "auto",
        memory_mb=settings.memory_mb,
        stage_dir=settings.stage_dir or AUTO,
    )


def run_probes(launch: Launch, session: Session, folder: Path, timeout: float) -> tuple[str, list[Report], float]:
    """Start a process on each node and wait for their reports: what went wrong, the reports, seconds.

    Raises:
        ChannelError: this host cannot listen.
    """
    listener = Listener(bytes.fromhex(session.secret), session.address, lambda text: None)
    session.address = reachable(listener.address, session.host)
    session.write(folder)
    log = folder / "launcher.log"
    command = [*launch.prefix, sys.executable, "-m", PROBE, str(folder)]
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *([] if launch.is_local else ["--mpi"])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **launch.environment},
            start_new_session=True,
        )
    try:
        while process.poll() is None and time.monotonic() - begin < timeout:
            if (channel := listener.accept(0.1)) is not None:
                with suppress(ChannelError, TimeoutError):
                    channel.recv(timeout=5.0)
                channel.close()
        status = process.poll()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        listener.close()
        remove_socket(session.address)
    reports = [Report(**json.loads(path.read_text())) for path in folder.glob(f"{REPORT}-*.json")]
    seconds = time.monotonic() - begin
    if status == 0 and reports:
        return "", reports, seconds
    started = len(list(folder.glob(f"{STARTED}-*")))
    return why_not(launch, status, started, seconds, tail(log), folder.parent), reports, seconds


def why_not(launch: Launch, status: int | None, started: int, seconds: float, printed: str, folder: Path) -> str:
    """A sentence on a launch that gave no reports."""
    name = "the process on this machine" if launch.is_local else f"the launcher {launch.name}"
    said = f"; it printed: {printed}" if printed else "; it printed nothing"
    if status is None:
        where = "in MPI or on the way back" if started else "before any of our processes began"
        return (
            f"{name} did not end within {seconds:.0f} s: {started} of {launch.nodes} processes began, so it waits "
            f"{where}{said}. Try longer (--timeout), or the launcher with a program of the site's own documentation"
        )
    if not started:
        return (
            f"{name} ended with status {status} and started nothing that sees {folder}{said}. Mend the launcher "
            "(--launcher), or work in a folder that all nodes share"
        )
    return f"{name} ended with status {status} after {started} of {launch.nodes} processes had begun{said}"


if __name__ == "__main__":
    sys.exit(main())
