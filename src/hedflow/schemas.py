"""Contracts of the tables that pass between steps (pandera): columns, types, ranges, keys."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa

from hedflow import HedflowError

# What is known of a curve besides its AUC; missing where the screen gives neither dose points nor the number itself.
CURVE = {
    "einf": pa.Column(float, nullable=True),  # viability at an endless dose, fraction of control
    "ec50": pa.Column(float, nullable=True),  # dose half-way to einf, -log10 M
    "hs": pa.Column(float, pa.Check.ge(0), nullable=True),  # slope
    "ec50_se": pa.Column(float, pa.Check.ge(0), nullable=True),  # standard error, decades
    "r2": pa.Column(float, pa.Check.le(1), nullable=True),  # of the curve's fit
    "rmse": pa.Column(float, pa.Check.ge(0), nullable=True),  # fraction of control
    "ic50": pa.Column(float, nullable=True),  # -log10 M; only if reached within the tested doses
    "auc_fixed": pa.Column(float, nullable=True),  # mean viability over 10^-10..10^-4 M, low = potent
    "auc_tested": pa.Column(float, nullable=True),  # over the tested doses; AAC = 1 - AUC
    "dss1": pa.Column(float, pa.Check.in_range(0, 1), nullable=True),  # high = potent
    "doses": pa.Column(float, pa.Check.ge(0), nullable=True),  # distinct ones
    "x_low": pa.Column(float, nullable=True),  # highest tested dose, -log10 M
    "x_high": pa.Column(float, nullable=True),  # lowest tested dose, -log10 M
}

# Dose points as a screen gives them, one row a point. Points of one `curve` are fitted together.
POINTS = pa.DataFrameSchema(
    {
        "cell_name": pa.Column(str),
        "drug_name": pa.Column(str),
        "curve": pa.Column("int64"),
        "series": pa.Column(str),  # which of a drug's dose series; the empty one where there is one only
        "dose": pa.Column(float, nullable=True),  # mol/l
        "viability": pa.Column(float, nullable=True),  # fraction of the untreated control, 1 = no effect
    },
    strict=True,
)
# The first block of the InChIKey, or the first two (`identity.stereo: keep`).
DRUG_ID = r"^[A-Z]{14}(-[A-Z]{10})?$"

# What a source's reader returns: native names, the provider's AUC brought to 0..1 (low = potent) by `auc_rule`.
READING = pa.DataFrameSchema(
    {
        "cell_name": pa.Column(str, nullable=True),
        "drug_name": pa.Column(str, nullable=True),
        "auc": pa.Column(float, nullable=True),
        "auc_rule": pa.Column(str),
        "combination": pa.Column(bool),
        "repeated": pa.Column(bool),  # the file has the very same row before, to the last digit
        **CURVE,
    },
    strict=True,
)

# One row a (source, cell, drug); replicates within the source averaged.
RESPONSE = pa.DataFrameSchema(
    {
        "source": pa.Column(str),
        "cell_id": pa.Column(str, pa.Check.str_length(min_value=1)),
        "drug_id": pa.Column(str, pa.Check.str_matches(DRUG_ID)),
        "auc": pa.Column(float, pa.Check.in_range(0, 1)),
        "auc_sd": pa.Column(float, pa.Check.ge(0), nullable=True),  # over replicates; NaN for a single one
        "replicates": pa.Column("int32", pa.Check.ge(1)),
        "clipped": pa.Column("int32", pa.Check.ge(0)),  # replicates whose AUC lay above 1 and was set to 1
        "auc_rule": pa.Column(str),
        **CURVE,  # means over the replicates that have them
    },
    unique=["source", "cell_id", "drug_id"],
    strict=True,
)

CELLS = pa.DataFrameSchema(
    {
        "cell_id": pa.Column(str, unique=True),
        "cell_name": pa.Column(str),
        "tissue": pa.Column(str),
        "disease": pa.Column(str),
    },
    strict=True,
)

DRUGS = pa.DataFrameSchema(
    {
        "drug_id": pa.Column(str, pa.Check.str_matches(DRUG_ID), unique=True),
        "drug_name": pa.Column(str),
        "smiles": pa.Column(str, pa.Check.str_length(min_value=1)),  # of the parent structure
        "names": pa.Column(str),  # every source's name for it, `source:name|...`
        "target": pa.Column(str),  # in the sources' own words, `source:word|...`; empty where none says
        "mechanism": pa.Column(str, pa.Check.str_length(min_value=1)),  # a pathway in GDSC's words, or `unknown`
        "mechanism_from": pa.Column(str),  # the rule that found it (identity.mechanisms); empty for none
    },
    strict=True,
)

LOSSES = pa.DataFrameSchema(
    {
        "source": pa.Column(str),
        "step": pa.Column(str),
        "reason": pa.Column(str),
        "rows_before": pa.Column("int64", pa.Check.ge(0)),
        "rows_lost": pa.Column("int64", pa.Check.ge(0)),
        "rows_after": pa.Column("int64", pa.Check.ge(0)),
    },
    checks=pa.Check(lambda t: t["rows_before"] - t["rows_lost"] == t["rows_after"], name="rows add up"),
    strict=True,
)

PREDICTIONS = pa.DataFrameSchema(
    {
        "row": pa.Column("int32", pa.Check.ge(0), unique=True),  # row of the bundle's response.parquet
        "auc_pred": pa.Column("float32", nullable=True),  # NaN: the run failed
    },
    strict=True,
)


def checked(table: pd.DataFrame, schema: pa.DataFrameSchema, what: str) -> pd.DataFrame:
    """`table` if it keeps the contract.

    Raises:
        HedflowError: names the column, the rule and an offending value.
    """
    try:
        return schema.validate(table)
    except pa.errors.SchemaErrors as errors:  # unexpected columns come in this class, the rest in the other
        raise HedflowError(f"{what}: {_broken(errors.schema_errors[0])}.") from None
    except pa.errors.SchemaError as error:
        raise HedflowError(f"{what}: {_broken(error)}.") from None


def _broken(error: pa.errors.SchemaError) -> str:
    """What a table breaks, by column, with an offending value."""
    cases = error.failure_cases
    listed = isinstance(cases, pd.DataFrame) and len(cases) > 0
    column = getattr(error.schema, "name", None)
    if error.reason_code == pa.errors.SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
        return f"expected a column '{cases['failure_case'].iloc[0] if listed else cases}', which is missing"
    if error.reason_code == pa.errors.SchemaErrorReason.COLUMN_NOT_IN_SCHEMA:
        extra = cases["failure_case"].iloc[0] if listed else cases
        return f"column '{extra}' is not one of {', '.join(error.schema.columns)}"
    if error.reason_code == pa.errors.SchemaErrorReason.DUPLICATES and column is None:
        return f"the columns {', '.join(error.schema.unique)} have the same values in more than one row"
    subject = f"column '{column}' breaks" if column else "the table breaks"
    example = f" (for example {cases['failure_case'].iloc[0]!r}, {len(cases)} in all)" if listed else ""
    return f"{subject} the rule {error.check}{example}"
