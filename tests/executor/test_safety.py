"""Nobody but its own pool gets through to Snakemake, and nobody but Snakemake to the pool."""

from __future__ import annotations

import os
import pickle
import re
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import wait_for
from snakemake_executor_plugin_worksteal.channel import ChannelError, connect
from snakemake_executor_plugin_worksteal.session import (
    FILE,
    Session,
    SessionError,
    make_secret,
    read_session,
    task_environment,
)

SLEEPERS = """
rule all:
    input: expand("{n}.txt", n=range(6))
rule make:
    output: "{n}.txt"
    shell: "echo {wildcards.n} >> begun; while [ ! -e go ]; do sleep 0.05; done; touch {output}"
"""


class Bomb:
    """A pickle that leaves a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def raw(address: str) -> socket.socket:
    """A socket to a TCP address of the channel."""
    _, host, port = address.split(":")
    return socket.create_connection((host, int(port)))


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refusals(output: str, address: str) -> list[tuple[int, str]]:
    """Port and reason of each connection that the log says was refused."""
    found = re.findall(rf"Refused a connection to {address}: 127\.0\.0\.1:(\d+) (.+)", output)
    assert len(found) == output.count("Refused a connection"), output
    return sorted((int(port), reason) for port, reason in found)


def wait_closed(end: socket.socket) -> int:
    """Wait until the other side has closed; this side's port."""
    with end:
        end.settimeout(30)
        port = int(end.getsockname()[1])
        with suppress(ConnectionResetError):
            while end.recv(4096):
                pass
        return port


def test_strangers_are_refused_and_logged_while_the_workflow_goes_on(workflow, tmp_path):
    """A wrong secret, garbage, a pickle, one that leaves: each is turned away and named, and every job is done once."""
    workflow.write("Snakefile", SLEEPERS)
    secret = os.urandom(16).hex()
    workflow.write("secret", secret).chmod(0o600)
    address = f"tcp:127.0.0.1:{free_port()}"
    process = workflow.start("--worksteal-secret-file", "secret", "--worksteal-address", address)
    wait_for(lambda: bool(workflow.lines("begun")))
    silent = raw(address)  # keeps nobody else waiting
    ends = {}
    for payload in (b"GET / HTTP/1.1\r\n\r\n" * 20, pickle.dumps(Bomb(tmp_path / "exploded")) * 10, b"\xff" * 4096):
        ends[raw(address)] = payload, f"does not speak worksteal's protocol: it began with {payload[:8]!r}."
    ends[raw(address)] = b"", "closed the connection before it had proved that it knows the secret."
    for end, (payload, _) in ends.items():
        end.sendall(payload)
        if not payload:
            end.shutdown(socket.SHUT_WR)
    expected = {wait_closed(end): reason for end, (_, reason) in ends.items()}
    with pytest.raises(ChannelError, match="wrong proof"):
        connect(address, os.urandom(32), 30.0)
    # One who has the secret but is not the pool that was started is turned away as well.
    second = connect(address, secret.encode(), 30.0)
    with socket.socket(fileno=os.dup(second.fileno())) as its:
        expected[its.getsockname()[1]] = "knows the secret, but the pool is up already."
    with pytest.raises(ChannelError):
        second.recv(30.0)
    workflow.write("go", "")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    found = dict(refusals(output, address))
    with silent:  # that it is silent is noticed after 10 s, if the run takes so long
        assert found.pop(silent.getsockname()[1], "was silent").startswith("was silent")
    for port, reason in expected.items():
        assert found.pop(port) == reason, output
    (reason,) = found.values()
    assert reason.startswith("gave a wrong proof"), output
    assert sorted(workflow.lines("begun")) == list("012345")
    assert not (tmp_path / "exploded").exists()


