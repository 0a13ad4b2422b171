"""Writes a bundle and an experiment's splits as a csa folder, so that IMPROVE's models run on them.

Row i of response.tsv is row i of the bundle: what a model predicts joins back by that number. The same bundle and
splits give the same bytes. The folder is made beside its place and renamed into it when it is whole.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hedflow import HedflowError
from hedflow.audit import audit_plan
from hedflow.bundle import Bundle
from hedflow.config import IMPROVE_SPLITS
from hedflow.features import fingerprints
from hedflow.improve import CELL, DRUG, EVERY, EXPRESSION_FILE, RESPONSE_COLUMNS, SMILES, SMILES_FILE, SOURCE, STAGES
from hedflow.improve.readme import MARK, Content, readme
from hedflow.plan import parts_of
from hedflow.sources.tables import read_table
from hedflow.splits import Rows, make_rows

FINGERPRINT_BITS, FINGERPRINT_RADIUS = 512, 2
DESCRIPTORS_FILE, MORDRED_FILE = "drug_rdkit_descriptors.tsv", "drug_mordred.tsv"
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
    """What the bundle has not: a table of gene ids, and whether Mordred's descriptors are to be computed."""

    genes: Path | None = None
    mordred: bool = False


def export_experiment(bundle: Bundle, plan: pd.DataFrame, out: Path, extras: Extras | None = None) -> str:
    """Write `out`/raw_data with the bundle and the splits of `plan`; returns what was written, in a few lines.

    Raises:
        HedflowError: `out` holds something that is no earlier export; the splits leak; an id that improvelib would
            read as missing; Mordred is asked for and not installed.
    """
    extras = extras or Extras()
    _check_place(out)
    _check_ids(bundle)
    audit_plan(plan, bundle)
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
    _write(raw / "y_data" / "response.tsv", _response(bundle), end="\r\n")
    genes, known = _write_expression(raw / "x_data" / EXPRESSION_FILE, bundle, extras.genes)
    lost = _write_drugs(raw / "x_data", bundle, extras.mordred)
    splits = _write_splits(raw / "splits", bundle, plan)
    return Content(genes=genes, genes_with_id=known, lost=lost, splits=splits, kinds=list(plan["split_kind"].unique()))


def _write(path: Path, table: pd.DataFrame, end: str = "\n") -> None:
    table.to_csv(path, sep="\t", index=False, float_format=FLOAT, lineterminator=end, encoding="utf-8")


def _response(bundle: Bundle) -> pd.DataFrame:
    """IMPROVE's columns in its order; of the values the bundle has the AUC only."""
    response = bundle.response
    table = pd.DataFrame(index=response.index, columns=list(RESPONSE_COLUMNS), dtype=object)
    table[SOURCE] = table["study"] = response["source"].astype(str).to_numpy()
    table[CELL] = bundle.cells["cell_id"].to_numpy()[response["cell"]]
    table[DRUG] = bundle.drugs["drug_id"].to_numpy()[response["drug"]]
    table["auc"] = response["auc"].to_numpy(np.float32)
    return table


def _write_expression(path: Path, bundle: Bundle, ids: Path | None) -> tuple[dict[str, int], int]:
    """Three header rows, then a row a cell line; genes with a missing value are left out. -> counts, genes with an id.

    Where a gene has no Ensembl or Entrez id at hand its symbol stands there: a symbol is neither, so nothing joins
    wrongly, and every column stays distinct in each of the three rows.
    """
    values = np.asarray(bundle.array("cells"))
    whole = np.isfinite(values).all(axis=0)
    symbols = np.asarray(bundle.manifest["genes"], dtype=str)[whole]
    table = _gene_ids(ids).reindex(symbols) if ids else pd.DataFrame(index=symbols, columns=["Ensembl", "Entrez"])
    rows = [table[name].where(table[name].notna(), symbols).astype(str) for name in ("Ensembl", "Entrez")]
    header = [("Ensembl", *rows[0]), ("Entrez", *rows[1]), ("Gene_Symbol", *symbols)]
    with path.open("w", encoding="utf-8", newline="") as f:
        f.writelines("\t".join(fields) + "\n" for fields in header)
        for cell, row in zip(bundle.cells["cell_id"], values[:, whole], strict=True):
            f.write("\t".join([cell, *(FLOAT % value for value in row)]) + "\n")
    known = int(table.notna().any(axis=1).sum())
    return {"written": int(whole.sum()), "left out": int((~whole).sum())}, known


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
    bits = fingerprints(drugs["smiles"], FINGERPRINT_RADIUS, FINGERPRINT_BITS)
    columns = [f"ecfp4.{bit}" for bit in range(FINGERPRINT_BITS)]
    _write(folder / "drug_ecfp4_nbits512.tsv", pd.concat([ids, pd.DataFrame(bits, columns=columns)], axis=1))
    described = pd.DataFrame(np.asarray(bundle.array("drugs")), columns=bundle.manifest["descriptors"])
    tables = {DESCRIPTORS_FILE: described.add_prefix("rdkit.")}
    if mordred:
        tables[MORDRED_FILE] = _mordred(drugs["smiles"]).add_prefix("mordred.")
    lost = {}
    for name, table in tables.items():
        whole = np.isfinite(table.to_numpy()).all(axis=0)
        _write(folder / name, pd.concat([ids, table.loc[:, table.columns[whole]]], axis=1))
        lost[name] = table.columns[~whole].tolist()
    return lost


def _mordred(smiles: pd.Series[str]) -> pd.DataFrame:
    """Mordred's 2D descriptors, float32, NaN where it gives none."""
    try:
        from mordred import Calculator, descriptors
    except ImportError:
        raise HedflowError(
            "export: Mordred's descriptors need the package mordredcommunity; `pip install mordredcommunity`, or leave "
            "out --mordred."
        ) from None
    from rdkit import Chem

    made = Calculator(descriptors, ignore_3D=True).pandas([Chem.MolFromSmiles(s) for s in smiles], nproc=1, quiet=True)
    numbers = pd.DataFrame({str(name): pd.to_numeric(made[name], errors="coerce") for name in made}, dtype=np.float64)
    return numbers.where(numbers.abs() < np.finfo(np.float32).max).astype(np.float32)


def _write_splits(folder: Path, bundle: Bundle, plan: pd.DataFrame) -> pd.DataFrame:
    """The split files; -> one row a split: name, label, train, validation, test (0 and no files if a part is empty)."""
    source = bundle.response["source"].to_numpy(dtype=str)
    sources = list(dict.fromkeys(source))
    for name in sources:
        _write_rows(folder / f"{name}_{EVERY}.txt", np.flatnonzero(source == name))
    found = []
    for place, (label, split) in enumerate(parts_of(plan)):
        number = int(re.sub(r".*\D", "", label)) if re.search(r"^f\d+$|_\d+$", label) else place
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
