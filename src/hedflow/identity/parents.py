"""From a structure as a table gives it to the parent structure that a drug's id is made of.

1. Counter-ions and solvents (`SET_ASIDE`) are left out while anything else remains: the larger part of a pamoate is
   the acid, not the drug.
2. Of what remains, the part with the most heavy atoms is the drug (then the heavier, then the first by SMILES).
3. It is uncharged where protons can do that; a quaternary nitrogen keeps its charge.
4. A coordination compound (platinum) is not its largest part: cisplatin would be ammonia. Its bonds to the metal are
   cut, and the ligands as neutral molecules and the bare metal are the parent together, since the tables write one
   complex in several oxidation states.

The id is the first block of the InChIKey (connectivity), under `stereo: keep` its first two blocks (with
stereochemistry and isotopes). InChI moves mobile hydrogens, so most tautomers (amide and iminol, imidazoles,
amidines) have one id; keto and enol have two.
"""

from __future__ import annotations

import functools
from typing import Literal

from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors
from rdkit.Chem.MolStandardize import rdMolStandardize

rdBase.DisableLog("rdApp.*")

Stereo = Literal["ignore", "keep"]
BLOCKS = {"ignore": 14, "keep": 25}  # characters of the InChIKey

# Acids, bases, solvents and ions that tables write beside a drug.
_SALTS = """
    O N Cl Br I F [H+] [Li+] [Na+] [K+] [Mg+2] [Ca+2] [Zn+2] [Al+3]
    OS(O)(=O)=O OP(O)(O)=O ON(=O)=O OCl(=O)(=O)=O OC=O CC(O)=O OC(=O)C(F)(F)F OC(=O)C(O)=O OC(=O)CC(O)=O
    OC(=O)CCC(O)=O OC(=O)C=CC(O)=O OC(=O)C(O)CC(O)=O OC(=O)C(O)C(O)C(O)=O CC(O)C(O)=O
    OC(=O)CC(O)(CC(O)=O)C(O)=O OC(=O)CO OCC(O)C(O)C(O)C(O)C(O)=O CNCC(O)C(O)C(O)C(O)CO
    CS(O)(=O)=O CCS(O)(=O)=O Cc1ccc(cc1)S(O)(=O)=O OS(=O)(=O)c1ccccc1 OS(=O)(=O)c1ccc2ccccc2c1
    OCCS(O)(=O)=O OC(=O)c1ccccc1 OC(=O)c1cc2ccccc2cc1O OC(=O)c1cc2ccccc2c(Cc2c(O)c(cc3ccccc23)C(O)=O)c1O
    NC(CO)(CO)CO OCCN(CCO)CCO CN(C)CCO NCCN c1ccc(cc1)CNCCNCc1ccccc1
    CO CCO CC(C)O CC(C)=O CC#N CS(C)=O CN(C)C=O ClCCl ClC(Cl)Cl C1CCOC1 C1COCCO1 CCOC(C)=O Cc1ccccc1
"""
SET_ASIDE = tuple(_SALTS.split())
_ALKALI = {3, 11, 19, 37, 55, 4, 12, 20, 38, 56, 13}  # counter-ions, not centres of complexes
_NON_METALS = {1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 51, 52, 53, 54}


def parent(smiles: str, stereo: Stereo = "ignore") -> tuple[str, str] | None:
    """(drug id, canonical SMILES of the parent) of a structure.

    None if RDKit cannot read it, or if it is no drug's: tables made by looking names up in chemical software have
    `[Cr]` for CR-1-31B and twelve tungsten atoms for JW-7-52-1.
    """
    found = standardise(smiles)
    return (found[0][: BLOCKS[stereo]], found[1]) if found else None


