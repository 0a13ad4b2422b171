"""Structures as RDKit molecules; no view, but what the views of drugs share."""

from __future__ import annotations

import functools

from rdkit import Chem

from hedflow import HedflowError


@functools.cache
def molecule(smiles: str) -> Chem.Mol:
    """The molecule of a SMILES; HedflowError if RDKit cannot read it."""
    found = Chem.MolFromSmiles(smiles)
    if found is None:
        raise HedflowError(f"RDKit cannot read the structure {smiles}; correct it in the structure table.")
    return found
