"""Pools on hosts with networks of their own (namespaces, iproute2), of which one is cut off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pbs
import pytest
from conftest import Workflow, wait_for
from test_batch import MANY, wait_until_begun

NETWORK = "10.231.78"
LAUNCHER = """#!/bin/sh
# One pool a host, the first that is free.
for host in {hosts}; do
    mkdir {folder}/$host 2>/dev/null && exec ip netns exec $host "$@"
done
exit 9
"""


def ip(*words: str) -> None:
    """iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def host(name: str, number: int, bridge: str) -> Iterator[str]:
    """A network namespace with an address, on the bridge by a cable of which the outer end has the host's name."""
    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", bridge, "up")
        ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", name, "link", "set", link, "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], capture_output=True)
        ip("netns", "del", name)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two hosts; the login node is this one, with an address on the same bridge."""
    if shutil.which("ip") is None:
        pytest.skip("no ip here: apt-get install iproute2")
    bridge = f"ws{os.getpid()}"
    made = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no bridge can be made here: {made.stderr.strip()}")
    try:
        ip("addr", "add", f"{NETWORK}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        with ExitStack() as stack:
            yield [stack.enter_context(host(f"{bridge}{letter}", 2 + n, bridge)) for n, letter in enumerate("ab")]
    finally:
        ip("link", "del", bridge)


def test_a_host_that_is_cut_off(one: Workflow, hosts: list[str], tmp_path_factory: pytest.TempPathFactory):
    """Nothing comes from it any more, and nobody says so. What it finishes counts, the other does the rest."""
    commands, state = pbs.install(tmp_path_factory.mktemp("pbs"))
    one.environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    launcher = one.write("launcher.sh", LAUNCHER.format(hosts=" ".join(hosts), folder=one.folder))
    launcher.chmod(0o755)
    given = {"submit": "pbs", "walltime": "10", "nodes": 1, "slots": 1, "pools": 2, "reconnect": 3, "follow-ups": 0}
    given |= {"launcher": str(launcher), "address": f"tcp:{NETWORK}.1:0"}
    one.pool = tuple(f"--worksteal-{name}={value}" for name, value in given.items())
    one.write("Snakefile", MANY)
    process = one.start("--config", "seconds=1")
    wait_until_begun(one, 5)
    assert all((Path(one.folder) / name).exists() for name in hosts), "only one pool is up"
    ip("link", "set", hosts[1], "down")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert sorted(one.lines("begun"), key=int) == [str(n) for n in range(12)]
    assert "Snakemake is gone" in output, output
    one.assert_nothing_left()
    wait_for(lambda: [json.loads(path.read_text())["job_state"] for path in state.glob("*.json")] == ["F", "F"])