def test_who_knows_the_secret_and_is_not_the_pool_is_refused_and_logged(one):
    """Before the pool is up: one that leaves at once, one that says nonsense, a pool that was given up."""
    one.write("Snakefile", "rule make:\n    output: 'out.txt'\n    shell: 'touch {output}'\n")
    one.write("late.sh", '#!/bin/bash\ntouch up; while [ ! -e go ]; do sleep 0.05; done; exec "$@"\n').chmod(0o755)
    secret = os.urandom(16).hex()
    one.write("secret", secret).chmod(0o600)
    address = f"tcp:127.0.0.1:{free_port()}"
    one.pool = ("--worksteal-launcher", f"{one.folder}/late.sh", "--worksteal-slots", "1")
    process = one.start("--worksteal-secret-file", "secret", "--worksteal-address", address)
    wait_for((one.folder / "up").exists)
    connect(address, secret.encode(), 30.0).close()
    wrong = [7, "hello", (), ("hello",), ("hello", 1), ("hello", 1, 5), ("hello", 1, [5]), ("hello", 0, [{}])]
    for message in wrong:
        end = connect(address, secret.encode(), 30.0)
        end.send(message)
        with pytest.raises(ChannelError):
            end.recv(30.0)
    one.write("go", "")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    reasons = [reason for _, reason in refusals(output, address)]
    assert len(reasons) == 1 + len(wrong), output
    for words, times in (
        ("said no hello: .* closed", 1),
        ("first message is no hello", 7),
        ("launch 0, which was given", 1),
    ):
        assert sum(bool(re.search(words, reason)) for reason in reasons) == times, output


def test_the_secret_is_nowhere_to_be_seen(workflow):
    """Not on a command line, not in an environment, and its file is gone once the pool is up."""
    workflow.write("Snakefile", SLEEPERS)
    secret = os.urandom(16).hex()
    workflow.write("secret", secret).chmod(0o600)
    process = workflow.start("--worksteal-secret-file", "secret")
    wait_for(lambda: bool(workflow.lines("begun")))
    (folder,) = (workflow.folder / ".snakemake" / "worksteal").glob("2*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not (folder / FILE).exists()
    seen = 0
    for found in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            words = " ".join(found.cmdline()) + " ".join(found.environ().values())
            seen += 1
            assert secret not in words
            assert secret.encode().hex() not in words
    assert seen >= 3, "an agent and its runners, at least"
    workflow.write("go", "")
    process.communicate(timeout=60)


def test_a_sessions_file_is_its_owners_alone(tmp_path):
    """Mode 0600 from its first byte, and what was written is read."""
    session = Session(pool="p", address="unix:/x", secret="00" * 16, workdir="/", slots=3)
    path = session.write(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_session(tmp_path) == session


def test_a_secret_of_ones_own(one, tmp_path):
    """`--worksteal-secret-file`: a file that others can read, or a short secret, is refused with a sentence."""
    one.write("Snakefile", "rule make:\n    output: 'out.txt'\n    shell: 'touch {output}'\n")
    secret = one.write("secret", "correct horse battery staple\n")
    secret.chmod(0o644)
    output = one.run("--worksteal-secret-file", "secret", fails=True)
    assert re.search(r"secret can be read or written by others", output), output
    secret.chmod(0o600)
    one.run("--worksteal-secret-file", "secret")
    secret.write_text("short")
    with pytest.raises(SessionError, match="needs 16 or more"):
        make_secret(secret)


def test_an_agent_refuses_a_session_that_others_could_have_written(tmp_path):
    """The session's file names what is run, so it must be its owner's alone."""
    path = tmp_path / FILE
    path.write_text("{}")
    path.chmod(0o666)
    with pytest.raises(SessionError, match="0600"):
        read_session(tmp_path)
    path.chmod(0o600)
    with pytest.raises(SessionError, match="not the session file"):
        read_session(tmp_path)
    agent = [sys.executable, "-m", "snakemake_executor_plugin_worksteal.agent", str(tmp_path / "none")]
    done = subprocess.run(agent, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert "cannot read" in done.stderr


def test_what_tasks_see_of_environments():
    """Never a variable of an MPI launch; on another machine, that machine's own variables."""
    given = {"A": "1", "PMI_RANK": "0", "SLURM_JOB_ID": "7", "TMPDIR": "/login", "HOSTNAME": "login"}
    own = {"A": "2", "PMI_RANK": "3", "SLURM_JOB_ID": "7", "SLURM_NODEID": "5", "HOSTNAME": "node"}
    assert task_environment(own, given, same_machine=True) == {
        "A": "1",
        "SLURM_JOB_ID": "7",
        "TMPDIR": "/login",
        "HOSTNAME": "login",
    }
    assert task_environment(own, given, same_machine=False) == {
        "A": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_NODEID": "5",
        "HOSTNAME": "node",
    }
