"""What a drug's name says of it before any structure is looked up: a combination, an antibody, a blinded code."""

from __future__ import annotations

import re
from collections.abc import Callable

from hedflow.identity.synonyms import normalise

# Names whose structure in the tables is plainly another substance's.
REFUSED = {"metap2inhibitora832234": "the structure given is another substance's"}
# Proteins that no ending betrays.
PROTEINS = {"rtrail": "a protein"}

CHEMICAL_NAME = 25  # a synonym of more characters, with a bracket, is a chemical name

_RATIO = re.compile(r"^(?P<parts>.+:.+?) \(\d+(?::\d+)+ mol/mol\)$")
_COMBO = re.compile(r"\bcombo\b", re.IGNORECASE)
_BESIDE = re.compile(r"\((?P<other>[^()]+?) [\d.]+ ?[unm]M\)$")
_SEPARATORS = (" + ", " & ", " / ", "/", "+")
# Codes of a screen that name no published compound: a number alone; AstraZeneca's target and four digits; Bayer's
# and other laboratories' own numbers that came without a structure.
_BLINDED = re.compile(
    r"\d+|[A-Za-z0-9]+_\d{4}|BAY[ -]\S+|BAY-HDAC11_\d|BD[A-Z]+\d+[a-z]?|B[DP][DP]-\d+|\d{3}-D2|N\d{5}-\d+-[A-Z]?\d+|"
    r"LMB_AB\d|THR-\d+|VTP-[A-Z]|F[SY]\d{3}|ZL\d{3}|CRT\d{7}|CCT\d{6}|ICL\d+|PBD-\d+|CT\d+-\d"
)


def combination(name: str, drug_id: Callable[[str], str | None]) -> tuple[str, ...]:
    """The drugs of a combination; none if the name is one drug's.

    `a:b (1:1 mol/mol)` and a name with `combo` are combinations by their form. `a + b`, `a & b` and `a/b` are only
    if each side is a known drug and they are not the same one: `VNLG/124` is one, and so is a name with its alias.

    Args:
        drug_id: the id of a name in the structure tables, None if there is none.
    """
    if match := _RATIO.match(name.strip()):
        return tuple(part.strip() for part in match["parts"].split(":"))
    if _COMBO.search(name):
        beside = _BESIDE.search(name)
        return (_COMBO.split(name)[0].strip(" -"), *([beside["other"]] if beside else []))
    for separator in _SEPARATORS:
        parts = [part.strip() for part in name.split(separator)]
        if len(parts) > 1 and all(len(normalise(part)) > 1 for part in parts):
            ids = [drug_id(part) for part in parts]
            if None not in ids and len(set(ids)) > 1:
                return tuple(parts)
    return ()


def without_structure(name: str) -> str | None:
    """Why a name is not looked up at all; None if it is."""
    key = normalise(name)
    if key in REFUSED:
        return f"refused: {REFUSED[key]}"
    if key in PROTEINS or key.endswith("mab"):
        return "antibody or protein"
    return None


def missing_reason(name: str, synonyms: tuple[str, ...]) -> str:
    """Why no table has a structure for a name.

    Args:
        synonyms: what GDSC calls it besides; a chemical name there unblinds a code, but gives no structure here.
    """
    if any(len(synonym) > CHEMICAL_NAME and "(" in synonym for synonym in synonyms):
        return "chemical name given, but in no structure table"
    return "blinded code" if _BLINDED.fullmatch(name.strip()) else "not in any structure table"
