"""What drugs do: their targets in the sources' own words, and one mechanism for each, by a rule.

GDSC's table of compounds names a target and its pathway (`EGFR`, `EGFR signaling`), CTRPv2's the target's genes
(`EGFR;ERBB2`), CCLE's responses a target. Only GDSC has classes, so the mechanism is its pathway:

1. in release 8.4, under any source's name of the drug, else under a synonym that GDSC lists; of several pathways (a
   compound screened twice) the first that is more than `Other`, `Other, kinases` or `Unclassified`;
2. else, for a drug whose genes CTRPv2 names: the pathway of the drugs with the very same genes, where rule 1 gives
   all of them one and the same.

A drug that no rule reaches has the mechanism `unknown`. The wheel-only edition and a csa folder have no such tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hedflow import UNKNOWN
from hedflow.identity.synonyms import SCREENED, normalise, split_synonyms
from hedflow.sources.tables import read_table

COLUMNS = ("drug_id", "target", "mechanism", "mechanism_from")
FROM_SCREENED, FROM_GENES = "GDSC release 8.4", "same genes in CTRPv2"
VAGUE = ("Other", "Other, kinases", "Unclassified", "")
CTRP_FILE, CCLE_FILE = "compound_info.csv", "CCLE_NP24.2009_Drug_data_2015.02.24.csv"
MISSING = ("", "NA")


@dataclass(frozen=True)
class Targets:
    """What the sources' tables say; keys are normalised names.

    Attributes:
        gdsc: name -> (target, pathway) of its rows, in the table's order.
        synonyms: synonym -> names in `gdsc`.
        words: source -> name -> its word for the target.
    """

    gdsc: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    synonyms: dict[str, list[str]] = field(default_factory=dict)
    words: dict[str, dict[str, str]] = field(default_factory=dict)


def read_targets(sources: Mapping[str, Sequence[Path]], identity: Sequence[Path]) -> Targets:
    """The targets in the sources' response files and in GDSC's table among the `identity` files."""
    rows, back = defaultdict(list), defaultdict(list)
    for path in identity:
        if path.name == SCREENED:
            table = read_table(path, ["DRUG_NAME", "SYNONYMS", "TARGET", "TARGET_PATHWAY"]).fillna("")
            for name, listed, target, pathway in table.itertuples(index=False):
                rows[normalise(name)].append((target.strip(), pathway.strip()))
                for synonym in split_synonyms(listed):
                    back[normalise(synonym)].append(normalise(name))
    words: dict[str, dict[str, str]] = {}
    for source, file, name, target in (
        ("CTRPv2", CTRP_FILE, "cpd_name", "gene_symbol_of_protein_target"),
        ("CCLE", CCLE_FILE, "Compound", "Target"),
    ):
        for path in sources.get(source, ()):
            if path.name == file:
                table = read_table(path, [name], optional=[target]).fillna("").drop_duplicates()
                if target in table:
                    words[source] = {normalise(n): t for n, t in zip(table[name], table[target], strict=True)}
    return Targets(dict(rows), dict(back), words)


def mechanisms(mapped: pd.DataFrame, targets: Targets) -> pd.DataFrame:
    """Targets and mechanism of every drug.

    Args:
        mapped: drug_id and every source's drug_name of it (`identity.drugs.map_drugs`).

    Returns:
        drug_id, target (`GDSC:EGFR|CTRPv2:EGFR;ERBB2|CCLE:EGFR`, each source's own words; empty where none says),
        mechanism (a pathway in GDSC's words, or `unknown`), mechanism_from (which rule found it; empty for none).
    """
    names: dict[str, list[str]] = defaultdict(list)
    known = mapped.dropna(subset="drug_id").sort_values(["source", "drug_name"])
    for drug_id, name in zip(known["drug_id"], known["drug_name"], strict=True):
        names[drug_id].append(normalise(name))
    rows, genes = {}, {}
    for drug_id, own in sorted(names.items()):
        target, pathway, where = _gdsc(own, targets)
        words = {"GDSC": target, **{source: _word(own, table) for source, table in targets.words.items()}}
        said = "|".join(f"{source}:{word}" for source, word in words.items() if word not in MISSING)
        rows[drug_id] = [said, pathway, where]
        gene = words.get("CTRPv2", "")
        genes[drug_id] = frozenset(gene.split(";")) if gene not in MISSING else frozenset()
    _by_genes(rows, genes)
    return pd.DataFrame([(drug_id, *row) for drug_id, row in rows.items()], columns=list(COLUMNS))


def _word(names: Iterable[str], table: Mapping[str, str]) -> str:
    return next((table[name] for name in names if table.get(name, "") not in MISSING), "")


def _gdsc(names: Sequence[str], targets: Targets) -> tuple[str, str, str]:
    """Target, pathway and rule of a drug in GDSC's words; empty ones where GDSC does not know it."""
    called = [name for name in names if name in targets.gdsc]
    called = called or [name for one in names for name in targets.synonyms.get(one, ())]
    rows = [row for name in dict.fromkeys(called) for row in targets.gdsc[name]]
    if not rows:
        return "", UNKNOWN, ""
    target, pathway = next((row for row in rows if row[1] not in VAGUE), rows[0])
    return target, pathway or UNKNOWN, FROM_SCREENED if pathway else ""


def _by_genes(rows: dict[str, list[str]], genes: dict[str, frozenset[str]]) -> None:
    """Rule 2, in place."""
    pathways: dict[frozenset[str], set[str]] = defaultdict(set)
    for drug_id, (_, pathway, _) in rows.items():
        if genes[drug_id] and pathway != UNKNOWN:
            pathways[genes[drug_id]].add(pathway)
    for drug_id, row in rows.items():
        found = pathways.get(genes[drug_id], set())
        if row[1] == UNKNOWN and len(found) == 1:
            row[1:] = [*found, FROM_GENES]
