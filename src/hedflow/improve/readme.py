"""README.txt of an exported csa folder: what is in it, in which unit and direction, and what is not."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hedflow.bundle import Bundle

MARK = "hedflow data in the layout of IMPROVE's csa benchmark"
DESCRIPTORS_FILE, MORDRED_FILE = "drug_rdkit_descriptors.tsv", "drug_mordred.tsv"
IDS = (
    ("source, study", "the screen"),
    ("improve_sample_id", "the cell line, as in hedflow (a DepMap ModelID, unless the data have other ids)"),
    (
        "improve_chem_id",
        "the drug: first block (or two) of the InChIKey of its parent structure, not IMPROVE's Drug_<k>; names in "
        "drug_info.tsv",
    ),
)
VALUES = {
    "auc": "0 to 1, LOW = POTENT, 1 = no effect; what hedflow's models learn. It is not always IMPROVE's (the fitted "
    "curve over 4 to 10 of -log10 M): screens have different dose ranges",
    "ic50": "-log10 M (high = potent), where the curve reaches one half; of hedflow's and the screens' curves only if "
    "it does within the tested doses",
    "ec50": "-log10 M (high = potent), the dose half-way to einf",
    "ec50se": "standard error of ec50, decades",
    "r2fit": "R2 of the curve's fit",
    "einf": "viability at an endless dose, fraction of the control (low = potent)",
    "hs": "slope of the curve",
    "aac1": "1 - auc1, HIGH = POTENT",
    "auc1": "AUC over the tested doses, LOW = POTENT",
    "dss1": "drug sensitivity score over the tested doses, HIGH = POTENT",
}


@dataclass(frozen=True)
class Content:
    """What an export holds.

    known: rows that have a value, by column of response.tsv. rules: rows by source and by what its AUC is; empty if
    that is not known. genes: counts (see `write`). lost: descriptors left out, by file. splits: see `write`.
    """

    known: dict[str, int]
    rules: dict[tuple[str, str], int]
    genes: dict[str, int]
    lost: dict[str, list[str]]
    splits: pd.DataFrame
    kinds: list[str]

    @property
    def summary(self) -> str:
        """A line for people."""
        written = self.splits[self.splits["written"]]
        without = len(self.splits) - len(written)
        said = f"{len(written)} splits ({', '.join(self.kinds)})"
        said += f", {without} left out for an empty part" if without else ""
        return f"{said}, {self.genes['written']} genes; what is in it: README.txt"


def readme(bundle: Bundle, content: Content) -> str:
    """The text. It names no path and no time: the same export has the same bytes."""
    manifest = bundle.manifest
    lines = [
        MARK,
        "",
        f"Bundle {bundle.digest}: {manifest['rows']} measurements, {manifest['cells']} cell lines, "
        f"{manifest['drugs']} drugs.",
        "The data keep their providers' terms: see the licences in hedflow's resources/datasets.csv.",
        "",
        *_response(manifest["rows"], content),
        "",
        *_features(content),
        "",
        f"raw_data/splits   one row number of response.tsv a line; kind of split: {', '.join(content.kinds)}",
        "    <screen>_all.txt: every row of a screen; all_split_<n>_...: the rows of every screen together",
    ]
    for row in content.splits.itertuples():
        made = "" if row.written else " (no files: a part is empty)"
        lines.append(
            f"    {row.name}: hedflow's {row.label}; "
            f"train {row.train}, validation {row.validation}, test {row.test}{made}"
        )
    return "\n".join(lines) + "\n"


def _response(rows: int, content: Content) -> list[str]:
    """Of response.tsv: what each column means, and how many rows have it."""
    lines = [
        "raw_data/y_data/response.tsv   tab-separated, CRLF, one row a (screen, cell line, drug), replicates averaged;",
        "    row i (from 0) is row i of the bundle, and what the split files name",
        *(f"    {name}: {meaning}" for name, meaning in IDS),
        *(f"    {name}: {meaning}; {_rows(content.known[name], rows)}" for name, meaning in VALUES.items()),
    ]
    if any(count for name, count in content.known.items() if name != "auc"):
        lines += [
            "    ic50 to dss1 are of the curve that hedflow fitted to the screen's dose points, else what the screen's",
            "    provider says of its own curve; of a csa folder that was read, as they are there. A row may have some",
            "    of them only, and its auc may be of another curve or range than they are.",
        ]
    if content.rules:
        lines.append("    auc is, by screen:")
        lines += [f"        {source}: {rule} ({count} rows)" for (source, rule), count in content.rules.items()]
    return lines


def _rows(count: int, rows: int) -> str:
    return "empty: not known" if count == 0 else "in every row" if count == rows else f"in {count} of {rows} rows"


def _features(content: Content) -> list[str]:
    """Of x_data: what each file holds, and what was left out."""
    genes = content.genes
    lacking = (
        [f"        {genes['cells without']} cell lines have no expression and no row."]
        if genes["cells without"]
        else []
    )
    absent = [
        "mutations, copy number, methylation, RPPA, miRNA",
        *(f"{_whose(name)} ({name})" for name in (DESCRIPTORS_FILE, MORDRED_FILE) if name not in content.lost),
    ]
    return [
        "raw_data/x_data (tab-separated, LF)",
        f"    cancer_gene_expression.tsv: {genes['written']} genes as in the bundle, not scaled (of DepMap: "
        "log2(TPM + 1));",
        f"        {genes['left out']} left out for a missing value. Header rows Ensembl, Entrez, Gene_Symbol;",
        f"        {genes['with id']} genes have an Ensembl or Entrez id, where one lacks stands the symbol",
        *lacking,
        "    drug_SMILES.tsv: canonical SMILES of the parent structure (RDKit)",
        "    drug_info.tsv: the drug's name, and every screen's name for it (screen:name|...)",
        "    drug_ecfp4_nbits512.tsv: Morgan fingerprint of radius 2 (ECFP4), 512 bits (RDKit)",
        *(f"    {name}: {_described(name, lost)}" for name, lost in content.lost.items()),
        f"    Not here: {', '.join(absent)}",
    ]


def _whose(name: str) -> str:
    if name == MORDRED_FILE:
        return "Mordred's 2D descriptors"
    return "RDKit's 2D descriptors"


def _described(name: str, lost: list[str]) -> str:
    note = " (mordredcommunity)" if name == MORDRED_FILE else ", NOT Mordred's"
    left = f"; left out for a missing value: {len(lost)}" if lost else ""
    return f"{_whose(name)}{note}, raw{left}"
