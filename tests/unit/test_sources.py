"""hedflow.sources: every reader on the screens' own formats, and on files that are not as they should be."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hedflow import HedflowError
from hedflow.config import SOURCES
from hedflow.schemas import READING
from hedflow.simulate import BLINDED_DRUG, MIXTURE, World
from hedflow.sources import read_source

FOLDERS = {"CCLE": "CCLE", "CTRPv2": "CTRPv2", "gCSI": "gCSI", "GDSCv1": "GDSC", "GDSCv2": "GDSC"}
MAIN = {
    "CCLE": "CCLE_NP24.2009_Drug_data_2015.02.24.csv",
    "CTRPv2": "AUC_1.csv",
    "gCSI": "20170612_gCSI_GRfits.tsv",
    "GDSCv1": "GDSC1_AUC.csv",
    "GDSCv2": "GDSC2_AUC.csv",
}
KEYS = ("AUC_2.csv", "Experiment_info.csv", "cancer_cell_line_info.csv", "compound_info.csv")
AUC = {"CCLE": "ActArea", "CTRPv2": "area_under_curve", "gCSI": "AUC", "GDSCv1": "AUC", "GDSCv2": "AUC"}


@pytest.fixture
def files(world: World, tmp_path: Path) -> Callable[[str], list[Path]]:
    """A source's files, unpacked, to be spoilt."""

    def copy(source: str) -> list[Path]:
        names = (MAIN[source], *(KEYS if source == "CTRPv2" else ()))
        for name in names:
            path = world.folder / "response" / FOLDERS[source] / name
            packed = path.with_name(f"{name}.gz")
            content = gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes()
            (tmp_path / name).write_bytes(content)
        return [tmp_path / name for name in names]

    return copy


Files = Callable[[str], list[Path]]


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    changed = change(content)
    assert changed != content
    path.write_bytes(changed)


def lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def column_edited(path: Path, column: str, change: Callable[[pd.Series], pd.Series]) -> None:
    """Rewrite one column of a table as text; everything else stays."""
    sep = "\t" if path.suffix == ".tsv" else ","
    table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False)
    table[column] = change(table[column])
    path.write_text(table.to_csv(index=False, sep=sep), encoding="utf-8")


# ---- as it should be


@pytest.mark.parametrize("source", SOURCES)
def test_reader_keeps_its_contract(files: Files, source: str) -> None:
    paths = files(source)
    table = read_source(source, paths)
    READING.validate(table)
    rows = sum(
        len(lines(path.read_bytes())) - 1 for path in paths if AUC[source].encode() in lines(path.read_bytes())[0]
    )
    assert len(table) == rows  # readers drop nothing
    assert table[["cell_name", "drug_name", "auc"]].notna().all(axis=None)
    assert table["combination"].any() == (source == "CTRPv2")


@pytest.mark.parametrize("source", SOURCES)
def test_auc_follows_the_truth(world: World, files: Files, source: str) -> None:
    table = read_source(source, files(source))
    cells = world.cells.dropna(subset=source).set_index(source)["model_id"]
    drugs = world.drugs.dropna(subset=source).set_index(source)["name"]
    known = table.assign(model_id=table["cell_name"].map(cells), drug=table["drug_name"].map(drugs))
    known = known.dropna(subset=["model_id", "drug"]).merge(
        world.truth, on=["model_id", "drug"], suffixes=("", "_true")
    )
    assert len(known) > 0.8 * len(table)
    assert known["auc"].corr(known["auc_true"]) >= 0.9  # of the same sign: low stays potent
    assert known["auc"].between(0, 1.2).all()


def test_ccle_by_hand(tmp_path: Path) -> None:
    path = tmp_path / MAIN["CCLE"]
    path.write_text("CCLE Cell Line Name,Compound,ActArea\n697_X,A,0\nNA,B,8\nMCF7_BREAST,C,2\nM,D,0.4\n")
    table = read_source("CCLE", [path])
    assert table["auc"].tolist() == [1, 0, 0.75, 0.95]
    assert table["cell_name"].tolist() == ["697_X", "NA", "MCF7_BREAST", "M"]


