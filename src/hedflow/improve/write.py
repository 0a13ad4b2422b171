"""Writes a bundle and an experiment's splits as a csa folder, so that IMPROVE's models run on them.

Row i of response.tsv is row i of the bundle: what a model predicts joins back by that number. The same bundle and
splits give the same bytes. The folder is made beside its place and renamed into it when it is whole.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.audit import audit_plan
from hedflow.bundle import Bundle
from hedflow.config import FOLDED, IMPROVE_SPLITS, Features
from hedflow.features import compute_drugs
from hedflow.improve import (
    CELL,
    DRUG,
    EVERY,
    EXPRESSION_FILE,
    PARAMETERS,
    RESPONSE_COLUMNS,
    SMILES,
    SMILES_FILE,
    SOURCE,
    STAGES,
    VALUES,
)
from hedflow.improve.readme import DESCRIPTORS_FILE, MARK, MORDRED_FILE, Content, readme
from hedflow.plan import parts_of
from hedflow.sources.tables import read_table
from hedflow.splits import Rows, make_rows

FINGERPRINT_BITS, FINGERPRINT_RADIUS = 512, 2
# Nine digits give back every float32 exactly.
FLOAT = "%.9g"
# What pandas, and with it improvelib, takes for a missing value where an id should be.
NOT_IDS = frozenset(
    (
        *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)


@dataclass(frozen=True)
class Extras:
    """What the bundle has not.

    genes: a table of gene ids. mordred: whether Mordred's descriptors are to be computed. response: the integrated
    response (`schemas.RESPONSE`) that the bundle was made from, with the parameters of the curves; without it they
    stay empty. errors: of a high_error split the drug errors of the earlier experiment, for the audit.
    """

    genes: Path | None = None
    mordred: bool = False
    response: Path | None = None
    errors: pd.DataFrame | None = None


def export_experiment(bundle: Bundle, plan: pd.DataFrame, out: Path, extras: Extras | None = None) -> str:
    """Write `out`/raw_data with the bundle and the splits of `plan`; returns what was written, in a few lines.

    Raises:
        HedflowError: `out` holds something that is no earlier export; the splits leak; an id that improvelib would
            read as missing; Mordred is asked for and not installed.
    """
    extras = extras or Extras()
    _check_place(out)
    _check_ids(bundle)
    audit_plan(plan, bundle, extras.errors)
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        made.chmod(0o755)
        content = _write_all(made / "raw_data", bundle, plan, extras)
        text = readme(bundle, content)
        (made / "README.txt").write_text(text, encoding="utf-8")
        _put(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return f"{out}: {content.summary}"


def _check_place(out: Path) -> None:
    """Only an earlier export is overwritten: the folder is removed as a whole."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    note = out / "README.txt"
    if not (note.is_file() and note.read_text(encoding="utf-8", errors="replace").startswith(MARK)):
        raise HedflowError(f"{out}: is there and is no earlier export; name a new folder, or remove it.")


def _check_ids(bundle: Bundle) -> None:
    for cell in bundle.cells["cell_id"]:
        if cell in NOT_IDS or any(mark in cell for mark in '\t\r\n"'):
            raise HedflowError(
                f"export: improvelib would not read the cell id {cell!r} as it is; rename the cell line."
            )


def _put(made: Path, out: Path) -> None:
    if out.exists():
        old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
        out.replace(old)
        os.replace(made, out)
        shutil.rmtree(old)
    else:
        os.replace(made, out)


def _write_all(raw: Path, bundle: Bundle, plan: pd.DataFrame, extras: Extras) -> Content:
    for name in ("y_data", "x_data", "splits"):
        (raw / name).mkdir(parents=True)
    curves = _curves(bundle, extras.response) if extras.response else None
    response = _response(bundle, curves)
    _write(raw / "y_data" / "response.tsv", response, end="\r\n")
    genes = _write_expression(raw / "x_data" / EXPRESSION_FILE, bundle, extras.genes)
    lost = _write_drugs(raw / "x_data", bundle, extras.mordred)
    splits = _write_splits(raw / "splits", bundle, plan)
    return Content(
        known={name: int(response[name].notna().sum()) for name in VALUES},
        rules={} if curves is None else _rules(curves),
        genes=genes,
        lost=lost,
        splits=splits,
        kinds=list(plan["split_kind"].unique()),
    )


