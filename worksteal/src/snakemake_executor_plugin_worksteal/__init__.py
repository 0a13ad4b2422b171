"""worksteal: a Snakemake executor that runs jobs inside one pool of agents, on one machine or in one MPI launch.

Modules: settings and profiles (what a user sets); executor and jobs (Snakemake's side); pool, launch and session (the
pool's life); agent, ahead, core, queue, messages, transport and node (a node of the pool), simulator (the core under
a virtual clock); runner, tending, tended, warm, forks, afresh, wire and processes (tasks); pieces (jobs that go on
later); channel, endpoints and frames (Snakemake to pool); trace, figure and progress (what a user sees of it); cli
(the command `worksteal`); doctor, findings, probe and trial (a check of a site); staging, listing, peers, store and
archive (copies on the disk of each node).
"""

from typing import TYPE_CHECKING, Any

from .settings import ExecutorSettings, common_settings

if TYPE_CHECKING:
    from .executor import Executor

__all__ = ["Executor", "ExecutorSettings", "common_settings"]


def __getattr__(name: str) -> Any:
    """Import the executor when Snakemake asks for it: an agent, which is in this package too, needs nothing of
    Snakemake.
    """
    if name != "Executor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .executor import Executor

    return Executor
