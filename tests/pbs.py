"""Stand-ins for qsub, qstat and qdel of PBS Pro, in a folder for PATH. They take what the reference guide documents,
refuse all else as PBS does, and run the job script on this machine.

    python pbs.py STATE_FOLDER (qsub|qstat|qdel|run) ARGUMENTS...
    python pbs.py MPIEXEC pals ARGUMENTS...

The last is PALS's mpiexec, which takes the options that the sites' guides show, and has MPICH's MPIEXEC do it.

After "PBS Professional Reference Guide": qsub (options and directives), -l select and place, job names, job states,
qstat -f, exit status 35 for jobs that have finished and 153 for unknown ones. What they cannot show: queues that wait,
several hosts, hooks and cgroups. A file STATE_FOLDER/limit has how many jobs a user may have in the queue, a file
STATE_FOLDER/deaf is how often qdel is to fail.
"""

from __future__ import annotations

import getopt
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

SERVER = "standin"
OPTIONS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
PLACE = r"(free|pack|scatter|vscatter)?(:?(excl|exclhost|shared))?(:?group=\w+)?"
CHUNK = r"(\d+)?(:?\w[\w.]*=[\w.+-]+)+|\d+"
TIME = r"(\d+:)?(\d+:)?\d+(\.\d+)?"
NAME = r"[A-Za-z0-9][\w.+-]{0,229}"
FINISHED, UNKNOWN, BAD_QUEUE, LIMIT, UNREACHABLE, SYNTAX = 35, 153, 170, 225, 208, 2


def fail(status: int, text: str) -> NoReturn:
    """As a PBS command does."""
    print(text, file=sys.stderr)
    sys.exit(status)


class Jobs:
    """What the server knows, one JSON file a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: str) -> Path:
        """Of a job."""
        return self.folder / f"{number}.json"

    def read(self, number: str) -> dict[str, object] | None:
        """A job as qstat shows it; None if it is unknown."""
        try:
            found: dict[str, object] = json.loads(self.path(number).read_text())
        except FileNotFoundError:
            return None
        return found

    def write(self, number: str, **changes: object) -> None:
        """Change a job, whole or not at all."""
        job = {**(self.read(number) or {}), **changes}
        temporary = self.folder / f".{number}.{os.getpid()}"
        temporary.write_text(json.dumps(job))
        temporary.rename(self.path(number))


def directives(script: Path) -> list[tuple[str, str]]:
    """The options in a script: lines that begin with #PBS, before the first line that is neither comment nor blank."""
    found, over = [], False
    for number, line in enumerate(script.read_text().splitlines()):
        if line.startswith("#PBS"):
            if over:
                fail(SYNTAX, f"stand-in: directive in line {number + 1} after the first command, which PBS overlooks")
            options, rest = getopt.getopt(shlex.split(line[4:]), OPTIONS)
            if rest:
                fail(SYNTAX, f"qsub: usage: {line!r} has {rest} beside its options")
            found += options
        elif line.strip() and not line.startswith("#"):
            over = True
    return found


def resources(value: str) -> dict[str, str]:
    """Of one -l: name=value, by commas."""
    found = {}
    for part in value.split(","):
        name, equals, what = part.partition("=")
        if not equals or not re.fullmatch(r"\w+", name):
            fail(SYNTAX, f"qsub: Illegal attribute or resource value: -l {value}")
        patterns = {"place": PLACE, "walltime": TIME, "select": rf"({CHUNK})(\+({CHUNK}))*"}
        if not re.fullmatch(patterns.get(name, r"[\w:.@+-]+"), what):
            fail(SYNTAX, f"qsub: Illegal attribute or resource value for {name}: {what}")
        found[name] = what
    return found


