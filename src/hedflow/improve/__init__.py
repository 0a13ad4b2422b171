"""The format of IMPROVE's cross-study analysis (csa): where its files lie; read, write and splits in modules beside.

    raw_data/y_data/response.tsv       one row a measurement; its 0-based number is what split files name
    raw_data/x_data/cancer_gene_expression.tsv, drug_SMILES.tsv, ...
    raw_data/splits/<study>_split_<n>_{train,val,test}.txt

Format and names as improvelib 0.1.0 reads them; nothing of improvelib is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedflow import HedflowError

CELL, DRUG, SOURCE = "improve_sample_id", "improve_chem_id", "source"
SMILES = "canSMILES"
# auc over the fixed range 4..10 of -log10 M, auc1/aac1/dss1 over the tested doses; in the file's order.
VALUES = ("auc", "ic50", "ec50", "ec50se", "r2fit", "einf", "hs", "aac1", "auc1", "dss1")
RESPONSE_COLUMNS = (SOURCE, CELL, DRUG, "study", *VALUES)
# Its fitted parameters -> ours (`schemas.CURVE`); units and directions are the same. `aac1` is 1 - `auc1`.
PARAMETERS = {
    "ic50": "ic50",
    "ec50": "ec50",
    "ec50se": "ec50_se",
    "r2fit": "r2",
    "einf": "einf",
    "hs": "hs",
    "auc1": "auc_tested",
    "dss1": "dss1",
}
EXPRESSION_FILE, SMILES_FILE = "cancer_gene_expression.tsv", "drug_SMILES.tsv"
STAGES = {"train": "train", "val": "validation", "test": "test"}  # the end of a split file's name -> our part
# In place of a study's name: a split of the rows of every study.
EVERY = "all"


@dataclass(frozen=True)
class Layout:
    """The files of a csa folder that are read."""

    response: Path
    expression: Path
    smiles: Path
    splits: tuple[Path, ...]

    @property
    def identity(self) -> list[Path]:
        """What tells cells and drugs: expression and structures."""
        return [self.expression, self.smiles]


def find_layout(folder: str | Path) -> Layout:
    """The files of a csa folder, given itself or its `raw_data`.

    Raises:
        HedflowError: no such folder, or one of the three tables is not in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HedflowError(f"data.improve is {folder}, which is not a folder; correct it in config.yaml.")
    raw = folder / "raw_data" if (folder / "raw_data").is_dir() else folder
    response, expression = raw / "y_data" / "response.tsv", raw / "x_data" / EXPRESSION_FILE
    smiles = raw / "x_data" / SMILES_FILE
    for path in (response, expression, smiles):
        if not path.is_file():
            raise HedflowError(
                f"data.improve: expected {path}, but there is no such file; IMPROVE's csa layout is "
                f"raw_data/y_data/response.tsv, raw_data/x_data/{EXPRESSION_FILE} and {SMILES_FILE}."
            )
    return Layout(response, expression, smiles, tuple(sorted((raw / "splits").glob("*.txt"))))