def test_ccle_of_the_wheel(tmp_path: Path) -> None:
    path = tmp_path / "CCLE_ActArea.csv"
    path.write_text("Primary Cell Line Name,Compound,ActArea\nMCF7,A,2\n")
    table = read_source("CCLE", [path])
    assert table.iloc[0][["cell_name", "drug_name", "auc"]].tolist() == ["MCF7", "A", 0.75]


def ctrp(folder: Path, **changed: str) -> list[Path]:
    content = {
        "AUC_1": "experiment_id,area_under_curve,master_cpd_id\n1,15,10\n1,7.5,11\n",
        "AUC_2": "experiment_id,area_under_curve,master_cpd_id\n2,12,10\n",
        "Experiment_info": "expt_id,master_ccl_id,date\n1,100,a\n1,100,b\n2,101,a\n",
        "cancer_cell_line_info": "master_ccl_id,ccl_name\n100,697\n101,MCF7\n",
        "compound_info": "master_cpd_id,cpd_name\n10,erlotinib\n11,a:b (1:1 mol/mol)\n",
        **changed,
    }
    for name, text in content.items():
        (folder / f"{name}.csv").write_text(text)
    return [folder / f"{name}.csv" for name in content]


def test_ctrp_by_hand(tmp_path: Path) -> None:
    """Experiment 1 is listed twice with the same line: one line, no doubled rows."""
    table = read_source("CTRPv2", ctrp(tmp_path))
    assert table["cell_name"].tolist() == ["697", "697", "MCF7"]
    assert table["drug_name"].tolist() == ["erlotinib", "a:b (1:1 mol/mol)", "erlotinib"]
    assert table["auc"].tolist() == [1, 0.5, 0.8]
    assert table["combination"].tolist() == [False, True, False]


def test_known_rows(files: Files) -> None:
    assert BLINDED_DRUG in set(read_source("GDSCv1", files("GDSCv1"))["drug_name"])
    table = read_source("CTRPv2", files("CTRPv2"))
    assert set(table.loc[table["combination"], "drug_name"]) == {MIXTURE}
    gdsc = read_source("GDSCv2", files("GDSCv2"))
    assert {"TT", "T-T", "697"} <= set(gdsc["cell_name"])


# ---- what is odd and yet right


def gdsc(tmp_path: Path, content: bytes) -> pd.DataFrame:
    path = tmp_path / MAIN["GDSCv1"]
    path.write_bytes(content)
    return read_source("GDSCv1", [path])


HEADER = b"CELL_LINE_NAME,DRUG_NAME,AUC\n"
ODD = {
    "numeric-looking name": (HEADER + b"697,Erlotinib,0.5\n", "697", 0.5),
    "name with noughts": (HEADER + b"007.0,Erlotinib,0.5\n", "007.0", 0.5),
    "NA is a name": (HEADER + b"NA,Erlotinib,0.5\n", "NA", 0.5),
    "None is a name": (HEADER + b"None,nan,0.5\n", "None", 0.5),
    "CRLF": (HEADER.replace(b"\n", b"\r\n") + b"TT,Erlotinib,0.5\r\n", "TT", 0.5),
    "BOM": (b"\xef\xbb\xbf" + HEADER + b"TT,Erlotinib,0.5\n", "TT", 0.5),
    "blanks in the header": (b"CELL_LINE_NAME , DRUG_NAME,AUC \nTT,Erlotinib,0.5\n", "TT", 0.5),
    "extra columns, other order": (b"AUC,X,DRUG_NAME,CELL_LINE_NAME\n0.5,y,Erlotinib,TT\n", "TT", 0.5),
    "comma within quotes": (HEADER + b'"T,T",Erlotinib,0.5\n', "T,T", 0.5),
    "no last newline": (HEADER + b"TT,Erlotinib,0.5", "TT", 0.5),
    "exponent": (HEADER + b"TT,Erlotinib,5e-1\n", "TT", 0.5),
    "UTF-8 name": (HEADER + "Tä,Erlotinib,0.5\n".encode(), "Tä", 0.5),
}


@pytest.mark.parametrize(("content", "cell", "auc"), ODD.values(), ids=ODD)
def test_odd_but_right(tmp_path: Path, content: bytes, cell: str, auc: float) -> None:
    table = gdsc(tmp_path, content)
    assert table[["cell_name", "auc"]].to_numpy().tolist() == [[cell, auc]]


