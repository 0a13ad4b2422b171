"""Who lives in the simulated world: cell lines, drugs and genes, each with the spelling of every source."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hedflow import HedflowError

SOURCES = ("CCLE", "CTRPv2", "gCSI", "GDSCv1", "GDSCv2")
MIXTURE = "doxorubicin:navitoclax (2:1 mol/mol)"  # of CTRPv2; in no truth table
BLINDED_DRUG = "PARP_9495"  # of both GDSC screens; has no structure and is in no truth table
MIN_CELLS, MIN_DRUGS = 12, 6
# Share of the cell lines that each source has screened.
COVERAGE = {"CCLE": 0.7, "CTRPv2": 0.8, "gCSI": 0.6, "GDSCv1": 0.75, "GDSCv2": 0.75}
CELLS_WITHOUT_EXPRESSION = 2


class Tissue(NamedTuple):
    """One tissue in the words of each file, and prefixes of cell line names that are usual there."""

    lineage: str  # DepMap OncotreeLineage
    disease: str  # DepMap OncotreePrimaryDisease
    site: str  # CCLE's and CTRPv2's primary site (CCLE in upper case)
    gcsi: str  # gCSI Tissue
    gdsc: str  # GDSC Tissue descriptor 1
    prefixes: tuple[str, ...]


LYMPHOID = Tissue(
    "Lymphoid", "B-Lymphoblastic Leukemia/Lymphoma", "haematopoietic_and_lymphoid_tissue", "Blood",
    "leukemia", ("SU-DHL-", "KARPAS-", "OCI-LY"),
)  # fmt: skip
THYROID = Tissue("Thyroid", "Medullary Thyroid Cancer", "thyroid", "Thyroid", "thyroid", ("TPC-",))
OESOPHAGUS = Tissue(
    "Esophagus/Stomach", "Esophageal Squamous Cell Carcinoma", "oesophagus", "Esophagus", "aero_dig_tract",
    ("KYSE-", "TE-"),
)  # fmt: skip
BREAST = Tissue("Breast", "Invasive Breast Carcinoma", "breast", "Breast", "breast", ("MDA-MB-", "HCC-", "BT-"))
TISSUES = (
    Tissue("Lung", "Non-Small Cell Lung Cancer", "lung", "Lung", "lung_NSCLC", ("NCI-H", "PC-", "LU-")),
    BREAST,
    Tissue("Skin", "Melanoma", "skin", "Skin", "skin", ("SK-MEL-", "COLO-", "IGR-")),
    LYMPHOID,
    Tissue("Bowel", "Colorectal Adenocarcinoma", "large_intestine", "Colon", "large_intestine", ("SNU-C", "LS-")),
    Tissue("Pancreas", "Pancreatic Adenocarcinoma", "pancreas", "Pancreas", "pancreas", ("PANC-", "SU-86-")),
    OESOPHAGUS,
    THYROID,
)
# Name in DepMap, its stripped form, CCLE, CTRPv2, gCSI, GDSC, Cellosaurus name, accession, COSMIC id, tissue.
# TT and T.T are the two lines whose GDSC names, TT and T-T, collapse without punctuation; DepMap strips the
# second to TDOTT for that reason, and gCSI has neither. 697 looks like a number. All else is invented.
KNOWN_LINES = (
    ("697", "697", "697", "697", "697", "697", "697", "CVCL_0079", 906800, LYMPHOID),
    ("TT", "TT", "TT", "TTTHYROID", None, "TT", "TT", "CVCL_1774", 930299, THYROID),
    ("T.T", "TDOTT", "TT", "TTOESOPHAGUS", None, "T-T", "T.T", "CVCL_3174", 1299064, OESOPHAGUS),
    ("MCF7", "MCF7", "MCF7", "MCF7", "MCF7", "MCF-7", "MCF-7", "CVCL_0031", 905946, BREAST),
)
CELL_COLUMNS = ("name", "stripped", *SOURCES[:3], "GDSCv1", "common_name", "rrid", "cosmic_id")

TISSUE_COLUMNS = ("tissue", "disease", "site", "gcsi_tissue", "gdsc_tissue")

# Of the genes in DepMap's table, the L1000 landmarks first. They are labels here: their values are invented.
_GENES = """NCAPD2 BTK BRCA1 ERBB3 FGFR2 RHOA KEAP1 FAT1 MAP3K4 GNAS GNA11 ABL1 HIF1A TCFL5 AXIN1 IKBKB EZH2
    C5 GATA3 CCND1 RFC5 C2CD5 ASCC3 CCND3 SMC4 CBLB NFE2L2 MSH6 KIF14 DNMT3A PIK3CA SMARCA4 XPO7 DNMT1
    CDK4 MYC RB1 TP53 ERBB2 AKT1 LBR RALB MYO10 RASA1 NFKBIE EGFR CDKN2A NOTCH1 ARID5B KIT TGFBR2
    RPN1 CDC25A TERT SYK STAT3 STAT5B GATA2 IKZF1 HDAC2 NRAS CEBPA CREBBP CDH1 ROS1 FGFR3 TP63 TOP2B
    XPO1 GSTP1 MET JAK2 KRAS VHL APC SMO FLT3 MAP2K4 MLH1 IDH1"""
GENES = tuple(_GENES.split())


def known_drugs() -> pd.DataFrame:
    """The 32 drugs that a world can hold: name, class, target, each source's spelling (or None), SMILES."""
    with resources.files(__package__).joinpath("drugs.csv").open(encoding="utf-8") as f:
        table = pd.read_csv(f, dtype=str)
    return table.astype(object).where(table.notna(), None)


