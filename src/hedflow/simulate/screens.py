"""The five screens: what each would have measured of the truth, in its own file format.

`pairs` below is always one row a (cell line, drug) that the source has screened: cell_name, drug_name (the
source's own), the true curve (model_id, drug, einf, ec50, hs, auc), target, and the line's columns.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hedflow.curves.hill import hill, mean_viability
from hedflow.simulate.catalogue import BLINDED_DRUG, MIXTURE
from hedflow.simulate.output import write_table
from hedflow.simulate.truth import Array

# Lowest and highest dose of each screen (uM).
DOSE_RANGE = {
    "CCLE": (0.0025, 8.0),
    "CTRPv2": (66 / 2**15, 66.0),
    "gCSI": (31 / 3**8, 31.0),
    "GDSCv1": (10 / 2**8, 10.0),
    "GDSCv2": (0.01, 10.0),
}
MISSING = 0.08  # share of a source's pairs that it has not measured
CCLE_DOSES = (".0025", ".0080", ".025", ".080", ".25", ".80", "2.53", "8")
CCLE_FILE = "response/CCLE/CCLE_NP24.2009_Drug_data_2015.02.24.csv"
GCSI_FILE = "response/gCSI/20170612_gCSI_GRfits.tsv"
CTRP_FOLDER = "response/CTRPv2"
CTRP_COMPOUNDS = "derived/CTRPv2/v20.meta.per_compound.txt"
CTRP_STEPS = 15  # sixteen two-fold doses
CTRP_REPEATED_LINES = 2  # lines with a second experiment
GDSC_FILE = {"GDSCv1": "response/GDSC/GDSC1_AUC.csv.gz", "GDSCv2": "response/GDSC/GDSC2_AUC.csv.gz"}
GDSC_REPEATED = (
    "Erlotinib",
    "Paclitaxel",
    "Selumetinib",
)  # drugs with two DRUG_IDs, that is two blocks of rows
NAVITOCLAX = (
    "CC1(C)CCC(c2ccc(Cl)cc2)=C(CN2CCN(c3ccc(C(=O)NS(=O)(=O)c4ccc(N[C@H](CCN5CCOCC5)CSc5ccccc5)"
    "c(S(=O)(=O)C(F)(F)F)c4)cc3)CC2)C1"
)


def screened_pairs(
    source: str, cells: pd.DataFrame, drugs: pd.DataFrame, truth: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """The true curves of what a source has screened, drugs slowest; see the module for the columns."""
    table = truth.merge(cells.assign(cell_name=cells[source]), on="model_id")
    names = pd.DataFrame({"drug": drugs["name"], "target": drugs["target"], "drug_name": drugs[source]})
    table = table.merge(names, on="drug")
    table = table.dropna(subset=["cell_name", "drug_name"])
    return table[rng.random(len(table)) >= MISSING].reset_index(drop=True)


def measured_auc(source: str, pairs: pd.DataFrame, noise: float, rng: np.random.Generator) -> Array:
    """Mean viability over the source's own doses, with a normal error of sd `noise`; not clipped."""
    low, high = (6 - np.log10(dose) for dose in reversed(DOSE_RANGE[source]))
    return mean_viability(low, high, pairs["einf"], pairs["ec50"], pairs["hs"]) + rng.normal(
        scale=noise, size=len(pairs)
    )


def write_ccle(out: Path, pairs: pd.DataFrame, noise: float, rng: np.random.Generator) -> list[str]:
    """Dose points, and ActArea computed from them as written: growth lost, summed over the doses (0..8)."""
    rows = []
    for k, pair in enumerate(pairs.to_dict("records")):
        # A few real curves lack the lowest dose.
        doses = CCLE_DOSES[1:] if k % 97 == 5 else CCLE_DOSES
        x = 6 - np.log10([float(dose) for dose in doses])
        # An error of sd s at each of n doses is one of s / sqrt(n) in their mean.
        error = rng.normal(scale=100 * noise * np.sqrt(len(doses)), size=len(doses))
        activity = [_short(v) for v in 100 * (hill(x, pair["einf"], pair["ec50"], pair["hs"]) - 1) + error]
        spread = [_short(v) for v in rng.gamma(4, 25 * noise * np.sqrt(len(doses)) + 0.01, size=len(doses))]
        points = np.array([float(v) for v in activity])
        rows.append(
            {
                "CCLE Cell Line Name": pair["cell_name"],
                "Primary Cell Line Name": pair["name"],
                "Compound": pair["drug_name"],
                "Target": pair["target"],
                "Doses (uM)": ",".join(doses),
                "Activity Data (median)": ",".join(activity),
                "Activity SD": ",".join(spread),
                "Num Data": len(doses),
                **_ccle_fit(pair, points),
                "ActArea": round(float(np.clip(-points / 100, 0, 1).sum()), 4),
            }
        )
    write_table(out / CCLE_FILE, pd.DataFrame(rows), newline="\r\n")
    return [CCLE_FILE]