def qsub(jobs: Jobs, arguments: list[str]) -> None:
    """Check, keep, and run in a process of its own."""
    options, rest = getopt.getopt(arguments, OPTIONS)
    if len(rest) != 1:
        fail(SYNTAX, "qsub: usage: qsub [options] script")
    script = Path(rest[0]).resolve()
    options += directives(script)
    wants: dict[str, str] = {}
    for name, value in options:
        if name == "-l":
            wants.update(resources(value))
        elif name == "-N" and not re.fullmatch(NAME, value):
            fail(SYNTAX, f"qsub: illegal -N value: {value}")
        elif name == "-r" and value not in ("y", "n"):
            fail(SYNTAX, "qsub: illegal -r value")
        elif name in ("-A", "-q") and not value:
            fail(SYNTAX, f"qsub: illegal {name} value")
    given = dict(options)
    if given.get("-q") == "nowhere":
        fail(BAD_QUEUE, "qsub: Unknown queue")
    if "select" not in wants or "walltime" not in wants:
        fail(SYNTAX, "stand-in: this site wants select and walltime")
    known = [json.loads(path.read_text()) for path in jobs.folder.glob("*.json")]
    limit = jobs.folder / "limit"
    if limit.exists() and sum(job["job_state"] != "F" for job in known) >= int(limit.read_text()):
        fail(LIMIT, "qsub: would exceed complex's per-user limit of jobs in 'Q' state")
    number = f"{len(known) + 1}.{SERVER}"
    held = "-h" in given
    jobs.write(
        number,
        Job_Name=given.get("-N", script.name),
        job_state="H" if held else "R",
        comment="Not Running: Job held by user" if held else "Job run on (here)",
        Resource_List=wants,
        queue=given.get("-q", "workq"),
        Rerunable=given.get("-r", "y") == "y",
        Account_Name=given.get("-A", ""),
        script=str(script),
        environment=dict(os.environ) if "-V" in given else {"PATH": os.defpath, "HOME": os.environ["HOME"]},
    )
    if not held:
        me = [sys.executable, __file__, str(jobs.folder), "run", number]
        null = subprocess.DEVNULL
        subprocess.Popen(me, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
    print(number)


def run(jobs: Jobs, number: str) -> None:
    """A job, to its end or that of its walltime."""
    job = jobs.read(number)
    assert job is not None
    wants, environment = job["Resource_List"], job["environment"]
    assert isinstance(wants, dict)
    assert isinstance(environment, dict)
    nodes = re.match(r"(\d+)", wants["select"])
    each = re.search(r"mpiprocs=(\d+)", wants["select"])
    count = int(nodes[1] if nodes else 1) * int(each[1] if each else 1)
    (jobs.folder / f"{number}.nodes").write_text(f"{socket.gethostname()}\n" * count)
    process = subprocess.Popen(
        ["/bin/bash", str(job["script"])],
        env={**environment, "PBS_JOBID": number, "PBS_NODEFILE": str(jobs.folder / f"{number}.nodes")}
        | {"PBS_ENVIRONMENT": "PBS_BATCH", "PBS_JOBNAME": str(job["Job_Name"])},
        cwd=environment["HOME"],
        start_new_session=True,
    )
    jobs.write(number, stime=time.strftime("%a %b %d %H:%M:%S %Y"), session_id=process.pid)
    seconds = 0.0
    for part in wants["walltime"].split(":"):
        seconds = seconds * 60 + float(part)
    comment = "Job run on (here) and finished"
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        comment = "Job run on (here) and exceeded resource walltime"
        end(process.pid)
    job = jobs.read(number)
    assert job is not None
    status = process.wait()
    if job.get("deleted"):
        comment = "Job run on (here) and terminated"
    jobs.write(number, job_state="F", comment=comment, Exit_status=status if status >= 0 else 256 - status)


def end(session: int) -> None:
    """SIGTERM to all processes of a job, SIGKILL after two seconds."""
    for sign, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + patience
        members = [session]
        while members and time.monotonic() < deadline:
            stats = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True).stdout
            members = [int(each) for each in stats.split()]
            for pid in members:
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)


def qstat(jobs: Jobs, arguments: list[str]) -> None:
    """-f, with -x also of jobs that have finished."""
    options, numbers = getopt.getopt(arguments, "fF:xu:")
    given = dict(options)
    if "-f" not in given or "-F" in given:
        fail(SYNTAX, "stand-in: only qstat -f is known here")
    status = 0
    for number in numbers:
        job = jobs.read(number)
        if job is None:
            print(f"qstat: Unknown Job Id {number}", file=sys.stderr)
            status = UNKNOWN
        elif job["job_state"] == "F" and "-x" not in given:
            print(
                f"qstat: {number} Job has finished, use -x or -H to obtain historical job information", file=sys.stderr
            )
            status = FINISHED
        else:
            print(f"Job Id: {number}")
            print("\n".join(shown(job)), end="\n\n")
    sys.exit(status)


