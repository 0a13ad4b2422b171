"""Counting lost rows: nothing is dropped silently, from the screens' files to the bundle."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hedflow.schemas import LOSSES, checked


@dataclass
class Tally:
    """Counts the rows each step loses, and why."""

    rows: list[tuple[str, str, str, int, int, int]]

    def keep(self, table: pd.DataFrame, source: str, step: str, reason: str, good: pd.Series[bool]) -> pd.DataFrame:
        """The rows where `good`; the others are counted under `step` and `reason`."""
        kept = table[good.to_numpy()]
        self.rows.append((source, step, reason, len(table), len(table) - len(kept), len(kept)))
        return kept

    def table(self) -> pd.DataFrame:
        """`schemas.LOSSES`."""
        columns = ["source", "step", "reason", "rows_before", "rows_lost", "rows_after"]
        return checked(pd.DataFrame(self.rows, columns=columns), LOSSES, "integration report")
