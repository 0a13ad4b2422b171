"""What a process finds out about its children."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: pytest's has threads and children.
OWN_CHILDREN = """
import os, subprocess, threading
from snakemake_executor_plugin_worksteal.processes import OwnChildren, children

own = OwnChildren()
assert own.pids() == []
many = [os.posix_spawn("/bin/true", ["true"], {}) for _ in range(900)]  # never waited for; more than a page of numbers
assert len(str(many)) > 5000
assert own.pids() == many == children(os.getpid())

begun, end, found = threading.Event(), threading.Event(), []
def other():
    found.append(subprocess.Popen(["sleep", "60"]))
    begun.set()
    end.wait()
thread = threading.Thread(target=other)
thread.start()
begun.wait()
assert sorted(own.pids()) == sorted([*many, found[0].pid]), "a thread's child is a child of the process"
end.set()
thread.join()
assert sorted(own.pids()) == sorted([*many, found[0].pid]), "it stays one when the thread has ended"
found[0].kill()
found[0].wait()
for pid in many:
    os.waitpid(pid, 0)
assert own.pids() == []
for descriptor in own.descriptors:
    os.close(descriptor)
print("all well")
"""


def test_a_process_knows_all_its_children() -> None:
    done = subprocess.run([sys.executable, "-c", OWN_CHILDREN], capture_output=True, text=True, timeout=60)
    assert done.stdout == "all well\n", done.stderr
