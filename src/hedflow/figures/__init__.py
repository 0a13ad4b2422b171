"""Figures: tables in, PNG files out. Every figure names n, its intervals and the naive baselines."""

from typing import NamedTuple


class Figure(NamedTuple):
    """Where a figure stands in the report, and what it is called there."""

    chapter: str
    title: str


METHODS, LINES, DRUGS = "1. Methods", "2. Cell lines", "3. Drugs"
PARTS, RUNS = "4. Parts of the test, certainty", "5. Training"
# Name of the file -> its place in the report; each has a caption in workflow/report/<name>.rst.
FIGURES = {
    "tradeoff": Figure(METHODS, "1. Error on potent pairs against the rest"),
    "contrasts": Figure(METHODS, "2. Change of error against the reference"),
    "ranges2": Figure(METHODS, "3. Error in 2 AUC ranges"),
    "ranges10": Figure(METHODS, "4. Error in 10 AUC ranges"),
    "ranks": Figure(METHODS, "5. Ranks of the methods over the drugs"),
    "predicted": Figure(METHODS, "6. Predicted against true AUC"),
    "ranking": Figure(LINES, "1. Ranking the drugs of a cell line"),
    "candidates": Figure(LINES, "2. Candidates of a few cell lines"),
    "high_error_drugs": Figure(DRUGS, "1. High error drugs: true and predicted AUC"),
    "drug_errors": Figure(DRUGS, "2. Error of every drug"),
    "distance": Figure(DRUGS, "3. Error against the nearest training drug"),
    "pairs": Figure(DRUGS, "4. Pairs that drive the worst drugs"),
    "z_scores": Figure(DRUGS, "5. The four z-scores"),
    "slices": Figure(PARTS, "1. By source, scaffold, mechanism and tissue"),
    "conformal": Figure(PARTS, "2. Intervals of the predictions"),
    "training": Figure(RUNS, "1. The metric over the epochs"),
    "convergence": Figure(RUNS, "2. Whether the runs converged"),
}
