"""Analysis of one experiment: all runs' predictions -> tables. Statistics live in errors, ranking, intervals."""

TABLES = (
    "runs", "convergence", "methods", "floors", "contrasts", "ranks", "ranges", "slices", "distance", "distance_trend",
    "drugs", "cells", "high_error_drugs", "pairs", "concentration", "ranking", "cell_ranking", "ranking_differences",
    "candidates", "shown_lines", "shift_curve", "equal_cost", "conformal", "scores", "comparison",
)  # fmt: skip
# Of an experiment that uses the high error drugs of another one.
SECOND_STEP_TABLES = ("second_step", "second_step_drugs", "second_step_ranking", "second_step_about")
