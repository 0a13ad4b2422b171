"""Analysis of one experiment: all runs' predictions -> tables. Statistics live in errors, ranking, intervals."""

TABLES = (
    "runs", "methods", "contrasts", "ranges", "drugs", "cells", "high_error_drugs", "ranking", "cell_ranking",
    "ranking_differences", "shift_curve", "equal_cost", "scores", "comparison", "candidates",
    "shown_lines",
)  # fmt: skip
