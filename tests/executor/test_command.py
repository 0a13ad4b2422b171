"""The command `worksteal` hands its words to the module of the command."""

from __future__ import annotations

import subprocess
import sys

import pytest
from snakemake_executor_plugin_worksteal import cli


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_says_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"worksteal {name}" in capsys.readouterr().out


def test_a_command_that_is_not_there() -> None:
    words = [sys.executable, "-m", cli.__name__, "fly"]
    ended = subprocess.run(words, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert "invalid choice: 'fly'" in ended.stderr