def _write(path: Path, table: pd.DataFrame, end: str = "\n") -> None:
    table.to_csv(path, sep="\t", index=False, float_format=FLOAT, lineterminator=end, encoding="utf-8")


def _curves(bundle: Bundle, path: Path) -> pd.DataFrame:
    """The integrated response in the order of the bundle's rows.

    Raises:
        HedflowError: it is not what the bundle was made from.
    """
    table = pd.read_parquet(path).set_index(["source", "cell_id", "drug_id"])
    response = bundle.response
    cell = bundle.cells["cell_id"].to_numpy()[response["cell"]]
    drug = bundle.drugs["drug_id"].to_numpy()[response["drug"]]
    own = pd.MultiIndex.from_arrays([response["source"].astype(str), cell, drug], names=table.index.names)
    found = table.reindex(own)
    if not np.array_equal(found["auc"].to_numpy(np.float32), response["auc"].to_numpy(np.float32)):
        raise HedflowError(f"{path}: it is not what the bundle {bundle.digest} was made from; run `snakemake bundle`.")
    return found.reset_index()


def _rules(curves: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Rows by source and by what its AUC is."""
    return dict(sorted(Counter(zip(curves["source"], curves["auc_rule"], strict=True)).items()))


def _response(bundle: Bundle, curves: pd.DataFrame | None) -> pd.DataFrame:
    """IMPROVE's columns in its order; the parameters of the curves where they are known."""
    response = bundle.response
    table = pd.DataFrame(index=response.index, columns=list(RESPONSE_COLUMNS), dtype=object)
    table[SOURCE] = table["study"] = response["source"].astype(str).to_numpy()
    table[CELL] = bundle.cells["cell_id"].to_numpy()[response["cell"]]
    table[DRUG] = bundle.drugs["drug_id"].to_numpy()[response["drug"]]
    table["auc"] = response["auc"].to_numpy(np.float32)
    if curves is not None:
        for theirs, ours in PARAMETERS.items():
            table[theirs] = curves[ours].to_numpy()
        table["aac1"] = 1 - curves["auc_tested"].to_numpy()
    return table


def _write_expression(path: Path, bundle: Bundle, ids: Path | None) -> dict[str, int]:
    """Three header rows, then a row a cell line; genes with a missing value are left out. -> counts for the README.

    A line of which the bundle has no expression (`features.missing_cells: impute`) has no row.
    Where a gene has no Ensembl or Entrez id at hand its symbol stands there: a symbol is neither, so nothing joins
    wrongly, and every column stays distinct in each of the three rows.
    """
    values = np.asarray(bundle.array("expression"))
    has = np.isfinite(values).any(axis=1)
    values, cells = values[has], bundle.cells["cell_id"][has]
    whole = np.isfinite(values).all(axis=0)
    symbols = np.asarray(bundle.view("expression")["columns"], dtype=str)[whole]
    table = _gene_ids(ids).reindex(symbols) if ids else pd.DataFrame(index=symbols, columns=["Ensembl", "Entrez"])
    rows = [table[name].where(table[name].notna(), symbols).astype(str) for name in ("Ensembl", "Entrez")]
    header = [("Ensembl", *rows[0]), ("Entrez", *rows[1]), ("Gene_Symbol", *symbols)]
    with path.open("w", encoding="utf-8", newline="") as f:
        f.writelines("\t".join(fields) + "\n" for fields in header)
        for cell, row in zip(cells, values[:, whole], strict=True):
            f.write("\t".join([cell, *(FLOAT % value for value in row)]) + "\n")
    known = int(table.notna().any(axis=1).sum())
    counts = {"written": whole.sum(), "left out": (~whole).sum(), "with id": known, "cells without": (~has).sum()}
    return {name: int(count) for name, count in counts.items()}


def _gene_ids(path: Path) -> pd.DataFrame:
    """symbol -> Ensembl, Entrez (missing where the table has none); a symbol with two answers has none."""
    header = pd.read_csv(path, sep="\t", nrows=0).columns.str.strip()
    symbol = next((name for name in ("Gene_Symbol", "Symbol") if name in header), "Gene_Symbol")
    entrez = next((name for name in ("Entrez", "Entrez ID") if name in header), None)
    ensembl = next((name for name in ("Ensembl", "Ensembl ID") if name in header), None)
    if symbol not in header or not (entrez or ensembl):
        raise HedflowError(f"{path}: expected tab-separated columns Gene_Symbol (or Symbol) and Entrez or Ensembl.")
    table = read_table(path, [name for name in (symbol, ensembl, entrez) if name], sep="\t").dropna(subset=symbol)
    table = table.drop_duplicates().drop_duplicates(symbol, keep=False).set_index(symbol)
    return pd.DataFrame({"Ensembl": table[ensembl] if ensembl else None, "Entrez": table[entrez] if entrez else None})


def _write_drugs(folder: Path, bundle: Bundle, mordred: bool) -> dict[str, list[str]]:
    """Structures, names, fingerprints and descriptors; -> the descriptors left out for a missing value, by file."""
    drugs = bundle.drugs
    ids = drugs["drug_id"].rename(DRUG)
    _write(folder / SMILES_FILE, pd.DataFrame({DRUG: ids, SMILES: drugs["smiles"]}))
    _write(
        folder / "drug_info.tsv", pd.DataFrame({DRUG: ids, "drug_name": drugs["drug_name"], "names": drugs["names"]})
    )
    ecfp4 = Features(fingerprint_radius=FINGERPRINT_RADIUS, fingerprint_bits=FINGERPRINT_BITS)
    bits = compute_drugs("fingerprints", drugs["smiles"], ecfp4)
    bits.columns = pd.Index([f"ecfp4.{bit}" for bit in range(FINGERPRINT_BITS)])
    _write(folder / "drug_ecfp4_nbits512.tsv", pd.concat([ids, bits], axis=1))
    tables = {}
    if "descriptors" in bundle.manifest["views"]:
        tables[DESCRIPTORS_FILE] = _view(bundle, "descriptors").add_prefix("rdkit.")
    if "mordred" in bundle.manifest["views"]:
        tables[MORDRED_FILE] = _view(bundle, "mordred").add_prefix("mordred.")
    elif mordred:
        tables[MORDRED_FILE] = compute_drugs("mordred", drugs["smiles"], Features()).add_prefix("mordred.")
    lost = {}
    for name, table in tables.items():
        whole = np.isfinite(table.to_numpy()).all(axis=0)
        _write(folder / name, pd.concat([ids, table.loc[:, table.columns[whole]]], axis=1))
        lost[name] = table.columns[~whole].tolist()
    return lost


def _view(bundle: Bundle, name: str) -> pd.DataFrame:
    return pd.DataFrame(np.asarray(bundle.array(name)), columns=bundle.view(name)["columns"])


def _write_splits(folder: Path, bundle: Bundle, plan: pd.DataFrame) -> pd.DataFrame:
    """The split files; -> one row a split: name, label, train, validation, test (0 and no files if a part is empty)."""
    source = bundle.response["source"].to_numpy(dtype=str)
    sources = list(dict.fromkeys(source))
    for name in sources:
        _write_rows(folder / f"{name}_{EVERY}.txt", np.flatnonzero(source == name))
    found = []
    for place, (label, split) in enumerate(parts_of(plan)):
        numbered = split.kind in (*FOLDED, *IMPROVE_SPLITS)
        number = int(re.sub(r".*\D", "", label)) if numbered else place
        rows = make_rows(split, label, bundle)
        own = label.rsplit("_", 2)[0] if split.kind in IMPROVE_SPLITS else None
        for name in [own] if own else [*sources, *([EVERY] if len(sources) > 1 else [])]:
            of_study = rows if name == EVERY else Rows(*(part[source[part] == name] for part in _parts(rows)))
            counts = [len(part) for part in _parts(of_study)]
            if min(counts) > 0:
                for stage, part in zip(STAGES, _parts(of_study), strict=True):
                    _write_rows(folder / f"{name}_split_{number}_{stage}.txt", part)
            found.append((f"{name}_split_{number}", label, *counts, min(counts) > 0))
    return pd.DataFrame(found, columns=["name", "label", "train", "validation", "test", "written"])


def _parts(rows: Rows) -> Iterable[np.ndarray]:
    return rows.train, rows.validation, rows.test


def _write_rows(path: Path, rows: np.ndarray) -> None:
    path.write_text("".join(f"{row}\n" for row in rows.tolist()), encoding="utf-8", newline="")
