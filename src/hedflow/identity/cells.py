"""Cell lines: native names of each source to one id.

With annotation tables the id is a DepMap ModelID, found by the first of these routes that answers:
exact CCLE name, COSMIC id of the exact GDSC name, Cellosaurus accession of the source's own name, normalised name,
Cellosaurus accession of the source's own name when that is normalised too (gCSI's file drops the punctuation).
Exact routes come first because GDSC's `TT` and `T-T`, `KM-H2` and `KMH-2` are different lines that collapse when
punctuation is dropped. Without annotation tables the id is the normalised name, and collapsing names get none.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import rdata

from hedflow import UNKNOWN, HedflowError
from hedflow.sources import SOURCES
from hedflow.sources.tables import one_line, read_bytes, read_sheets, read_table

COMMON_NAME = "unique.cellid"
LOOSE = "Cellosaurus, name normalised"  # the source's name in the annotation, without punctuation: asked last
ACCESSION = "Cellosaurus.Accession.id"
MODEL_COLUMNS = (
    "ModelID", "CellLineName", "StrippedCellLineName", "CCLEName", "COSMICID", "RRID", "OncotreeLineage",
    "OncotreePrimaryDisease", "PublicComments",
)  # fmt: skip
EMPTY = ("", "nan", "None", "NA")
COLUMNS = ["source", "cell_name", "cell_id", "route", "conflict", "reason"]


def normalise(name: str) -> str:
    """Upper case, letters and digits only: `HCC-1143` -> `HCC1143`."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def read_depmap(path: Path) -> dict[str, pd.DataFrame]:
    """The data frames of DepMap's CCLE.RData: metadata (Model.csv), expression, mutation. R code is never run."""
    read_bytes(path)  # says what is wrong with a path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tibble classes, which are data frames here
            frames = dict(rdata.read_rda(path))
    except Exception as error:  # a damaged file raises almost anything
        raise HedflowError(
            f"{path}: expected an R data file, but {type(error).__name__}: {one_line(error)}; get it anew."
        ) from None
    for name, columns in (("metadata", MODEL_COLUMNS), ("expression", ("ModelID",))):
        if not isinstance(frames.get(name), pd.DataFrame):
            raise HedflowError(f"{path}: expected an R data frame '{name}'; found {one_line(', '.join(frames))}.")
        missing = [column for column in columns if column not in frames[name]]
        if missing:
            raise HedflowError(f"{path}: expected the columns {', '.join(missing)} in the R data frame '{name}'.")
    return frames


def map_cells(names: dict[str, pd.Index[str]], metadata: pd.DataFrame, details: Path, annotation: Path) -> pd.DataFrame:
    """Map native names to DepMap ModelIDs.

    Args:
        names: the distinct native cell names of each source.
        metadata: DepMap's Model table.
        details: GDSC's Cell_Lines_Details.xlsx.
        annotation: cell_annotation_all.csv (each source's name, Cellosaurus accession).

    Returns:
        source, cell_name, cell_id (missing where unmapped), route, conflict (other routes' differing answers),
        reason (why there is no id).
    """
    asked = CellTables(metadata, details, annotation)
    rows = [identify(source, name, asked) for source, index in names.items() for name in index]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"cell_id": "str"})


def identify(source: str, name: str, asked: CellTables) -> tuple[str | None, ...]:
    """One row of `map_cells`."""
    answers = asked.answers(source, name)
    single = [(answer.route, answer.cell_ids[0]) for answer in answers if len(answer.cell_ids) == 1]
    if single:
        route, chosen = single[0]
        others = sorted({f"{r}: {a}" for r, a in single if a != chosen})
        return source, name, chosen, route, "; ".join(others), ""
    return source, name, None, "none", "", asked.reason(source, name, answers)


@dataclass(frozen=True)
class Answer:
    """What one route says of a name; more than one id is no answer, but is listed."""

    route: str
    key: str  # what was looked up
    cell_ids: tuple[str, ...]