@functools.cache
def standardise(smiles: str) -> tuple[str, str] | None:
    """(InChIKey, canonical SMILES) of the parent structure; None as in `parent`."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not _plausible(molecule):
        return None
    if any(map(_is_metal, molecule.GetAtoms())):
        made = _complex(molecule)
    else:
        made = _uncharged(_largest(list(Chem.GetMolFrags(molecule, asMols=True, sanitizeFrags=True))))
    if made is None or not _plausible(made):
        return None
    key = Chem.MolToInchiKey(made)
    return (key, Chem.MolToSmiles(made)) if key else None


def parts(smiles: str) -> list[str]:
    """Canonical SMILES of the distinct parts of a structure that are no counter-ions or solvents, the drug first."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return []
    kept = _without_salts(list(Chem.GetMolFrags(molecule, asMols=True, sanitizeFrags=True)))
    return list(dict.fromkeys(Chem.MolToSmiles(_uncharged(part)) for part in sorted(kept, key=_size)))


def is_complex(smiles: str) -> bool:
    """Whether a structure has a metal that is no counter-ion."""
    molecule = Chem.MolFromSmiles(smiles)
    return molecule is not None and any(map(_is_metal, molecule.GetAtoms()))


def _plausible(molecule: Chem.Mol) -> bool:
    """At least three heavy atoms, of two elements."""
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms() if atom.GetAtomicNum() > 1]
    return len(numbers) >= 3 and len(set(numbers)) >= 2


def _is_metal(atom: Chem.Atom) -> bool:
    return atom.GetAtomicNum() not in _NON_METALS | _ALKALI


def _uncharged(molecule: Chem.Mol) -> Chem.Mol:
    return rdMolStandardize.Uncharger().uncharge(molecule)


def _size(part: Chem.Mol) -> tuple[int, float, str]:
    """Sorts the largest first, by rule and not by the order in which a table writes the parts."""
    neutral = _uncharged(part)
    return -neutral.GetNumHeavyAtoms(), -round(rdMolDescriptors.CalcExactMolWt(neutral), 3), Chem.MolToSmiles(neutral)


def _connectivity(molecule: Chem.Mol) -> str:
    return str(Chem.MolToInchiKey(_uncharged(molecule))[: BLOCKS["ignore"]])


@functools.cache
def _set_aside() -> frozenset[str]:
    return frozenset(_connectivity(Chem.MolFromSmiles(smiles)) for smiles in SET_ASIDE)


def _without_salts(found: list[Chem.Mol]) -> list[Chem.Mol]:
    if len(found) == 1:
        return found
    return [part for part in found if _connectivity(part) not in _set_aside()] or found


def _largest(found: list[Chem.Mol]) -> Chem.Mol:
    return min(_without_salts(found), key=_size)


def _complex(molecule: Chem.Mol) -> Chem.Mol | None:
    """Neutral ligands and bare metals of a coordination compound, as one molecule of several parts.

    Bonds of a metal to carbon stay: those are organometallic compounds.
    """
    editable = Chem.RWMol(molecule)
    metals = {atom.GetIdx() for atom in editable.GetAtoms() if _is_metal(atom)}
    for index in metals:
        for bond in list(editable.GetAtomWithIdx(index).GetBonds()):
            other = bond.GetOtherAtomIdx(index)
            ligand = editable.GetAtomWithIdx(other)
            if other in metals or ligand.GetAtomicNum() == 6:
                continue
            editable.RemoveBond(index, other)
            # `[NH2]` bound to platinum is ammonia once it is free.
            ligand.SetNoImplicit(False)
            ligand.SetNumRadicalElectrons(0)
            ligand.SetNumExplicitHs(0)
            if ligand.GetFormalCharge() > 0:
                ligand.SetFormalCharge(0)
    for index in metals:
        metal = editable.GetAtomWithIdx(index)
        if not metal.GetDegree():
            metal.SetFormalCharge(0)
            metal.SetNumExplicitHs(0)
            metal.SetNoImplicit(True)
            metal.SetNumRadicalElectrons(0)
    cut = editable.GetMol()
    if Chem.SanitizeMol(cut, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    neutral = [_uncharged(part) for part in Chem.GetMolFrags(cut, asMols=True, sanitizeFrags=True)]
    written = ".".join(sorted(Chem.MolToSmiles(part) for part in neutral))
    # Read anew, so that a parent is its own parent.
    return Chem.MolFromSmiles(written)