def _ccle_fit(pair: dict[Hashable, Any], points: Array) -> dict[str, object]:
    """What CCLE's fit gives: no EC50 where the curve is not a sigmoid."""
    top = float(100 * (hill(6 - np.log10(8), pair["einf"], pair["ec50"], pair["hs"]) - 1))
    kind = "Constant" if top > -20 else "Linear" if pair["ec50"] < 5 else "Sigmoid"
    return {
        "FitType": kind,
        "EC50 (uM)": round(10 ** (6 - pair["ec50"]), 9) if kind == "Sigmoid" else None,
        "IC50 (uM)": round(float(ic50_um(pair["einf"], pair["ec50"], pair["hs"], 8)), 9),
        "Amax": round(float(points.mean()) if kind == "Constant" else top, 8),
    }


def ic50_um(einf: npt.ArrayLike, ec50: npt.ArrayLike, hs: npt.ArrayLike, highest: float) -> Array:
    """Dose of half viability (uM); the highest dose where it is not reached."""
    einf, ec50, hs = (np.asarray(value, dtype=float) for value in (einf, ec50, hs))
    reached = einf < 0.499
    ratio = (1 - einf) / np.where(reached, 0.5 - einf, 1) - 1
    dose = 10 ** (6 - ec50 + np.log10(np.maximum(ratio, 1e-9)) / hs)
    return np.asarray(np.where(reached, np.minimum(dose, highest), highest))


def _short(value: float) -> str:
    """Three digits without the leading nought, as CCLE writes: `.83`, `-12.4`."""
    text = f"{value:.3g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def write_gcsi(out: Path, pairs: pd.DataFrame, noise: float, rng: np.random.Generator) -> list[str]:
    """GR browser table. AUC may be a little above 1; the GR columns are of the same curve, growth ignored."""
    einf, ec50, hs = (pairs[name].to_numpy() for name in ("einf", "ec50", "hs"))
    auc = measured_auc("gCSI", pairs, noise, rng).clip(0.02, 1.05)
    ic50 = ic50_um(einf, ec50, hs, 31)
    emax = hill(6 - np.log10(31), einf, ec50, hs)
    r2 = 1 - rng.beta(1, 8, size=len(pairs))
    line = pairs["model_id"].str[-6:].astype(int)
    flags = np.where(line % 5 == 0, "NaN", np.where(line % 3 == 0, "del", "+"))
    table = pd.DataFrame(
        {
            "Cell_Line": pairs["cell_name"],
            "DoublingTime": (20.0 + line % 40).astype(float),
            # The real file has the text NA for a line without a tissue.
            "Tissue": np.where(line % 17 == 6, "NA", pairs["gcsi_tissue"]),
            "Small_Molecule": pairs["drug_name"],
            "GR50": ic50,
            "GEC50": 10 ** (6 - ec50),
            "GRmax": 2 * emax - 1,
            "GRinf": 2 * einf - 1,
            "GR_Hill_Coeff": hs,
            "GR_AOC": 1 - auc,
            "GR_r2": r2,
            "IC50": ic50,
            "Emax": emax,
            "AUC": auc,
            "IC_r2": r2,
            "CDC73_del": flags,
            "BCL2_del": flags,
            "PTEN_mut": np.where(line % 5 == 0, "NaN", np.where(line % 4 == 0, "mut", "WT")),
        }
    )
    table = table.sort_values(["Cell_Line", "Small_Molecule"])
    write_table(out / GCSI_FILE, table, sep="\t", float_format="%.5g")
    return [GCSI_FILE]


def write_gdsc(source: str, out: Path, pairs: pd.DataFrame, noise: float, rng: np.random.Generator) -> list[str]:
    """Three columns, one block of rows a DRUG_ID: a drug with two ids has each line twice."""
    columns = ["drug_name", "cell_name", "einf", "ec50", "hs"]
    again = pairs[pairs["drug"].isin(GDSC_REPEATED)]
    # Nothing is known of the blinded drug: its curves are a weakened copy of another's.
    first = pairs[pairs["drug"] == pairs["drug"].iloc[0]]
    blinded = first.assign(drug_name=BLINDED_DRUG, ec50=first["ec50"] - 0.5)
    table = pd.concat([part[columns] for part in (pairs, again, blinded)], ignore_index=True)
    auc = measured_auc(source, table, noise, rng).clip(0.005, 0.9995)
    released = pd.DataFrame(
        {"CELL_LINE_NAME": table["cell_name"], "DRUG_NAME": table["drug_name"], "AUC": auc.round(6)}
    )
    write_table(out / GDSC_FILE[source], released, newline="\r\n")
    return [GDSC_FILE[source]]


