"""CTRPv2, version 20 (Seashore-Ludlow 2015, Rees 2016).

`area_under_curve` is viability integrated over log2 concentration: sixteen two-fold doses span fifteen steps, and
an inactive compound has about 15. AUC = area/15. The release has no dose points here, so the fifteen is the
design's, not each curve's.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedflow import HedflowError
from hedflow.sources.tables import one_line, read_table

STEPS = 15


def read(files: dict[str, Path]) -> pd.DataFrame:
    """`schemas.READING`; a row whose experiment or compound is in no key table keeps an empty name.

    Two experiments of one line with one compound are replicates; a row that has the experiment as well is repeated.
    """
    curves = pd.concat(
        [
            read_table(
                files[name], ["experiment_id", "area_under_curve", "master_cpd_id"], numbers=["area_under_curve"]
            )
            for name in ("AUC_1.csv", "AUC_2.csv")
        ],
        ignore_index=True,
    )
    # An experiment can be listed twice (other date or density), always with the same line.
    experiments = _ids(_key(read_table(files["Experiment_info.csv"], ["expt_id", "master_ccl_id"])))
    lines = _key(read_table(files["cancer_cell_line_info.csv"], ["master_ccl_id", "ccl_name"]))
    compounds = _key(read_table(files["compound_info.csv"], ["master_cpd_id", "cpd_name"]))
    # Text also where the table of compounds has no row.
    drug = _ids(curves["master_cpd_id"]).map(compounds).astype("str")
    return pd.DataFrame(
        {
            "cell_name": _ids(curves["experiment_id"]).map(experiments).map(lines),
            "drug_name": drug,
            "auc": curves["area_under_curve"] / STEPS,
            "auc_rule": f"area_under_curve/{STEPS}",
            # Mixtures are called `navitoclax:piperlongumine (1:1 mol/mol)`.
            "combination": drug.str.contains("mol/mol", regex=False).fillna(False).astype(bool),
            "repeated": curves.duplicated(),
        }
    )


def _ids(numbers: pd.Series[str]) -> pd.Series[str]:
    """Numbers as ids: a table that went through a spreadsheet or pandas has `130.0` for 130."""
    return numbers.str.strip().str.removesuffix(".0")


def _key(table: pd.DataFrame) -> pd.Series[str]:
    """First column -> second column; the same key with two values is an error. Rows without a key are no use."""
    key, value = table.columns
    table = table.assign(**{key: _ids(table[key])}).dropna(subset=key).drop_duplicates()
    twice = table[table[key].duplicated()]
    if len(twice):
        raise HedflowError(f"CTRPv2: {key} {one_line(twice[key].iloc[0])} has more than one {value}; expected one.")
    return table.set_index(key)[value]
