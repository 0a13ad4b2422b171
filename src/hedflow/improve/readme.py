"""README.txt of an exported csa folder: what is in it, in which unit and direction, and what is not."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hedflow.bundle import Bundle

MARK = "hedflow data in the layout of IMPROVE's csa benchmark"
MEANINGS = (
    ("source, study", "the screen"),
    ("improve_sample_id", "the cell line, as in hedflow (a DepMap ModelID, unless the data have other ids)"),
    (
        "improve_chem_id",
        "the drug: first block of the InChIKey of its parent structure, not IMPROVE's Drug_<k>; names in drug_info.tsv",
    ),
    (
        "auc",
        "0 to 1, LOW = POTENT, 1 = no effect. As the screen's provider (or the csa folder that was read) gives it, "
        "brought to this scale; not refitted: screens have different dose ranges, and IMPROVE's own auc (over 4 to 10 "
        "of -log10 M) has other values for the same pairs",
    ),
    ("ic50, ec50", "-log10 M (high = potent); empty: not in hedflow's bundle"),
    ("ec50se, r2fit, einf, hs", "of the fitted curve; empty: not in hedflow's bundle"),
    ("auc1, aac1, dss1", "over the tested doses (aac1 = 1 - auc1 and dss1: HIGH = potent); empty: not in the bundle"),
)


@dataclass(frozen=True)
class Content:
    """What an export holds: counts of genes, descriptors left out by file, the splits (see `write`)."""

    genes: dict[str, int]
    genes_with_id: int
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
        "raw_data/y_data/response.tsv   tab-separated, CRLF, one row a (screen, cell line, drug), replicates averaged;",
        "    row i (from 0) is row i of the bundle, and what the split files name",
        *(f"    {name}: {meaning}" for name, meaning in MEANINGS),
        "",
        "raw_data/x_data (tab-separated, LF)",
        f"    cancer_gene_expression.tsv: {content.genes['written']} genes as in the bundle, not scaled (of DepMap: "
        "log2(TPM + 1));",
        f"        {content.genes['left out']} left out for a missing value. Header rows Ensembl, Entrez, Gene_Symbol;",
        f"        {content.genes_with_id} genes have an Ensembl or Entrez id, where one lacks stands the symbol",
        "    drug_SMILES.tsv: canonical SMILES of the parent structure (RDKit)",
        "    drug_info.tsv: the drug's name, and every screen's name for it (screen:name|...)",
        "    drug_ecfp4_nbits512.tsv: Morgan fingerprint of radius 2 (ECFP4), 512 bits (RDKit)",
        *(f"    {name}: {_said(name, lost)}" for name, lost in content.lost.items()),
        "    Not here: mutations, copy number, methylation, RPPA, miRNA"
        + ("" if "drug_mordred.tsv" in content.lost else ", Mordred descriptors (drug_mordred.tsv)"),
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


def _said(name: str, lost: list[str]) -> str:
    whose = (
        "Mordred's 2D descriptors (mordredcommunity)" if "mordred" in name else "RDKit's 2D descriptors, NOT Mordred's"
    )
    left = f"; left out for a missing value: {len(lost)}" if lost else ""
    return f"{whose}, raw{left}"