def shown(job: dict[str, object]) -> list[str]:
    """A job's attributes as qstat -f prints them: a long one goes on behind a tab, newlines of variables are kept."""
    attributes: dict[str, object] = {}
    for name, value in job.items():
        if isinstance(value, dict) and name != "environment":
            attributes |= {f"{name}.{part}": what for part, what in value.items()}
        elif name not in ("script", "environment"):
            attributes[name] = value
    environment = job["environment"]
    assert isinstance(environment, dict)
    attributes["Variable_List"] = ",".join(f"{name}={value}" for name, value in environment.items())
    lines = []
    for name, value in attributes.items():
        line = f"    {name} = {value}"
        while len(line) > 79:
            lines.append(line[:79])
            line = f"\t{line[79:]}"
        lines.append(line)
    return lines


def qdel(jobs: Jobs, numbers: list[str]) -> None:
    """End jobs."""
    status = 0
    deaf = jobs.folder / "deaf"
    if deaf.exists() and (left := int(deaf.read_text())):
        deaf.write_text(str(left - 1))
        fail(UNREACHABLE, "qdel: Server could not connect to MOM")
    for number in numbers:
        job = jobs.read(number)
        if job is None:
            print(f"qdel: Unknown Job Id {number}", file=sys.stderr)
            status = UNKNOWN
        elif job["job_state"] == "F":
            print(f"qdel: Job has finished {number}", file=sys.stderr)
            status = FINISHED
        elif job["job_state"] == "H":
            jobs.write(number, job_state="F", comment="Job held by user and deleted", Exit_status=271)
        else:
            jobs.write(number, deleted=True)
            if "session_id" in job:
                end(int(str(job["session_id"])))
    sys.exit(status)


def pals(mpiexec: str, arguments: list[str]) -> NoReturn:
    """Start processes on this machine, as many as PALS would on the job's nodes."""
    counts, binding, words = {}, "", list(arguments)
    while words and words[0].startswith("-"):
        name, value = words.pop(0), words.pop(0) if words else ""
        if name in ("-n", "-ppn") and re.fullmatch(r"[1-9]\d*", value):
            counts[name] = int(value)
        elif name == "--cpu-bind" and value == "none":
            binding = value
        else:
            fail(SYNTAX, f"mpiexec: stand-in: {name} {value} is no option of PALS that it knows")
    if not words or counts.keys() != {"-n", "-ppn"}:
        fail(SYNTAX, "mpiexec: stand-in: expected -n, -ppn and a command")
    if not binding:
        fail(SYNTAX, "mpiexec: stand-in: without --cpu-bind none a process would be bound to one core")
    hosts = Path(os.environ["PBS_NODEFILE"])
    hosts.with_suffix(".mpiexec").write_text(shlex.join(arguments))
    nodes = len(hosts.read_text().split())
    if counts["-n"] > nodes * counts["-ppn"]:
        fail(SYNTAX, f"mpiexec: not enough slots: {counts['-n']} processes, {counts['-ppn']} a node, {nodes} nodes")
    os.execv(mpiexec, [mpiexec, "-n", str(counts["-n"]), *words])


def install_pals(folder: Path) -> Path:
    """A Python in an environment of its own, with all that this one has, but PALS for an MPI; its path.

    An mpiexec of Python's own environment is found before one that is on PATH.
    """
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert mpiexec is not None, "the tests need an MPI"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in borrowed]
    (packages / "borrowed.pth").write_text("".join(lines))
    for library in Path(sys.prefix, "lib").iterdir():
        if not library.name.startswith("python"):
            (folder / "lib" / library.name).symlink_to(library)  # mpi4py looks for MPI beside Python
    made = folder / "bin" / "mpiexec"
    made.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, __file__, mpiexec, "pals"])} "$@"\n')
    made.chmod(0o755)
    return folder / "bin" / "python"


def install(folder: Path) -> tuple[Path, Path]:
    """Make the commands; the folder for PATH, and the folder of the jobs' files."""
    commands, state = folder / "bin", folder / "jobs"
    commands.mkdir()
    state.mkdir()
    for name in ("qsub", "qstat", "qdel"):
        path = commands / name
        words = shlex.join([sys.executable, __file__, str(state), name])
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        path.chmod(0o755)
    return commands, state


if __name__ == "__main__":
    where, what, *others = sys.argv[1:]
    try:
        if what == "run":
            run(Jobs(Path(where)), others[0])
        elif what == "pals":
            pals(where, others)
        else:
            {"qsub": qsub, "qstat": qstat, "qdel": qdel}[what](Jobs(Path(where)), others)
    except getopt.GetoptError as error:
        fail(SYNTAX, f"{what}: illegal option: {error}")
