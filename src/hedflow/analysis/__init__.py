"""Analysis of one experiment: all runs' predictions -> tables. Statistics live in errors, ranking, intervals."""

TABLES = (
    "runs", "convergence", "methods", "floors", "contrasts", "ranks", "ranges", "slices", "distance", "distance_trend",
    "drugs", "cells", "high_error_drugs", "pairs", "concentration", "ranking", "cell_ranking", "ranking_differences",
    "candidates", "shown_lines", "shift_curve", "equal_cost", "conformal", "scores", "comparison",
)  # fmt: skip