def write_ctrp(
    out: Path,
    pairs: pd.DataFrame,
    cells: pd.DataFrame,
    drugs: pd.DataFrame,
    noise: float,
    rng: np.random.Generator,
) -> list[str]:
    """The v20 tables: curves by experiment and compound number, and the keys of both."""
    lines = cells[cells["CTRPv2"].notna()].reset_index(drop=True)
    lines["master_ccl_id"] = 1 + 3 * np.arange(len(lines))
    compounds = _ctrp_compounds(drugs)
    experiments = _ctrp_experiments(lines)
    curves = _ctrp_curves(pairs, experiments, compounds, noise, rng)
    half = curves["experiment_id"] <= experiments["expt_id"].max() // 2
    tables = {
        "AUC_1.csv.gz": curves[half],
        "AUC_2.csv.gz": curves[~half],
        "Experiment_info.csv": experiments.drop(columns="model_id"),
        "cancer_cell_line_info.csv": pd.DataFrame(
            {
                "master_ccl_id": lines["master_ccl_id"],
                "ccl_name": lines["CTRPv2"],
                "cancer_type": lines["site"].where(lines.index % 19 != 7, "NA"),
            }
        ),
        "compound_info.csv": compounds[["master_cpd_id", "cpd_name", "gene_symbol_of_protein_target"]].fillna("NA"),
    }
    for name, table in tables.items():
        write_table(out / CTRP_FOLDER / name, table)
    write_table(out / CTRP_COMPOUNDS, compounds, sep="\t")
    return [f"{CTRP_FOLDER}/{name}" for name in tables]


def _ctrp_compounds(drugs: pd.DataFrame) -> pd.DataFrame:
    """`v20.meta.per_compound.txt`: the screened drugs and one mixture, with CTRP's structures."""
    screened = drugs[drugs["CTRPv2"].notna()]
    # CTRP's cytarabine is the hydrochloride by name: here also by structure, the other tables have the base.
    salts = np.where(screened["CTRPv2"].str.contains("hydrochloride"), ".Cl", "")
    doxorubicin = drugs.set_index("name")["smiles"]["Doxorubicin"]
    names = [*screened["CTRPv2"], MIXTURE]
    targets = [*screened["target"].where(screened["class"] != "antimetabolite"), "TOP2A;BCL2"]
    number = np.arange(len(names))
    return pd.DataFrame(
        {
            "master_cpd_id": 1788 + 1000 * number,
            "cpd_name": names,
            "broad_cpd_id": [f"BRD-K{10_000_000 + 7919 * k:08d}" for k in number],
            "top_test_conc_umol": DOSE_RANGE["CTRPv2"][1],
            "cpd_status": "FDA",
            "inclusion_rationale": ["pilot-set"] * len(screened) + ["combination"],
            "gene_symbol_of_protein_target": targets,
            "target_or_activity_of_compound": [None if t is None else f"inhibitor of {t}" for t in targets],
            "source_name": ["Selleck"] * len(screened) + [None],
            "source_catalog_id": [*(f"S{1000 + k}" for k in number[:-1]), None],
            "cpd_smiles": [*(screened["smiles"] + salts), f"{NAVITOCLAX}.{doxorubicin}"],
        }
    )


def _ctrp_experiments(lines: pd.DataFrame) -> pd.DataFrame:
    """One experiment a line, a second for a few lines, and one experiment listed twice (two dates)."""
    order = [*lines.index, *lines.index[:CTRP_REPEATED_LINES]]
    table = pd.DataFrame(
        {
            "expt_id": 1 + np.arange(len(order)),
            "master_ccl_id": lines["master_ccl_id"].to_numpy()[order],
            "experiment_date": 20120501 + np.arange(len(order)) % 28,
            "cells_per_well": 500,
            "model_id": lines["model_id"].to_numpy()[order],
        }
    )
    listed_again = table.iloc[[3]].assign(experiment_date=20120611)
    return pd.concat([table, listed_again]).sort_values(["expt_id", "experiment_date"], ignore_index=True)


def _ctrp_curves(
    pairs: pd.DataFrame,
    experiments: pd.DataFrame,
    compounds: pd.DataFrame,
    noise: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """`area_under_curve` over log2 dose, about 15 for an inactive compound."""
    # The mixture does a little more than its doxorubicin alone.
    mixture = pairs[pairs["drug"] == "Doxorubicin"]
    mixture = mixture.assign(drug_name=MIXTURE, ec50=mixture["ec50"] + 0.2)
    table = pd.concat([pairs, mixture], ignore_index=True)
    table = table.merge(experiments.drop_duplicates("expt_id")[["expt_id", "model_id"]], on="model_id")
    table["master_cpd_id"] = table["drug_name"].map(compounds.set_index("cpd_name")["master_cpd_id"])
    table = table.sort_values(["expt_id", "master_cpd_id"], ignore_index=True)
    # A line's second experiment has half of the compounds.
    second = table.duplicated(["model_id", "master_cpd_id"]) & (table["master_cpd_id"] % 2000 < 1000)
    table = table[~second].reset_index(drop=True)
    area = CTRP_STEPS * measured_auc("CTRPv2", table, noise, rng).clip(min=0.005)
    return pd.DataFrame(
        {
            "experiment_id": table["expt_id"],
            "area_under_curve": area.round(3),
            "master_cpd_id": table["master_cpd_id"],
        }
    )
