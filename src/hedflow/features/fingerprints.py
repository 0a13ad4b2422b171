"""Morgan fingerprints of a drug's structure: always in a bundle, since twins and neighbours are told by them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rdkit.Chem import rdFingerprintGenerator

from hedflow.config import Features
from hedflow.features.molecules import molecule


def compute(smiles: pd.Series[str], settings: Features) -> pd.DataFrame:
    """Morgan fingerprints (ECFP, diameter 2 x radius), uint8 of 0 and 1, one column a bit."""
    generator = rdFingerprintGenerator.GetMorganGenerator(
        radius=settings.fingerprint_radius, fpSize=settings.fingerprint_bits
    )
    bits = np.stack([generator.GetFingerprintAsNumPy(molecule(s)) for s in smiles]).astype(np.uint8)
    return pd.DataFrame(bits, index=smiles.index, columns=[f"bit{i}" for i in range(bits.shape[1])])
