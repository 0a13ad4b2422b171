"""Similarity of drugs by their fingerprints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def tanimoto(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Tanimoto similarity |x & y| / |x | y| of fingerprints of bits 0/1: (n, bits), (m, bits) -> (n, m),
    0..1.

    Identical non-empty fingerprints have exactly 1. Two empty ones have 0: they share no feature, so nothing
    is known.
    """
    x, y = np.asarray(a), np.asarray(b)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"Fingerprints of shapes {x.shape} and {y.shape}; expected (n, bits) and (m, bits).")
    for bits in (x, y):
        if bits.size and not ((bits == 0) | (bits == 1)).all():
            raise ValueError("Fingerprints must hold one bit, 0 or 1, in each place; unpack packed ones first.")
    # Counts below 2^24 are exact in float32, so the matrix product of BLAS is exact too.
    left, right = x.astype(np.float32), y.astype(np.float32)
    both = left @ right.T
    either = left.sum(axis=1)[:, None] + right.sum(axis=1)[None, :] - both
    return np.asarray(both / np.maximum(either, 1), dtype=np.float32)