@pytest.mark.parametrize("text", ["", "NA", "NaN", "nan", "NULL"])
def test_missing_auc_is_kept_for_the_count(tmp_path: Path, text: str) -> None:
    table = gdsc(tmp_path, HEADER + b"TT,A,0.9\nTT,B," + text.encode() + b"\nTT,C,0.8\n")
    assert len(table) == 3
    assert table["auc"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("text", ["inf", "-1", "5"])
def test_impossible_auc_is_kept_for_the_count(tmp_path: Path, text: str) -> None:
    table = gdsc(tmp_path, HEADER + b"TT,A,0.9\nTT,B," + text.encode() + b"\nTT,C,0.8\n")
    assert table["auc"].tolist() == [0.9, float(text), 0.8]


def test_row_cut_short_is_kept_for_the_count(tmp_path: Path) -> None:
    table = gdsc(tmp_path, HEADER + b"TT,A,0.9\nTT,B,0.8\nT-")
    assert table["cell_name"].tolist() == ["TT", "TT", "T-"]
    assert np.isnan(table["auc"].iloc[-1])


def test_empty_name_is_kept_for_the_count(tmp_path: Path) -> None:
    table = gdsc(tmp_path, HEADER + b",A,0.9\nTT,,0.8\n")
    assert (len(table), table["cell_name"].isna().sum(), table["drug_name"].isna().sum()) == (2, 1, 1)


def test_curve_without_its_keys_keeps_an_empty_name(tmp_path: Path) -> None:
    curves = "experiment_id,area_under_curve,master_cpd_id\n1,15,10\n9,12,10\n1,12,99\n"
    table = read_source("CTRPv2", ctrp(tmp_path, AUC_1=curves))
    assert table["cell_name"].isna().tolist() == [False, True, False, False]
    assert table["drug_name"].isna().tolist() == [False, False, True, False]
    assert not table["combination"].any()


@pytest.mark.parametrize("compounds", ["1,x\n", ""])
def test_keys_that_fit_no_curve(tmp_path: Path, compounds: str) -> None:
    table = read_source("CTRPv2", ctrp(tmp_path, compound_info=f"master_cpd_id,cpd_name\n{compounds}"))
    assert table["drug_name"].isna().all()


# ---- what is wrong


def assert_refused(source: str, paths: list[Path], *said: str) -> None:
    with pytest.raises(HedflowError) as caught:
        read_source(source, paths)
    message = str(caught.value)
    for part in said:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("source", SOURCES)
def test_missing_column(files: Files, source: str) -> None:
    paths = files(source)
    spoil(paths[0], lambda content: content.replace(AUC[source].encode(), b"Something", 1))
    assert_refused(source, paths, str(paths[0]), "expected the columns", AUC[source], "missing. Found: ")


@pytest.mark.parametrize("source", SOURCES)
def test_text_for_a_number(files: Files, source: str) -> None:
    paths = files(source)
    column_edited(paths[0], AUC[source], lambda column: column.where(column.index != 2, "high"))
    assert_refused(source, paths, str(paths[0]), f"column '{AUC[source]}' has 'high' in data row 3, expected a number")


@pytest.mark.parametrize("source", SOURCES)
def test_empty_file(files: Files, source: str) -> None:
    paths = files(source)
    paths[0].write_bytes(b"")
    assert_refused(source, paths, str(paths[0]), "expected a table in UTF-8")


@pytest.mark.parametrize("source", SOURCES)
def test_header_and_no_rows(files: Files, source: str) -> None:
    paths = files(source)
    for path in paths[:2]:
        spoil(path, lambda content: lines(content)[0])
    assert_refused(source, paths, f"source {source}", "a header and no rows")


@pytest.mark.parametrize("source", SOURCES)
def test_missing_file(files: Files, source: str) -> None:
    paths = files(source)
    paths[0].unlink()
    assert_refused(source, paths, str(paths[0]), "no such file")


@pytest.mark.parametrize("source", SOURCES)
def test_percent_for_a_fraction(files: Files, source: str) -> None:
    paths = files(source)
    for path in paths[:2] if source == "CTRPv2" else paths:
        column_edited(path, AUC[source], lambda column: (column.astype(float) * 100).astype(str))
    assert_refused(source, paths, f"source {source}", "the median AUC is", "expected 0.3 to 1.2", "low = potent")


def test_area_above_the_curve(tmp_path: Path) -> None:
    """The complement (AAC): high = potent. Most pairs of a screen do not respond, so its median is near nought."""
    aac = ["0.02", "0.1", "0.05", "0.7", "0.01", "0.15", "0.08"]
    path = tmp_path / MAIN["GDSCv1"]
    path.write_bytes(HEADER + b"".join(f"C{k},A,{value}\n".encode() for k, value in enumerate(aac)))
    assert_refused("GDSCv1", [path], "the median AUC is 0.08", "an area above the curve?")
    spoil(path, lambda content: content.replace(b",0.", b",0.9"))
    assert len(read_source("GDSCv1", [path])) == len(aac)


def test_all_auc_missing(tmp_path: Path) -> None:
    path = tmp_path / MAIN["GDSCv1"]
    path.write_bytes(HEADER + b"TT,A,NA\nTT,B,\n")
    assert_refused("GDSCv1", [path], "source GDSCv1", "the median AUC is nan")


@pytest.mark.parametrize(
    "content",
    [
        HEADER + "TT,Ré,0.5\n".encode("latin-1"),
        (HEADER + b"TT,A,0.5\n").decode().encode("utf-16"),
        HEADER + b"TT,A,0.5,extra\nTT,A,0.5,extra,more\n",
        HEADER + b'TT,"A,0.5\n',
    ],
    ids=["latin-1", "utf-16", "too many fields", "open quote"],
)
def test_broken_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / MAIN["GDSCv1"]
    path.write_bytes(content)
    assert_refused("GDSCv1", [path], str(path), "expected a table in UTF-8 separated by ','")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEADER.replace(b",", b";") + b"TT;A;0.5\n", "CELL_LINE_NAME, DRUG_NAME, AUC missing"),
        (HEADER.replace(b",", b"\t") + b"TT\tA\t0.5\n", "missing. Found: CELL_LINE_NAME\tDRUG_NAME\tAUC"),
        (HEADER + b'TT,A,"0,5"\n', "has '0,5' in data row 1, expected a number"),
        (HEADER + b"TT,A,50%\n", "has '50%' in data row 1"),
        (b"cell_line_name,drug_name,auc\nTT,A,0.5\n", "missing"),
        (b"TT,A,0.5\nTT,B,0.6\n", "CELL_LINE_NAME, DRUG_NAME, AUC missing"),
    ],
    ids=["semicolons", "tabs", "decimal comma", "percent sign", "lower case", "no header"],
)
def test_wrong_dialect(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / MAIN["GDSCv1"]
    path.write_bytes(content)
    assert_refused("GDSCv1", [path], str(path), said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "Experiment_info",
            "expt_id,master_ccl_id\n1,100\n1,101\n2,101\n",
            "expt_id 1 has more than one master_ccl_id",
        ),
        (
            "cancer_cell_line_info",
            "master_ccl_id,ccl_name\n100,697\n100,MCF7\n",
            "master_ccl_id 100 has more than one ccl_name",
        ),
        (
            "compound_info",
            "master_cpd_id,cpd_name\n10,a\n10,b\n",
            "master_cpd_id 10 has more than one cpd_name",
        ),
    ],
)
def test_key_with_two_values(tmp_path: Path, name: str, content: str, said: str) -> None:
    assert_refused("CTRPv2", ctrp(tmp_path, **{name: content}), said)


@pytest.mark.parametrize("name", [name.removesuffix(".csv") for name in ("AUC_1.csv", *KEYS)])
def test_ctrp_table_of_another_kind(tmp_path: Path, name: str) -> None:
    assert_refused("CTRPv2", ctrp(tmp_path, **{name: "a,b\n1,2\n"}), f"{name}.csv: expected the columns")


def test_unknown_source() -> None:
    with pytest.raises(HedflowError, match="no reader for the source 'GDSC1'; did you mean GDSCv1"):
        read_source("GDSC1", [])
