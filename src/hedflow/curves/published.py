"""Our fits against what the screens' own groups published of the same curves: the table of docs/curves.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.curves.fit import fit_curves
from hedflow.curves.growth import growth_rate
from hedflow.sources import ccle, gdscv2
from hedflow.sources.tables import read_table

CCLE_FILE = "response/CCLE/CCLE_NP24.2009_Drug_data_2015.02.24.csv"
WELLS_FILE = "raw/GDSC2_wells/GDSC2_public_raw_data.6-drugs.csv.gz"
GDSC2_FILE = "response/GDSC/GDSC2_AUC.csv.gz"
VIABILITY_FILE = "raw/CCLE_GDSC_viability/rawPharmacoData.csv.gz"
SUMMARY_FILE = "raw/CCLE_GDSC_viability/summarizedPharmacoData.csv"
GCSI_FILE = "response/gCSI/20170612_gCSI_GRfits.tsv"
FILES = (CCLE_FILE, WELLS_FILE, GDSC2_FILE, VIABILITY_FILE, SUMMARY_FILE, GCSI_FILE)
GCSI_HOURS = 72.0  # of gCSI's assay


@dataclass(frozen=True)
class Pairing:
    """Two values of the same thing, ours and the published one, as rows of equal order."""

    what: str
    ours: np.ndarray
    published: np.ndarray
    unit: str

    def row(self) -> dict[str, object]:
        """n, Pearson r, Spearman rho, medians of the difference and of its size."""
        both = np.isfinite(self.ours) & np.isfinite(self.published)
        ours, published = pd.Series(self.ours[both]), pd.Series(self.published[both])
        difference = ours - published
        return {
            "what": self.what,
            "unit": self.unit,
            "n": int(both.sum()),
            "pearson": float(ours.corr(published)),
            "spearman": float(ours.corr(published, method="spearman")),
            "median_difference": float(difference.median()),
            "median_absolute_difference": float(difference.abs().median()),
        }


def compare(mirror: str | Path) -> pd.DataFrame:
    """One row a comparison (`Pairing.row`), over all curves of which both values exist.

    Args:
        mirror: folder with the public files (see the `mirror` column of resources/datasets.csv).
    """
    mirror = Path(mirror)
    for name in FILES:
        if not (mirror / name).is_file():
            raise HedflowError(f"{mirror / name}: no such file; the comparison needs a mirror with it.")
    pairings = [*_ccle(mirror), *_wells(mirror), *_summary(mirror), _growth(mirror)]
    return pd.DataFrame([pairing.row() for pairing in pairings])


def _fit(points: pd.DataFrame) -> pd.DataFrame:
    """Fitted curves with their names."""
    fitted = fit_curves(points["curve"].to_numpy(), points["dose"].to_numpy(), points["viability"].to_numpy())
    named = points.groupby("curve", sort=True)[["cell_name", "drug_name", "series"]].first()
    return named.join(fitted)


def _minus_log_molar(micromolar: pd.Series[float]) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(6 - np.log10(micromolar.to_numpy(float)))


def _ccle(mirror: Path) -> list[Pairing]:
    path = mirror / CCLE_FILE
    fitted = _fit(ccle.read_points(path))
    numbers = ["ActArea", "EC50 (uM)", "IC50 (uM)", "Amax"]
    table = read_table(path, [ccle.CELL, "Compound", "FitType", *numbers], numbers=numbers)
    table = fitted.merge(table, left_on=["cell_name", "drug_name"], right_on=[ccle.CELL, "Compound"], validate="1:1")
    sigmoid = table[table["FitType"] == "Sigmoid"]
    inside = sigmoid[sigmoid["EC50 (uM)"] < 8]
    reached = table[table["IC50 (uM)"] < 8]
    top = table["einf"] + (1 - table["einf"]) / (1 + 10 ** ((table["ec50"] - table["x_low"]) * table["hs"]))
    return [
        Pairing("CCLE AUC, tested doses", table["auc_tested"].to_numpy(), 1 - table["ActArea"].to_numpy() / 8, "AUC"),
        Pairing("CCLE Amax", top.to_numpy(), 1 + table["Amax"].to_numpy() / 100, "viability"),
        Pairing("CCLE EC50, sigmoid", sigmoid["ec50"].to_numpy(), _minus_log_molar(sigmoid["EC50 (uM)"]), "decades"),
        Pairing(
            "CCLE EC50, sigmoid, below 8 uM",
            inside["ec50"].to_numpy(),
            _minus_log_molar(inside["EC50 (uM)"]),
            "decades",
        ),
        Pairing("CCLE IC50, reached", reached["ic50"].to_numpy(), _minus_log_molar(reached["IC50 (uM)"]), "decades"),
    ]


def _wells(mirror: Path) -> list[Pairing]:
    fitted = _fit(gdscv2.read_points(mirror / WELLS_FILE))
    mean = fitted.groupby(["cell_name", "drug_name", "series"])["auc_tested"].mean()
    table = read_table(mirror / GDSC2_FILE, ["CELL_LINE_NAME", "DRUG_NAME", "AUC"], numbers=["AUC"])
    published = table.groupby(["CELL_LINE_NAME", "DRUG_NAME"])["AUC"].mean()
    pairings = []
    for (drug, series), rows in mean.groupby(level=["drug_name", "series"]):  # type: ignore[misc,str-unpack]
        pairs = pd.MultiIndex.from_arrays([rows.index.get_level_values("cell_name"), [drug] * len(rows)])
        theirs = published.reindex(pairs).to_numpy()
        pairings.append(Pairing(f"GDSC2 AUC, {drug} {series}", rows.to_numpy(), theirs, "AUC"))
    return pairings


def _summary(mirror: Path) -> list[Pairing]:
    """`summarizedPharmacoData.csv`: there `auc` is the area over the curve, a share of the tested range."""
    columns = ["ic50_CCLE", "auc_CCLE", "ic50_GDSC", "auc_GDSC"]
    summary = read_table(mirror / SUMMARY_FILE, ["cellLine", "drug", *columns], numbers=columns)
    summary = summary.set_index(["cellLine", "drug"])
    points = read_table(
        mirror / VIABILITY_FILE,
        ["cellLine", "drug", "concentration", "viability", "study"],
        numbers=["concentration", "viability"],
    )
    pairings = []
    for study, highest in (("CCLE", 8.0), ("GDSC", np.inf)):
        mine = points[points["study"] == study]
        table = pd.DataFrame(
            {
                "cell_name": mine["cellLine"],
                "drug_name": mine["drug"],
                "curve": mine.groupby(["cellLine", "drug"]).ngroup(),
                "series": "",
                "dose": mine["concentration"] * 1e-6,
                "viability": mine["viability"] / 100,
            }
        )
        fitted = _fit(table).set_index(["cell_name", "drug_name"])
        theirs = summary.reindex(fitted.index)
        ic50 = theirs[f"ic50_{study}"].where(theirs[f"ic50_{study}"] < highest)
        auc = 1 - theirs[f"auc_{study}"].to_numpy()
        pairings += [
            Pairing(f"PharmacoGx summary, {study} AUC", fitted["auc_tested"].to_numpy(), auc, "AUC"),
            Pairing(f"PharmacoGx summary, {study} IC50", fitted["ic50"].to_numpy(), _minus_log_molar(ic50), "decades"),
        ]
    return pairings


def _growth(mirror: Path) -> Pairing:
    """GRmax of gCSI from its Emax (viability at the highest dose) and doubling time, against the published GRmax."""
    columns = ["DoublingTime", "Emax", "GRmax"]
    table = read_table(mirror / GCSI_FILE, columns, sep="\t", numbers=columns)
    rate = growth_rate(table["Emax"], GCSI_HOURS / table["DoublingTime"])
    return Pairing("gCSI GRmax from Emax", rate, table["GRmax"].to_numpy(), "GR")


def as_markdown(table: pd.DataFrame) -> str:
    """The comparison as a Markdown table."""
    lines = [
        "| ours against published | unit | n | Pearson r | Spearman | median difference | median absolute difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        values = [f"{row[name]:.3f}" for name in ("pearson", "spearman")]
        values += [f"{row['median_difference']:+.4f}", f"{row['median_absolute_difference']:.4f}"]
        lines.append(" | ".join(["| " + row["what"], row["unit"], f"{row['n']:,}", *values]) + " |")
    return "\n".join(lines)
