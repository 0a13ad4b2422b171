"""`hedflow.script.job` in real processes: what a user sees, what the log keeps, how the process ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from hedflow.script import paths

SCRIPT = """
import sys
from types import SimpleNamespace
from hedflow import HedflowError
from hedflow.script import job
with job(SimpleNamespace(log=[sys.argv[1]], output=[])):
    print("a line")
    print("a warning", file=sys.stderr)
    BODY
print("after")
"""


def script(body, log):
    command = [sys.executable, "-c", SCRIPT.replace("BODY", body), str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)})
    return done, log.read_text(encoding="utf-8")


def test_what_is_printed_goes_to_the_log(tmp_path):
    done, log = script("pass", tmp_path / "log")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")
    assert log == "a line\na warning\n"


def test_what_a_user_can_mend_is_one_sentence(tmp_path):
    done, log = script('raise HedflowError("the file β.csv has no column auc; add it.")', tmp_path / "log")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "hedflow: the file β.csv has no column auc; add it.\n"
    assert log == "a line\na warning\nthe file β.csv has no column auc; add it.\n"


def test_a_sentence_with_a_cause_has_no_traceback_either(tmp_path):
    body = "\n    ".join(["try:", "    int('x')", "except ValueError as e:", "    raise HedflowError('No.') from e"])
    done, log = script(body, tmp_path / "log")
    assert (done.returncode, done.stderr) == (1, "hedflow: No.\n")
    assert "Traceback" not in log


def test_any_other_error_keeps_its_traceback(tmp_path):
    done, log = script("{}['lost']", tmp_path / "log")
    assert done.returncode == 1
    assert done.stdout == ""
    for text in (log, done.stderr):
        assert "Traceback (most recent call last)" in text
        assert text.rstrip().endswith("KeyError: 'lost'")
    assert log.startswith("a line\na warning\n")


def test_the_log_is_written_as_it_goes_and_anew_each_time(tmp_path):
    """A killed job leaves what it said so far; the next one begins its log from nothing."""
    (tmp_path / "log").write_text("an older run\n")
    done, log = script("import os; os._exit(9)", tmp_path / "log")
    assert done.returncode == 9
    assert "an older run" not in log
    assert "a line\n" in log


@pytest.mark.parametrize(("given", "wanted"), [("a/b", [Path("a/b")]), (["a", "b"], [Path("a"), Path("b")]), ([], [])])
def test_paths(given, wanted):
    assert paths(given) == wanted
