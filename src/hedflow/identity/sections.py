"""The identity report as tables: who is who, by which route, and everything that a person should look at."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hedflow.identity.cells import CellTables, bare, read_depmap
from hedflow.identity.cells import normalise as normalise_cell
from hedflow.identity.drugs import OWN_TABLE, ROUTES, DrugTables, disagreeing
from hedflow.identity.parents import BLOCKS, Stereo, is_complex, parts, standardise
from hedflow.identity.remarks import read_remarks
from hedflow.identity.structures import read_structures
from hedflow.identity.synonyms import normalise, read_synonyms
from hedflow.improve import CELL, SMILES_FILE
from hedflow.improve.read import read_smiles


@dataclass(frozen=True)
class Section:
    """A part of the report: what it is about, and its rows."""

    title: str
    text: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Annotation:
    """What identity is found in; `cells` is None in the wheel-only edition and of a csa folder: no annotation."""

    drugs: DrugTables
    cells: CellTables | None
    remarks: pd.DataFrame | None
    line: dict[str, str]  # ModelID -> DepMap's name of the line


def read_annotation(paths: list[Path], stereo: Stereo = "ignore") -> Annotation:
    """Read the identity files of a configuration."""
    by_name = {path.name: path for path in paths}
    tables = read_structures(paths)
    if SMILES_FILE in by_name:
        tables.append((SMILES_FILE, dict(read_smiles(by_name[SMILES_FILE]))))
    drugs = DrugTables(tables, read_synonyms(paths), stereo)
    if "CCLE.RData" not in by_name:
        return Annotation(drugs, None, None, {})
    metadata = read_depmap(by_name["CCLE.RData"])["metadata"]
    cells = CellTables(metadata, by_name["Cell_Lines_Details.xlsx"], by_name["cell_annotation_all.csv"])
    line = dict(zip(metadata["ModelID"].astype(str), metadata["CellLineName"].astype(str), strict=True))
    return Annotation(drugs, cells, read_remarks(metadata, paths), line)


# ---- cell lines


def cell_sections(cells: pd.DataFrame, known: Annotation) -> list[Section]:
    """Sections on cell lines, from `cells` (cell_identity.parquet)."""
    counts = cells.pivot_table(index="source", columns="route", values="cell_name", aggfunc="count", fill_value=0)
    text = "Native names of each source by the route that answered; those under none have no id: their rows are lost."
    if (cells["route"] == CELL).all():
        text = "A folder in the layout of IMPROVE's csa data carries its own ids, which are taken as they are."
    elif known.cells is None:
        text = (
            "The wheel-only edition has no annotation of cell lines: an id is the name in capitals without "
            "punctuation, and names of one source that then collapse get none. Set data.mirror for DepMap ids."
        )
    made = [Section("Cell lines by source and route", text, counts.reset_index().rename_axis(columns=None))]
    if known.cells is not None:
        made += [
            _conflicts(cells, known),
            _one_name_several_lines(cells, known.line),
            _ambiguous(cells, known.cells),
        ]
    made += [_merged_lines(cells), _unmapped(cells)]
    if known.remarks is not None:
        made.append(_doubtful(cells, known.remarks))
    return made


def _conflicts(cells: pd.DataFrame, known: Annotation) -> Section:
    rows = []
    for row in cells[cells["conflict"] != ""].itertuples():
        chosen = f"{row.cell_id} ({known.line.get(str(row.cell_id), '?')})"
        for other in str(row.conflict).split("; "):
            route, answer = other.split(": ")
            rows.append(
                (row.source, row.cell_name, row.rows, row.route, chosen, route, f"{answer} ({known.line[answer]})")
            )
    columns = ["source", "name", "rows", "route taken", "its answer", "other route", "its answer instead"]
    text = (
        "Two routes give different lines. The better route is taken, always in this order: exact CCLE name, COSMIC "
        "id of the exact GDSC name, Cellosaurus accession of the source's own name, normalised name, Cellosaurus "
        "accession of the normalised name. The first three tell names apart that only punctuation does; the others "
        "cannot."
    )
    return Section("Conflicts between routes", text, pd.DataFrame(rows, columns=columns))


def _one_name_several_lines(cells: pd.DataFrame, line: dict[str, str]) -> Section:
    found = cells.dropna(subset="cell_id").copy()
    found["normalised"] = [normalise_cell(bare(s, n)) for s, n in zip(found["source"], found["cell_name"], strict=True)]
    several = found.groupby("normalised")["cell_id"].transform("nunique") > 1
    table = found[several].sort_values(["normalised", "cell_id", "source"])
    table["line"] = table["cell_id"].map(line)
    text = (
        "Names that are equal in capitals without punctuation, and are different lines here: GDSC's TT (thyroid) and "
        "T-T (oesophagus), KM-H2 and KMH-2. Matching by normalised names would merge them."
    )
    columns = ["normalised", "source", "cell_name", "cell_id", "line", "route", "rows"]
    return Section("One name, several lines", text, table[columns])


def _ambiguous(cells: pd.DataFrame, asked: CellTables) -> Section:
    rows = []
    for row in cells.itertuples():
        for answer in asked.answers(str(row.source), str(row.cell_name)):
            if len(answer.cell_ids) > 1:
                ids = ", ".join(answer.cell_ids)
                rows.append((row.source, row.cell_name, answer.route, answer.key, ids, row.cell_id, row.route))
    columns = ["source", "name", "ambiguous route", "looked up", "could be", "taken", "by route"]
    text = "A route whose key means more than one DepMap model gives no answer; the next route is asked."
    return Section("Ambiguous names", text, pd.DataFrame(rows, columns=columns))


def _merged_lines(cells: pd.DataFrame) -> Section:
    found = cells.dropna(subset="cell_id")
    several = found.duplicated(["source", "cell_id"], keep=False)
    table = found[several].sort_values(["source", "cell_id", "cell_name"])[["source", "cell_id", "cell_name", "rows"]]
    text = "Names of one source that are one line: their measurements of a drug are averaged."
    return Section("Lines of one source that merge", text, table)


def _unmapped(cells: pd.DataFrame) -> Section:
    table = cells[cells["cell_id"].isna()][["source", "cell_name", "rows", "reason"]]
    text = f"{len(table)} names without an id; {int(table['rows'].sum()):,} rows of the sources' files."
    return Section("Cell lines without an id", text, table)


def _doubtful(cells: pd.DataFrame, remarks: pd.DataFrame) -> Section:
    sources = cells.dropna(subset="cell_id").groupby("cell_id")["source"].agg(lambda s: ", ".join(dict.fromkeys(s)))
    table = remarks[remarks["cell_id"].isin(sources.index)].copy()
    table["in"] = table["cell_id"].map(sources)
    text = (
        "Lines in use that a provider says are another line's derivative, contaminated, or genetically identical with "
        "another. They are kept under their own ids: a split by cell line may have one in training and its twin in "
        "the test."
    )
    return Section("Lines of doubtful identity", text, table[["cell_id", "line", "in", "origin", "remark"]])


# ---- drugs


def drug_sections(drugs: pd.DataFrame, known: Annotation) -> list[Section]:
    """Sections on drugs, from `drugs` (drug_identity.parquet)."""
    asked = known.drugs
    by = drugs.assign(answer=drugs["route"].where(drugs["status"] == "structure", drugs["status"]))
    counts = by.pivot_table(index="source", columns="answer", values="drug_name", aggfunc="count", fill_value=0)
    policy = "ignored: the id is the first block of the InChIKey"
    if asked.stereo == "keep":
        policy = "kept: the id is the first two blocks of the InChIKey"
    text = (
        f"Native names of each source by the route that answered. {drugs['drug_id'].nunique()} drugs. "
        f"Stereochemistry is {policy}."
    )
    return [
        Section("Drugs by source and route", text, counts.reset_index().rename_axis(columns=None)),
        _by_table(drugs),
        _without_structure(drugs, asked),
        _combinations(drugs, asked),
        _disagreements(drugs, asked),
        _loose_routes(drugs),
        _parents(drugs, asked),
        _twins(drugs, asked),
        _synonyms_apart(drugs, asked),
        _not_read(drugs, asked),
    ]


def _by_table(drugs: pd.DataFrame) -> Section:
    found = drugs[drugs["status"] == "structure"]
    counts = found.pivot_table(index="table", columns="source", values="drug_name", aggfunc="count", fill_value=0)
    return Section("Which table gave the structure", "Names by table.", counts.reset_index().rename_axis(columns=None))


def _without_structure(drugs: pd.DataFrame, asked: DrugTables) -> Section:
    table = drugs[drugs["status"] == "no structure"].sort_values(["reason", "source", "drug_name"])
    counts = table.groupby("reason", sort=False)["rows"].agg(["size", "sum"])
    said = "; ".join(f"{reason} {n} ({rows:,} rows)" for reason, n, rows in counts.itertuples())
    table = table.assign(
        synonyms=[", ".join(asked.synonyms.of(name)) for name in table["drug_name"]],
        target=[asked.synonyms.targets.get(normalise(name), "") for name in table["drug_name"]],
    )
    columns = ["source", "drug_name", "rows", "reason", "synonyms", "target"]
    return Section("Drugs without a structure", f"By reason: {said or 'none'}.", table[columns])


def _combinations(drugs: pd.DataFrame, asked: DrugTables) -> Section:
    rows = []
    for row in drugs[drugs["status"] == "combination"].itertuples():
        members = str(row.reason).split(" + ")
        rows.append(
            (row.source, row.drug_name, row.rows, row.reason, ", ".join(asked.drug_id(m) or "?" for m in members))
        )
    columns = ["source", "name", "rows", "drugs", "their ids"]
    text = "Two drugs in one well: kept apart, and in no model."
    return Section("Combinations", text, pd.DataFrame(rows, columns=columns))


def _disagreements(drugs: pd.DataFrame, asked: DrugTables) -> Section:
    rows = []
    for row in drugs[drugs["conflict"] != ""].itertuples():
        found = asked.answers(str(row.source), str(row.drug_name))
        chosen = found[0]
        others = disagreeing(chosen, found)
        says: dict[str, list[str]] = defaultdict(list)
        for answer in others:
            says[answer.inchikey[: BLOCKS["ignore"]]].append(answer.table)
        agree = [a.table for a in found[1:] if a.route in ROUTES[:2] and a not in others]
        instead = "; ".join(f"{key} ({', '.join(tables)})" for key, tables in says.items())
        own = chosen.table in OWN_TABLE.get(str(row.source), ())
        why = "the source's own table comes first" if own else "the first table in the order"
        taken = f"{chosen.drug_id} ({chosen.table})"
        rows.append((row.source, row.drug_name, row.rows, taken, ", ".join(agree), instead, why))
    columns = ["source", "name", "rows", "taken", "tables that agree", "other structures", "why"]
    text = (
        "Tables that give a name another connectivity. A source's own table comes first, then the tables in their "
        "order, whatever the majority says: a vote would change with every table that is added."
    )
    return Section("Structure tables that disagree", text, pd.DataFrame(rows, columns=columns))


def _loose_routes(drugs: pd.DataFrame) -> Section:
    table = drugs[drugs["route"].isin(ROUTES[2:])][
        ["source", "drug_name", "route", "matched", "table", "drug_id", "rows"]
    ]
    text = (
        "Names found by another name only: a name within the name (`A, B`, `A (B)`, a dose or a salt left out), or a "
        "synonym in GDSC's lists. Both come after the name itself, exact and normalised, in every table."
    )
    return Section("Found by a name within the name or a synonym", text, table)


def _parents(drugs: pd.DataFrame, asked: DrugTables) -> Section:
    rows = []
    for row in drugs[drugs["status"] == "structure"].drop_duplicates("drug_name").itertuples():
        given = asked.tables[str(row.table)][str(row.matched)]
        if "." not in given:
            continue
        left = "; ".join(parts(given)[1:])
        what = f"also left out: {left}" if left else "salt or solvent left out"
        if is_complex(given):
            what = "coordination compound, kept whole"
        rows.append((row.drug_name, row.drug_id, what, given, row.smiles))
    columns = ["name", "drug_id", "what was done", "as given", "parent"]
    text = (
        "Structures of several parts. Counter-ions and solvents are left out while anything else remains; then the "
        "part with the most heavy atoms is the drug. Complexes of a metal are kept whole."
    )
    return Section("Salts, solvents and complexes", text, pd.DataFrame(rows, columns=columns))


def _twins(drugs: pd.DataFrame, asked: DrugTables) -> Section:
    rows = []
    found = drugs.dropna(subset="drug_id").copy()
    found["first"] = found["inchikey"].str[: BLOCKS["ignore"]]
    for first, group in found.groupby("first", sort=True):
        names = sorted(set(group["drug_name"]), key=str.lower)
        families = _families(names, asked)
        if len(families) < 2:
            continue
        keys = sorted(set(group["inchikey"]))
        same = "one structure" if len(keys) == 1 else f"{len(keys)} stereoisomers or isotopes"
        sources = ", ".join(dict.fromkeys(group["source"]))
        rows.append((first, " | ".join(", ".join(f) for f in families), same, "; ".join(keys), sources))
    columns = ["connectivity", "names that no table calls synonyms", "structures", "InChIKeys", "sources"]
    text = (
        "One connectivity under names that are neither equal after normalisation nor synonyms in GDSC's lists. Most "
        "are a code and the later name of one drug; some are stereoisomers, which are one drug under `identity.stereo: "
        "ignore` and two under `keep`."
    )
    return Section("Twins: one structure, several names", text, pd.DataFrame(rows, columns=columns))


def _families(names: list[str], asked: DrugTables) -> list[list[str]]:
    """Names joined by equal normalisation or by synonyms."""
    families: list[list[str]] = []
    for name in names:
        joined = [f for f in families if any(asked.synonyms.related(name, other) for other in f)]
        families = [f for f in families if f not in joined] + [[n for f in joined for n in f] + [name]]
    return families


def _synonyms_apart(drugs: pd.DataFrame, asked: DrugTables) -> Section:
    rows = []
    for name, group in drugs[drugs["status"] == "structure"].groupby("drug_name", sort=True):
        for other in asked.synonyms.of(str(name)):
            ids = {a.drug_id: a.table for a in asked.answers("", other) if a.route in ROUTES[:2]}
            if ids and not set(ids) & set(group["drug_id"]):
                said = "; ".join(f"{drug_id} ({table})" for drug_id, table in ids.items())
                rows.append((name, ", ".join(group["drug_id"].unique()), other, said))
    columns = ["name", "drug_id", "synonym", "structures of the synonym"]
    text = "GDSC calls two names synonyms, but no table gives them one connectivity. The name's own structure is used."
    return Section("Synonyms with another structure", text, pd.DataFrame(rows, columns=columns))


def _not_read(drugs: pd.DataFrame, asked: DrugTables) -> Section:
    rows = []
    wanted = {normalise(name): str(name) for name in drugs["drug_name"]}
    for label, table in asked.tables.items():
        for name, smiles in table.items():
            if normalise(name) in wanted and standardise(smiles) is None:
                rows.append((label, name, smiles))
    text = (
        "Structures of our drugs' names that are not used: RDKit cannot read them, or they are no drug's, such as an "
        "element whose symbol the name begins with. The next table is asked."
    )
    return Section("Structures that were refused", text, pd.DataFrame(rows, columns=["table", "name", "SMILES"]))