class CellTables:
    """The annotation tables, asked by name; arguments as `map_cells`."""

    def __init__(self, metadata: pd.DataFrame, details: Path, annotation: Path) -> None:
        model = metadata["ModelID"].astype(str)
        cosmic_model = _values(_whole(metadata["COSMICID"]), model)
        rrid_model = _values(metadata["RRID"].astype(str), model)
        self.cosmic = _gdsc_cosmic(details)
        columns = [*sorted({row.cell_names for row in SOURCES.values() if row.cell_names}), COMMON_NAME]
        table = read_table(annotation, [*columns, ACCESSION])
        self.accessions = {column: _values(table[column], table[ACCESSION]) for column in columns}
        self._loose = _values(table[COMMON_NAME].fillna("").map(normalise), table[ACCESSION])
        self.routes: dict[str, dict[str, tuple[str, ...]]] = {
            "CCLE name": _values(metadata["CCLEName"].astype(str), model),
            "COSMIC id": {n: cosmic_model[c] for n, c in self.cosmic.items() if c in cosmic_model},
            "normalised name": _values(metadata["StrippedCellLineName"].astype(str).map(normalise), model),
        }
        for column, found in self.accessions.items():
            self.routes[f"Cellosaurus {column}"] = _through(found, rrid_model)
            one = table[[column, ACCESSION]].fillna("")
            one = one.assign(name=one[column].str.split("///")).explode("name")  # `MB 157///MDA-MB-157`
            loose = _values(one["name"].map(normalise), one[ACCESSION])
            self.routes[f"{LOOSE} {column}"] = _through(loose, rrid_model)

    def answers(self, source: str, name: str) -> list[Answer]:
        """What every route says of a name, best first."""
        asked = [(label, table, key, self.routes[table].get(key, ())) for label, table, key in _ask(source, name)]
        return [Answer(label, _shown(table, key), ids) for label, table, key, ids in asked if ids]

    def accession(self, source: str, name: str) -> str:
        """The Cellosaurus accession of a name; empty if the annotation has none, or several."""
        key = bare(source, name)
        for table, asked in (
            (self.accessions.get(SOURCES[source].cell_names or "", {}), name),
            (self.accessions[COMMON_NAME], key),
            (self._loose, normalise(key)),
        ):
            if len(found := table.get(asked, ())) == 1:
                return found[0]
        return ""

    def reason(self, source: str, name: str, answers: list[Answer]) -> str:
        """Why a name has no id."""
        if answers:
            said = "; ".join(f"{a.route} ({a.key}) means {', '.join(a.cell_ids)}" for a in answers)
            return f"ambiguous: {said}"
        if accession := self.accession(source, name):
            return f"{accession} of Cellosaurus, which is no model of this DepMap release"
        return "in no annotation table"


def bare(source: str, name: str) -> str:
    """CCLE's names end with the tissue: `MCF7_BREAST` -> `MCF7`."""
    return name.split("_", 1)[0] if source == "CCLE" else name


def _ask(source: str, name: str) -> list[tuple[str, str, str]]:
    """(route, its table, the key to look up), best first."""
    asked = [("CCLE name", "CCLE name", name)] if source == "CCLE" else []
    if source.startswith("GDSC"):
        asked.append(("COSMIC id", "COSMIC id", name))
    if own := SOURCES[source].cell_names:
        asked.append(("Cellosaurus", f"Cellosaurus {own}", name))
    asked.append(("Cellosaurus", f"Cellosaurus {COMMON_NAME}", bare(source, name)))
    asked.append(("normalised name", "normalised name", normalise(bare(source, name))))
    if own:
        asked.append((LOOSE, f"{LOOSE} {own}", normalise(bare(source, name))))
    return asked


def _shown(table: str, key: str) -> str:
    """The key of an answer, with the column of the annotation that it was found in."""
    return f"{key} in {table.split(' ')[-1]}" if table.startswith("Cellosaurus") else key


def _through(accessions: dict[str, tuple[str, ...]], models: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """name -> ModelIDs, by Cellosaurus accession."""
    found = {name: [model for a in of for model in models.get(a, ())] for name, of in accessions.items()}
    return {name: tuple(dict.fromkeys(ids)) for name, ids in found.items() if ids}


def _gdsc_cosmic(details: Path) -> dict[str, str]:
    """GDSC's exact line name -> COSMIC id."""
    found: dict[str, str] = {}
    # The two sheets agree where both have a line; the first is the one of the screens' paper.
    sheets = {
        "COSMIC tissue classification": ["Line", "COSMIC_ID"],
        "Cell line details": ["Sample Name", "COSMIC identifier"],
    }
    for table, (name, cosmic) in zip(read_sheets(details, sheets), sheets.values(), strict=True):
        rows = table[[name, cosmic]].dropna()
        found |= dict(zip(rows[name].str.strip(), _whole(rows[cosmic]), strict=True))
    return found


def _whole(ids: pd.Series) -> pd.Series[str]:
    """COSMIC ids come as 906794.0 or '906794'."""
    return ids.astype("str").str.strip().str.removesuffix(".0")


def _values(keys: pd.Series[str], values: pd.Series[str]) -> dict[str, tuple[str, ...]]:
    """key -> its distinct values; empty keys and values are left out."""
    table = pd.DataFrame({"key": keys.to_numpy(), "value": values.to_numpy()}).dropna().drop_duplicates()
    table = table[~table["key"].isin(EMPTY) & ~table["value"].isin(EMPTY)]
    return {str(key): tuple(sorted(found)) for key, found in table.groupby("key")["value"]}


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
        table = table.assign(route="name", conflict="", reason="")
        table.loc[clash, ["cell_id", "route", "reason"]] = [None, "ambiguous name", "collapses with another name"]
        tables.append(table)
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
