"""A real Slurm on this machine: munged, slurmctld and one slurmd a node, in a folder of its own, ended with the tests.

All nodes are this machine, each with a slurmd and a port of its own, so jobs really are submitted, wait, run on several
nodes, and die with a node. Needs Debian's slurm-wlm and munge (README, "Tests"), and root, as which slurmd runs jobs.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

CPUS = 4  # of each node; more than there are, since tests mostly wait
PARTITION = "main"
PROGRAMS = ("slurmctld", "slurmd", "munged")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def end_with_parent() -> None:
    """In a daemon, before it begins: SIGTERM when the tests are killed (prctl, PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def free_ports(number: int) -> list[int]:
    """Ports that nobody uses at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Slurm:
    """A running cluster. `environment` is what its commands need; commands run by `run` have it."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder = folder
        self.nodes = [f"n{index + 1}" for index in range(nodes)]
        self.config = folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.config), "PATH": PATH}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def write_config(self) -> None:
        """slurm.conf."""
        host = socket.gethostname().split(".")[0]
        control, *ports = free_ports(1 + len(self.nodes))
        lines = [
            "ClusterName=worksteal",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={control}",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.folder}/munge.socket",
            "CredType=cred/munge",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            "ProctrackType=proctrack/pgid",
            "TaskPlugin=task/none",
            "MpiDefault=none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0",
            "SlurmdParameters=config_overrides",
            "AccountingStorageType=accounting_storage/none",
            "JobAcctGatherType=jobacct_gather/none",
            "ReturnToService=2",
            "SlurmdTimeout=10",
            "KillWait=2",
            "MinJobAge=300",
        ]
        for name, port in zip(self.nodes, ports, strict=True):
            where = f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            lines.append(f"{where} CPUs={CPUS} RealMemory={psutil.virtual_memory().total >> 20}")
        every = f"Nodes={self.nodes[0]}" + "".join(f",{name}" for name in self.nodes[1:])
        lines.append(f"PartitionName={PARTITION} {every} Default=YES MaxTime=INFINITE State=UP")
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        (self.folder / "state").mkdir()
        self.write_config()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder}/{name}" for option, name in names.items()]
        self._spawn("munged", "munged", "--foreground", "--force", "--num-threads=1", f"--key-file={key}", *options)
        self.wait_for(lambda: (self.folder / "munge.socket").exists(), "munged has no socket")
        self._spawn("slurmctld", "slurmctld", "-D", "-i")
        for name in self.nodes:
            self.start_node(name)
        self.wait_for(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "not all nodes are idle")

    def start_node(self, name: str) -> None:
        """Start the slurmd of a node (again)."""
        self._spawn(name, "slurmd", "-D", "-N", name)

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [shutil.which(command[0], path=PATH) or command[0], *command[1:]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def run(self, *command: str) -> str:
        """What a Slurm command prints; fails the test if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        """What Slurm says of each node; empty while it says nothing."""
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", PARTITION, "-o", "%N %T"], env=self.environment, capture_output=True, text=True
        )
        return dict(line.split() for line in done.stdout.splitlines()) if done.returncode == 0 else {}

    def jobs(self) -> list[str]:
        """Numbers of the jobs that wait or run."""
        return self.run("squeue", "-h", "-o", "%i").split()

    def processes(self, node: str) -> list[psutil.Process]:
        """Processes of jobs on a node."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") == node and process.environ().get("SLURM_CONF") == str(
                    self.config
                ):
                    found.append(process)
        return found

    def kill_node(self, node: str) -> None:
        """What a power failure does: the node's daemons and all processes of jobs there are gone at once."""
        daemon = psutil.Process(self.daemons[node].pid)
        jobs = self.processes(node)
        for process in jobs[:]:
            with suppress(psutil.Error):
                jobs += process.children(recursive=True)
        for process in (daemon, *self.steps(node), *jobs):
            with suppress(psutil.Error):
                process.kill()
        self.daemons.pop(node).wait()

    def steps(self, node: str) -> list[psutil.Process]:
        """The slurmstepd of a node: they name it in no argument, but in the folder where they listen."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "slurmstepd" and f"spool-{node}" in " ".join(
                    [process.cwd(), *(file.laddr for file in process.net_connections("unix") if file.laddr)]
                ):
                    found.append(process)
        return found

    def wait_for(self, holds: object, why: str, patience: float = 30.0) -> None:
        """Wait until something holds; with the daemons' last words if it does not."""
        deadline = time.monotonic() + patience
        while not holds():  # type: ignore[operator]
            if time.monotonic() > deadline:
                logs = [f"{log.name}: {log.read_text(errors='replace')[-800:]}" for log in self.folder.glob("*.log")]
                pytest.fail(f"Slurm: {why}\n" + "\n".join(logs))
            time.sleep(0.05)

    def cancel_all(self) -> None:
        """End all jobs, bring all nodes back."""
        for number in self.jobs():
            self.run("scancel", number)
        for name in self.nodes:
            if name not in self.daemons:
                # Slurm would wait long for the node to say that its part of a job has ended.
                self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=test")
                self.start_node(name)
        self.wait_for(lambda: not self.jobs(), "jobs do not end", patience=90.0)
        self.wait_for(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "not all nodes are idle again")

    def stop(self) -> None:
        """End the daemons, and what is left of jobs."""
        for name in self.nodes:
            for process in (*self.steps(name), *self.processes(name)):
                with suppress(psutil.Error):
                    process.kill()
        for daemon in reversed(self.daemons.values()):
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGTERM)
        for daemon in self.daemons.values():
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@contextmanager
def cluster(nodes: int) -> Iterator[Slurm]:
    """A cluster of so many nodes; the test is skipped, with a sentence, where Slurm is not installed."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("slurmd runs jobs as root only")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets lie in it
    slurm = Slurm(folder, nodes)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(folder, ignore_errors=True)
