"""The scheduler plugin takes what fits, best first, in one pass."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from snakemake_scheduler_plugin_worksteal import Scheduler, SchedulerSettings


@dataclass(eq=False)
class Job:
    """What the scheduler sees of a job."""

    priority: int
    scheduler_resources: dict[str, int]
    input: list[str] = field(default_factory=list)


JOBS = st.lists(
    st.builds(
        Job, st.integers(0, 3), st.fixed_dictionaries({"_cores": st.integers(0, 4), "mem_mb": st.integers(0, 9)})
    ),
    max_size=12,
)


@given(JOBS, st.integers(0, 10), st.integers(0, 20))
def test_the_selection_fits_and_nothing_more_would(jobs, cores, memory):
    """Resources are kept to; a job that is left out would not fit beside those of higher or equal priority."""
    free = {"_cores": cores, "mem_mb": memory, "other": 5}
    scheduler = Scheduler(None, SchedulerSettings(), logging.getLogger())
    selected = scheduler.select_jobs(jobs, jobs, free, {})
    for name in ("_cores", "mem_mb"):
        assert sum(job.scheduler_resources[name] for job in selected) <= free[name]
    for job in jobs:
        if job not in selected:
            ahead = [other for other in selected if other.priority >= job.priority]
            used = {name: sum(other.scheduler_resources[name] for other in ahead) for name in free if name != "other"}
            assert any(job.scheduler_resources[name] > free[name] - used[name] for name in used)
