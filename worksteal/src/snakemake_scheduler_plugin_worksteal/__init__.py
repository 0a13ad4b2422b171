"""A Snakemake scheduler for very many ready jobs: one sorted pass, O(n log n), in place of a knapsack or a greedy
O(n^2).

`--scheduler worksteal`. It takes jobs in the order that Snakemake's greedy scheduler prefers (priority, then the size
of temporary input, then the size of input) as long as each fits into the resources that are left. It belongs to the
executor of the same name, which itself packs jobs onto nodes, but serves any executor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snakemake_interface_scheduler_plugins.base import SchedulerBase
from snakemake_interface_scheduler_plugins.settings import SchedulerSettingsBase as SchedulerSettings

__all__ = ["Scheduler", "SchedulerSettings"]


class Scheduler(SchedulerBase):  # type: ignore[misc]
    """Selects jobs in one pass."""

    def select_jobs(
        self,
        selectable_jobs: Sequence[Any],
        remaining_jobs: Sequence[Any],
        available_resources: Mapping[str, int | str],
        input_sizes: Mapping[Any, int | None],
    ) -> Sequence[Any]:
        """Jobs to run now: those that fit, best first."""
        free = dict(available_resources)

        def reward(job: Any) -> tuple[int, int, int]:
            temporary = total = 0
            for path in job.input:
                size = input_sizes.get(path) or 0
                total += size
                if path.is_flagged("temp"):
                    temporary += size
            return job.priority, temporary, total

        selected = []
        for job in sorted(selectable_jobs, key=reward, reverse=True):
            needs = [(name, need) for name, need in job.scheduler_resources.items() if name in free and need]
            if all(need <= free[name] for name, need in needs):
                for name, need in needs:
                    free[name] -= need
                selected.append(job)
        return selected