def make_drugs(n_drugs: int) -> pd.DataFrame:
    """The first `n_drugs` of the list, which starts with what a reader stumbles over.

    Raises:
        HedflowError: fewer drugs asked for than the peculiar ones, or more than are known.
    """
    drugs = known_drugs()
    if not MIN_DRUGS <= n_drugs <= len(drugs):
        raise HedflowError(f"simulate: n_drugs is {n_drugs}, expected {MIN_DRUGS} to {len(drugs)}.")
    return drugs.head(n_drugs).reset_index(drop=True)


def make_cells(n_cells: int, rng: np.random.Generator) -> pd.DataFrame:
    """Cell lines, one row each; a source's column is None where it has not screened the line.

    Returns:
        model_id, name (DepMap's), stripped, one column a source (its spelling; the CCLE name has the tissue),
        common_name (Cellosaurus'), rrid, cosmic_id, sanger_id, tissue (lineage), disease, site, gcsi_tissue,
        gdsc_tissue, ccle_name and gdsc_name (also of lines not screened there), has_expression.

    Raises:
        HedflowError: fewer lines asked for than the peculiar ones need.
    """
    if n_cells < MIN_CELLS:
        raise HedflowError(f"simulate: n_cells is {n_cells}, expected at least {MIN_CELLS}.")
    lines = [*KNOWN_LINES, *_invented_lines(n_cells - len(KNOWN_LINES), rng)]
    cells = pd.DataFrame([line[:-1] for line in lines], columns=list(CELL_COLUMNS))
    cells.insert(0, "model_id", [f"ACH-{k + 1:06d}" for k in range(n_cells)])
    cells["sanger_id"] = [f"SIDM{k + 11:05d}" for k in range(n_cells)]
    words = pd.DataFrame([line[-1][:-1] for line in lines], columns=list(TISSUE_COLUMNS))
    cells = cells.join(words)
    cells["CCLE"] = cells["CCLE"] + "_" + cells["site"].str.upper()
    cells["ccle_name"] = cells["CCLE"]
    cells["gdsc_name"] = cells["GDSCv2"] = cells["GDSCv1"]
    cells["has_expression"] = np.arange(n_cells) < n_cells - CELLS_WITHOUT_EXPRESSION
    return _screened(cells.astype(dict.fromkeys(SOURCES, object)), rng)


def _invented_lines(count: int, rng: np.random.Generator) -> list[tuple[Any, ...]]:
    taken = {str(line[1]) for line in KNOWN_LINES}
    lines: list[tuple[Any, ...]] = []
    while len(lines) < count:
        tissue = TISSUES[len(lines) % len(TISSUES)]
        name = f"{tissue.prefixes[rng.integers(len(tissue.prefixes))]}{rng.integers(20, 2000)}"
        stripped = re.sub(r"[^A-Z0-9]", "", name.upper())
        if stripped in taken:
            continue
        taken.add(stripped)
        k = len(lines)
        # GDSC mostly keeps the hyphens; where DepMap has dropped them, GDSC's spelling is Cellosaurus' own.
        depmap, gdsc = (stripped, name) if k % 4 == 1 else (name, stripped if k % 4 == 2 else name)
        spelling = (depmap, stripped, stripped, stripped, stripped, gdsc, name)
        lines.append((*spelling, f"CVCL_{4000 + k:04d}", 1_240_000 + 7 * k, tissue))
    return lines


def _screened(cells: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Blank each source's column where it has not screened the line."""
    n = len(cells)
    for source in SOURCES:
        screened = np.zeros(n, dtype=bool)
        screened[rng.permutation(n)[: round(COVERAGE[source] * n)]] = True
        if source in ("CTRPv2", "GDSCv1", "GDSCv2"):
            # The peculiar names must occur where they make trouble.
            screened[: len(KNOWN_LINES)] = True
        if source == "GDSCv2":
            screened |= cells[list(SOURCES[:4])].isna().all(axis=1).to_numpy()
        cells.loc[~screened, source] = None
    return cells
