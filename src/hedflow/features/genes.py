"""Named sets of genes. They lie here and not in the bundle: a model asks for one, and no bundle is built anew."""

from __future__ import annotations

from importlib import resources
from typing import Literal

GeneSet = Literal["all", "landmark"]


def gene_set(name: GeneSet) -> frozenset[str] | None:
    """Symbols of a gene set; None for all genes.

    `landmark`: the 978 genes that L1000 (LINCS, Broad Institute) measures, chosen there because most of the other
    genes can be inferred from them. The list lies in this folder and not in the bundle, so that a model can
    ask for it without another bundle.
    """
    if name == "all":
        return None
    text = resources.files(__package__).joinpath("landmark_genes.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return frozenset(lines[1:])
