"""Cell lines: native names of each source to one id.

With annotation tables the id is a DepMap ModelID, found by the first of these routes that answers:
exact CCLE name, COSMIC id of the exact GDSC name, Cellosaurus accession of the source's own name, normalised name.
Exact routes come first because GDSC's `TT` and `T-T`, `KM-H2` and `KMH-2` are different lines that collapse when
punctuation is dropped. Without annotation tables the id is the normalised name, and collapsing names get none.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pandas as pd
import rdata

from hedflow import UNKNOWN, HedflowError
from hedflow.sources import SOURCES
from hedflow.sources.tables import read_table

COMMON_NAME = "unique.cellid"


def normalise(name: str) -> str:
    """Upper case, letters and digits only: `HCC-1143` -> `HCC1143`."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def read_depmap(path: Path) -> dict[str, pd.DataFrame]:
    """The data frames of DepMap's CCLE.RData: metadata (Model.csv), expression, mutation. R code is never run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tibble classes, which are data frames here
            frames = rdata.read_rda(path)
    except Exception as error:
        raise HedflowError(
            f"{path}: expected an R data file, but {type(error).__name__}: {error}; get it anew."
        ) from None
    for name in ("metadata", "expression"):
        if name not in frames:
            raise HedflowError(f"{path}: expected an R data frame '{name}'; found {', '.join(frames)}.")
    return dict(frames)


def map_cells(names: dict[str, pd.Index[str]], metadata: pd.DataFrame, details: Path, annotation: Path) -> pd.DataFrame:
    """Map native names to DepMap ModelIDs.

    Args:
        names: the distinct native cell names of each source.
        metadata: DepMap's Model table.
        details: GDSC's Cell_Lines_Details.xlsx.
        annotation: cell_annotation_all.csv (each source's name, Cellosaurus accession).

    Returns:
        source, cell_name, cell_id (missing where unmapped), route, conflict (other routes' differing answers).
    """
    routes = _routes(metadata, details, annotation)
    rows = []
    for source, index in names.items():
        for name in index:
            answers: dict[str, str] = {}
            for route, table, key in _ask(routes, source, name):
                if key in table:
                    answers.setdefault(route, table[key])
            chosen = next(iter(answers), None)
            others = sorted({f"{r}: {a}" for r, a in answers.items() if chosen and a != answers[chosen]})
            rows.append((source, name, answers.get(chosen or ""), chosen or "none", "; ".join(others)))
    return pd.DataFrame(rows, columns=["source", "cell_name", "cell_id", "route", "conflict"]).astype(
        {"cell_id": "str"}
    )


def _ask(routes: dict[str, dict[str, str]], source: str, name: str) -> list[tuple[str, dict[str, str], str]]:
    """(route, its table, the key to look up), best first."""
    asked = []
    if source == "CCLE":
        asked.append(("CCLE name", routes["CCLE name"], name))
        bare = name.split("_", 1)[0]
    else:
        bare = name
    if source.startswith("GDSC"):
        asked.append(("COSMIC id", routes["COSMIC id"], name))
    if own := SOURCES[source].cell_names:
        asked.append(("Cellosaurus", routes[f"Cellosaurus {own}"], name))
    asked.append(("Cellosaurus", routes[f"Cellosaurus {COMMON_NAME}"], bare))
    asked.append(("normalised name", routes["normalised name"], normalise(bare)))
    return asked


def _routes(metadata: pd.DataFrame, details: Path, annotation: Path) -> dict[str, dict[str, str]]:
    model = metadata["ModelID"].astype(str)
    cosmic_model = _unique(_whole(metadata["COSMICID"]), model)
    name_cosmic: dict[str, str] = {}
    # The two sheets agree where both have a line; the first is the one of the screens' paper.
    for sheet, columns in (
        ("COSMIC tissue classification", ["Line", "COSMIC_ID"]),
        ("Cell line details", ["Sample Name", "COSMIC identifier"]),
    ):
        table = _sheet(details, sheet, columns)
        name_cosmic |= dict(zip(table[columns[0]].str.strip(), _whole(table[columns[1]]), strict=True))
    routes = {
        "CCLE name": _unique(metadata["CCLEName"].astype(str), model),
        "COSMIC id": {n: cosmic_model[c] for n, c in name_cosmic.items() if c in cosmic_model},
        "normalised name": _unique(metadata["StrippedCellLineName"].astype(str).map(normalise), model),
    }
    rrid_model = _unique(metadata["RRID"].astype(str), model)
    columns = [*sorted({row.cell_names for row in SOURCES.values() if row.cell_names}), COMMON_NAME]
    table = read_table(annotation, [*columns, "Cellosaurus.Accession.id"])
    for column in columns:
        known = table[table[column].notna() & table["Cellosaurus.Accession.id"].isin(list(rrid_model))]
        accession = _unique(known[column], known["Cellosaurus.Accession.id"])
        routes[f"Cellosaurus {column}"] = {name: rrid_model[a] for name, a in accession.items()}
    return routes


def _sheet(path: Path, sheet: str, columns: list[str]) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unknown extension in the provider's file
            table = pd.read_excel(path, sheet_name=sheet, dtype=str)
    except Exception as error:
        raise HedflowError(f"{path}: expected an Excel sheet '{sheet}', but {error}.") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise HedflowError(f"{path}: expected the columns {', '.join(missing)} in the sheet '{sheet}'.")
    return table[columns].dropna()


def _whole(ids: pd.Series) -> pd.Series[str]:
    """COSMIC ids come as 906794.0 or '906794'."""
    return ids.astype("str").str.strip().str.removesuffix(".0")


def _unique(keys: pd.Series[str], values: pd.Series[str]) -> dict[str, str]:
    """key -> value for keys that have exactly one value; empty keys and ambiguous ones are left out."""
    table = pd.DataFrame({"key": keys.to_numpy(), "value": values.to_numpy()}).dropna().drop_duplicates()
    table = table[~table["key"].isin(["", "nan", "None", "NA"])]
    table = table[~table["key"].duplicated(keep=False)]
    return dict(zip(table["key"], table["value"], strict=True))


def name_cells(names: dict[str, pd.Index[str]]) -> pd.DataFrame:
    """Map native names to normalised names: the wheel-only edition, whose expression table is keyed so.

    Two native names of one source that collapse into one get no id (`route` says so): which of the two the
    expression table means cannot be known.

    Args:
        names: the distinct native cell names of each source.
    """
    tables = []
    for source, index in names.items():
        bare = pd.Series(index, dtype="str")
        table = pd.DataFrame({"source": source, "cell_name": bare, "cell_id": bare.map(normalise)})
        clash = table["cell_id"].duplicated(keep=False) | (table["cell_id"] == "")
        table["route"] = "name"
        table.loc[clash, ["cell_id", "route"]] = [None, "ambiguous name"]
        tables.append(table.assign(conflict=""))
    return pd.concat(tables, ignore_index=True)


def describe_cells(ids: pd.Index[str], metadata: pd.DataFrame | None) -> pd.DataFrame:
    """`schemas.CELLS` for the given ids: name, tissue (OncoTree lineage) and disease, `unknown` without DepMap."""
    if metadata is None:
        return pd.DataFrame({"cell_id": ids, "cell_name": ids, "tissue": UNKNOWN, "disease": UNKNOWN})
    table = metadata.drop_duplicates("ModelID").set_index("ModelID").reindex(ids)

    def text(column: str) -> pd.Series[str]:
        values = table[column].astype("str")
        return values.where(values.notna() & ~values.isin(["", "nan", "None"]), UNKNOWN)

    return pd.DataFrame(
        {
            "cell_id": ids,
            "cell_name": text("StrippedCellLineName").to_numpy(),
            "tissue": text("OncotreeLineage").to_numpy(),
            "disease": text("OncotreePrimaryDisease").to_numpy(),
        }
    )
