"""A small invented world in the five sources' own file formats, with the truth behind every number.

Knows the formats and no reader of them: what is read back elsewhere is thereby checked by other code.
"""

from hedflow.simulate.catalogue import BLINDED_DRUG, MIXTURE
from hedflow.simulate.world import World, simulate_world

__all__ = ["BLINDED_DRUG", "MIXTURE", "World", "simulate_world"]
