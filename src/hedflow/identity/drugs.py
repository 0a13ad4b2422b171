"""Drugs: native names to parent structures (`parents`).

A name is looked up in the source's own table first, then in the structure tables in their order; in each the exact
name comes before the normalised one. Only where that finds nothing are the names inside the name asked, then GDSC's
synonyms. Combinations, antibodies and proteins get no structure, whatever a table says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from hedflow.identity.kinds import combination, missing_reason, without_structure
from hedflow.identity.mechanisms import Targets, mechanisms
from hedflow.identity.parents import BLOCKS, Stereo, parent, standardise
from hedflow.identity.structures import StructureTable
from hedflow.identity.synonyms import Synonyms, names_within, normalise

OWN_TABLE = {"CTRPv2": ("v20.meta.per_compound.txt", "CTRPv2.2_2015_pub_CancerDisc_5_1210.zip")}
ROUTES = ("exact name", "normalised name", "name within the name", "synonym")
COLUMNS = ["source", "drug_name", "drug_id", "inchikey", "smiles", "table", "route", "matched", "status", "reason"]
COLUMNS += ["conflict"]


@dataclass(frozen=True)
class Answer:
    """What one table says of a name."""

    table: str
    route: str
    matched: str  # the name in the table
    given: str  # its SMILES there
    drug_id: str
    inchikey: str  # of the parent
    smiles: str  # of the parent


class DrugTables:
    """The structure tables, asked by name.

    Args:
        tables: (label, name -> SMILES), best first.
        stereo: whether stereochemistry makes two drugs of one connectivity.
    """

    def __init__(
        self, tables: list[StructureTable], synonyms: Synonyms | None = None, stereo: Stereo = "ignore"
    ) -> None:
        self.stereo: Stereo = stereo
        self.synonyms = synonyms or Synonyms()
        self.tables = dict(tables)
        self._loose: dict[str, dict[str, list[str]]] = {}
        for label, table in tables:
            loose: dict[str, list[str]] = defaultdict(list)
            for name in table:
                loose[normalise(name)].append(name)
            self._loose[label] = dict(loose)

    def answers(self, source: str, name: str) -> list[Answer]:
        """What every table says of a name, best first. Names within it and synonyms follow the name itself."""
        own = [label for label in OWN_TABLE.get(source, ()) if label in self.tables]
        order = [*own, *(label for label in self.tables if label not in own)]
        found = [answer for label in order for answer in self._itself(label, name)]
        for route, others in ((ROUTES[2], names_within(name)), (ROUTES[3], self.synonyms.of(name))):
            for label in order:
                answers = [a for other in others for a in self._itself(label, other)]
                found += [Answer(label, route, a.matched, a.given, a.drug_id, a.inchikey, a.smiles) for a in answers]
        return found

    def drug_id(self, name: str) -> str | None:
        """The id of a name by itself, within it or by synonym; None without a structure or with several."""
        chosen, _ = choose(self.answers("", name))
        return chosen.drug_id if chosen else None

    def _itself(self, label: str, name: str) -> Iterator[Answer]:
        """The answer of one table to one name: exact, else normalised if that means one structure."""
        table = self.tables[label]
        if name in table and (answer := self._answer(label, ROUTES[0], name)):
            yield answer
            return
        key = normalise(name)
        found = [self._answer(label, ROUTES[1], other) for other in self._loose[label].get(key, []) if key]
        answers = [answer for answer in found if answer]
        if len({answer.drug_id for answer in answers}) == 1:
            yield min(answers, key=lambda a: (a.smiles, a.matched))

    def _answer(self, label: str, route: str, matched: str) -> Answer | None:
        given = self.tables[label][matched]
        found, whole = parent(given, self.stereo), standardise(given)
        return Answer(label, route, matched, given, found[0], whole[0], found[1]) if found and whole else None


def choose(answers: list[Answer]) -> tuple[Answer | None, str]:
    """The answer that is taken, and why none is.

    The first one; but several synonyms, or several names within a name, must mean one drug in the table that answers.
    """
    if not answers:
        return None, ""
    first = answers[0]
    if first.route in ROUTES[:2]:
        return first, ""
    same = [a for a in answers if (a.table, a.route) == (first.table, first.route)]
    ids = sorted({a.drug_id for a in same})
    if len(ids) > 1:
        said = ", ".join(f"{a.matched} ({a.drug_id})" for a in same)
        return None, f"its {first.route}s mean different drugs: {said}"
    return first, ""


def map_drugs(
    names: dict[str, pd.Index[str]],
    tables: list[StructureTable],
    synonyms: Synonyms | None = None,
    stereo: Stereo = "ignore",
) -> pd.DataFrame:
    """Map native drug names to parent structures.

    Args:
        names: the distinct native drug names of each source, combinations among them.

    Returns:
        source, drug_name, drug_id (missing without a structure), inchikey and smiles (of the parent), table (which
        one answered), route, matched (the name in that table), status (`structure`, `combination`, `no structure`),
        reason (why there is none; the drugs of a combination), conflict (tables that have another structure).
    """
    asked = DrugTables(tables, synonyms, stereo)
    rows = [identify(source, name, asked) for source, index in names.items() for name in index]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"drug_id": "str", "inchikey": "str", "smiles": "str"})


def identify(source: str, name: str, asked: DrugTables) -> tuple[str | None, ...]:
    """One row of `map_drugs`."""
    nothing = (source, name, None, None, None, "none", "none", "")
    if drugs := combination(name, asked.drug_id):
        return (*nothing, "combination", " + ".join(drugs), "")
    if reason := without_structure(name):
        return (*nothing, "no structure", reason, "")
    answers = asked.answers(source, name)
    chosen, why = choose(answers)
    if chosen is None:
        return (*nothing, "no structure", why or missing_reason(name, asked.synonyms.of(name)), "")
    others = dict.fromkeys(f"{a.table}: {a.drug_id}" for a in disagreeing(chosen, answers))
    found = (chosen.drug_id, chosen.inchikey, chosen.smiles, chosen.table, chosen.route, chosen.matched)
    return (source, name, *found, "structure", "", "; ".join(others))


def disagreeing(chosen: Answer, answers: list[Answer]) -> list[Answer]:
    """Answers to the name itself with another connectivity than the chosen one (stereochemistry is no disagreement)."""
    first = BLOCKS["ignore"]
    return [a for a in answers if a.route in ROUTES[:2] and a.inchikey[:first] != chosen.inchikey[:first]]


def describe_drugs(mapped: pd.DataFrame, targets: Targets | None = None) -> pd.DataFrame:
    """`schemas.DRUGS`: one row an id, with the name most sources use, every source's name, and what the drug does."""
    rows = []
    for drug_id, group in mapped.dropna(subset="drug_id").groupby("drug_id", sort=True):
        # The commonest name; between equals the one with capitals, then alphabetical: `Erlotinib`.
        counts = group["drug_name"].value_counts()
        name = min(counts.index, key=lambda n: (-counts[n], n.islower(), n))
        aliases = "|".join(sorted(group["source"] + ":" + group["drug_name"]))
        # Twins by connectivity may differ in stereochemistry: take one of them by a rule, not by row order.
        rows.append((drug_id, name, min(group["smiles"]), aliases))
    table = pd.DataFrame(rows, columns=["drug_id", "drug_name", "smiles", "names"])
    return table.merge(mechanisms(mapped, targets or Targets()), on="drug_id", validate="one_to_one")
