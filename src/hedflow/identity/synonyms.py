"""What else a drug is called: GDSC's lists of synonyms, and the names inside a name."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from hedflow.sources.tables import read_table

SCREENED = "screened_compounds_rel_8.4.csv"
GDSC_LIST = "GDSC_drug_list_2019-06-24.csv"
SHORTEST = 4  # letters and digits of a synonym that is used: `BX`, `PAC` are no names

_DOSE = re.compile(r"^[\d.]+ ?[unm]?M$", re.IGNORECASE)
_SALT = re.compile(
    r"[ -](\d?HCl|\d?HBr|hydrochloride|dihydrochloride|mesylate|maleate|tosylate|citrate|sulfate|phosphate|sodium)$",
    re.IGNORECASE,
)


def normalise(name: str) -> str:
    """Lower case, letters and digits only: `PD-0325901` -> `pd0325901`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Synonyms:
    """Names that GDSC's tables give one drug; keys are normalised names."""

    of_name: dict[str, tuple[str, ...]] = field(default_factory=dict)  # a drug's name -> its synonyms
    of_synonym: dict[str, tuple[str, ...]] = field(default_factory=dict)  # a synonym -> names of drugs that list it
    targets: dict[str, str] = field(default_factory=dict)  # a drug's name -> what GDSC says it binds

    def of(self, name: str) -> tuple[str, ...]:
        """Synonyms of a name: those GDSC lists for it, then the drugs whose synonym it is. One step, no further."""
        key = normalise(name)
        if not key:
            return ()
        found = [*self.of_name.get(key, ()), *self.of_synonym.get(key, ())]
        return tuple(dict.fromkeys(s for s in found if normalise(s) != key))

    def related(self, name: str, other: str) -> bool:
        """Whether one name is the other, has it inside, or is called its synonym."""

        def called(one: str) -> set[str]:
            return {normalise(n) for n in (one, *names_within(one), *self.of(one))}

        return normalise(name) in called(other) or normalise(other) in called(name)


def read_synonyms(paths: list[Path]) -> Synonyms:
    """The synonyms of GDSC's tables among `paths`; none without them (the wheel-only edition)."""
    names: dict[str, list[str]] = defaultdict(list)
    back: dict[str, list[str]] = defaultdict(list)
    targets: dict[str, str] = {}
    for path in sorted(paths, key=lambda p: p.name != SCREENED):
        if path.name == SCREENED:
            columns = ["DRUG_NAME", "SYNONYMS", "TARGET"]
        elif path.name == GDSC_LIST:
            columns = ["Name", "Synonyms", "Targets"]
        else:
            continue
        table = read_table(path, columns).fillna("")
        for name, listed, target in table.itertuples(index=False):
            key = normalise(name)
            targets.setdefault(key, target)
            for synonym in split_synonyms(listed):
                names[key].append(synonym)
                back[normalise(synonym)].append(name.strip())
    return Synonyms(
        {key: tuple(dict.fromkeys(found)) for key, found in names.items()},
        {key: tuple(dict.fromkeys(found)) for key, found in back.items()},
        targets,
    )


def split_synonyms(listed: str) -> list[str]:
    """`A, B` as two synonyms; a comma inside a chemical name (`1,3-dimethyl`) has no space after it."""
    found = [one.strip() for one in re.split(r",\s+|;", listed)]
    return [one for one in found if len(normalise(one)) >= SHORTEST]


def names_within(name: str) -> tuple[str, ...]:
    """Other names inside a name, without those too short to mean anything.

    `Brivanib, BMS-540215` has two, `ascorbate (vitamin C)` two, `Bleomycin (10 uM)` and `GSK-LSD1-2HCl` one: a dose
    and a salt are no part of a drug's identity.
    """
    found: list[str] = []
    stripped = name.strip()
    if match := re.fullmatch(r"(.+?)\s*\(([^()]+)\)", stripped):
        found += [match[1]] if _DOSE.match(match[2]) else [match[1], match[2]]
    if ", " in stripped:
        found += stripped.split(", ")
    if _SALT.search(stripped):
        found.append(_SALT.sub("", stripped))
    return tuple(dict.fromkeys(f.strip() for f in found if len(normalise(f)) >= SHORTEST))
