"""The high error drugs of an earlier experiment, for a split that holds them out or a training that weighs them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hedflow import HedflowError
from hedflow.config import Config, Split

# The tables of the earlier experiment that are read.
TABLES = ("drugs.parquet", "comparison.parquet")


def read_drug_errors(tables: str | Path) -> pd.DataFrame:
    """drug_id, drug_name, mae and mae_z of the earlier experiment's reference method, from its folder of tables.

    Raises:
        HedflowError: the experiment has not been analysed.
    """
    tables = Path(tables)
    missing = [name for name in TABLES if not (tables / name).is_file()]
    if missing:
        raise HedflowError(
            f"{tables / missing[0]}: no such table; the experiment whose high error drugs are asked for must have run: "
            "run `snakemake`."
        )
    reference = pd.read_parquet(tables / "comparison.parquet")["reference"].iloc[0]
    drugs = pd.read_parquet(tables / "drugs.parquet")
    own = drugs[drugs["method"] == reference]
    columns = ["drug_id", "drug_name", "mae", "mae_z"]
    return pd.DataFrame(own[columns]).reset_index(drop=True)


def high_error_drugs(config: Config, experiment: str, errors: pd.DataFrame) -> list[str]:
    """Ids (sorted) of the earlier experiment's high error drugs, those above the z that `experiment` asks for.

    Raises:
        HedflowError: no drug's error lies that high.
    """
    wanted = config.experiments[experiment]
    where = "split" if wanted.weigh is None else "weigh"
    given = wanted.split.high_error_z if wanted.weigh is None else wanted.weigh.high_error_z
    z = config.analysis.high_error_z if given is None else given
    high = errors[errors["mae_z"] > z]
    if high.empty:
        raise HedflowError(
            f"experiment '{experiment}': no drug of '{wanted.earlier}' has an error above z = {z:g} (the highest is "
            f"{errors['mae_z'].max():.2f}); set a lower high_error_z in its {where}."
        )
    return sorted(high["drug_id"])


def with_high_error_drugs(config: Config, experiment: str, drugs: list[str]) -> Config:
    """The configuration with the experiment's held-out drugs (by id) and z written out in its split.

    What the split depends on is then this list and no table: another analysis of the earlier experiment that finds
    the same drugs trains nothing.
    """
    wanted = config.experiments[experiment]
    z = config.analysis.high_error_z if wanted.split.high_error_z is None else wanted.split.high_error_z
    named: Split = wanted.split.model_copy(update={"drugs": drugs, "high_error_z": z})
    changed = wanted.model_copy(update={"split": named})
    return config.model_copy(update={"experiments": {**config.experiments, experiment: changed}})
