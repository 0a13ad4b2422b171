"""A small csa folder, written by hand so that the reader is not tested against the writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HEADER = ["source", "improve_sample_id", "improve_chem_id", "study", "auc", "ic50", "aac1"]
SMILES = {"Drug_1": "CC(=O)Oc1ccccc1C(=O)O", "Drug_2": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "Drug_3": "c1ccccc1O.Cl"}
GENES = {"ENSG01": ("7157", "TP53"), "ENSG02": ("1956", "EGFR"), "ENSG03": ("673", "BRAF")}
CELLS = ("ACH-000001", "ACH-000002", "ACH-000003", "ACH-000004")


@dataclass
class Csa:
    """Content of a csa folder, to be changed and then written; AUC = 0.5 + 0.01 x row, of two studies in turn."""

    header: list[str] = field(default_factory=lambda: list(HEADER))
    rows: list[list[str]] = field(default_factory=list)
    smiles: list[tuple[str, str]] = field(default_factory=lambda: list(SMILES.items()))
    genes: list[tuple[str, str, str]] = field(default_factory=lambda: [(e, z, s) for e, (z, s) in GENES.items()])
    expression: list[list[str]] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    header_rows: int = 3
    end: str = "\r\n"

    def __post_init__(self) -> None:
        pairs = [(cell, drug) for drug in SMILES for cell in CELLS]
        for source in ("CCLE", "gCSI"):
            for cell, drug in pairs:
                auc = 0.5 + 0.01 * len(self.rows)
                self.rows.append([source, cell, drug, source, f"{auc:.2f}", "", f"{1 - auc:.2f}"])
        self.expression = [[cell, *(f"{i + 0.25 * j}" for j in range(3))] for i, cell in enumerate(CELLS)]
        half = len(pairs)
        for start, source in ((0, "CCLE"), (half, "gCSI")):
            self.split(source, range(start, start + 8), range(start + 8, start + 10), range(start + 10, start + 12))

    def split(self, source: str, train, validation, test, name: str = "split_0") -> None:
        for stage, rows in (("train", train), ("val", validation), ("test", test)):
            self.splits[f"{source}_{name}_{stage}.txt"] = "".join(f"{row}{self.end}" for row in rows)

    def column(self, name: str, value) -> None:
        """Set a column of the response: `value` of the row number."""
        place = self.header.index(name)
        for number, row in enumerate(self.rows):
            row[place] = str(value(number))

    def write(self, folder: Path) -> Path:
        """Write the folder; returns it."""
        tables = {
            "y_data/response.tsv": [self.header, *self.rows],
            "x_data/drug_SMILES.tsv": [["improve_chem_id", "canSMILES"], *self.smiles],
            "x_data/cancer_gene_expression.tsv": [*self._gene_rows(), *self.expression],
        }
        for name, table in tables.items():
            path = folder / "raw_data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes("".join("\t".join(row) + self.end for row in table).encode())
        (folder / "raw_data" / "splits").mkdir(exist_ok=True)
        for name, text in self.splits.items():
            (folder / "raw_data" / "splits" / name).write_bytes(text.encode())
        return folder

    def _gene_rows(self) -> list[list[str]]:
        ensembl, entrez, symbol = (list(column) for column in zip(*self.genes, strict=True))
        if self.header_rows == 1:
            return [["improve_sample_id", *symbol]]
        return [["", *ensembl], ["", *entrez], ["", *symbol]]
