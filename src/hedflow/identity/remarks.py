"""Lines that are not what their name says, as far as the annotation at hand tells.

DepMap's comments name derivatives of other lines (its own fingerprints, or ICLAC's register of misidentified lines);
the CCLE's sample table of 2012 names lines that are genetically identical. Nothing is left out because of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from hedflow.sources.tables import read_table

CCLE_SAMPLES = "CCLE_sample_info_file_2012-10-18.txt"
_DOUBT = re.compile(
    r"derivative|^Contaminated|Identical lines|Previously thought|is actually|synonymous|thought to be female|"
    r"misidentif|problematic",
    re.IGNORECASE,
)
_CLEARED = re.compile(r"rules out|does not have|has correct|not identical", re.IGNORECASE)


def read_remarks(metadata: pd.DataFrame, paths: list[Path]) -> pd.DataFrame:
    """Remarks that cast doubt on a line's identity.

    Args:
        metadata: DepMap's Model table.
        paths: files of annotation; the CCLE's sample table is read if it is among them.

    Returns:
        cell_id, line (DepMap's name), origin, remark (as the provider writes it).
    """
    tables = [_rows(metadata["ModelID"], metadata["CellLineName"], "DepMap", metadata["PublicComments"])]
    for path in paths:
        if path.name == CCLE_SAMPLES:
            samples = read_table(path, ["CCLE name", "Notes"], sep="\t")
            model = metadata.drop_duplicates("CCLEName").set_index("CCLEName")
            known = samples[samples["CCLE name"].isin(model.index)]
            found = model.loc[known["CCLE name"]]
            tables.append(_rows(found["ModelID"], found["CellLineName"], "CCLE 2012", known["Notes"]))
    return pd.concat(tables, ignore_index=True).sort_values(["cell_id", "origin"], ignore_index=True)


def _rows(ids: pd.Series[str], lines: pd.Series[str], origin: str, remarks: pd.Series[str]) -> pd.DataFrame:
    text = [str(remark) for remark in remarks]
    table = pd.DataFrame({"cell_id": ids.to_numpy(), "line": lines.to_numpy(), "origin": origin, "remark": text})
    doubted = [bool(_DOUBT.search(remark)) and not _CLEARED.search(remark) for remark in text]
    return table[doubted]
