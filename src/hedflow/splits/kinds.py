"""How each kind of split divides the rows: boolean masks over the bundle's response."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from hedflow import UNKNOWN, HedflowError
from hedflow.bundle import Bundle
from hedflow.config import IMPROVE_SPLITS, Split, nearest
from hedflow.splits.groups import cluster_groups, scaffold_groups, twin_groups

# Test, validation, and train: True where a row of the response is in it. A row may be in none.
Masks = tuple[np.ndarray, np.ndarray, np.ndarray]


def labels(split: Split, bundle: Bundle) -> list[str]:
    """The names of a split's parts, one a run.

    `f0`... for folds, a drug's id for leave-one-drug-out, a source's name, `auc0.3-0.4` for ranges that have
    drugs, `CCLE_split_0` for IMPROVE's, else the one part's name: `lists`, `high`.
    """
    if split.kind in IMPROVE_SPLITS:
        return _improve_labels(split, bundle)
    if split.kind == "leave_one_drug_out":
        chosen = None if split.drugs is None else set(find_drugs(bundle.drugs, split.drugs))
        return [id_ for i, id_ in enumerate(bundle.drugs["drug_id"]) if chosen is None or i in chosen]
    if split.kind == "drug_lists":
        return ["lists"]
    if split.kind == "high_error":
        return ["high"]
    if split.kind == "leave_source_out":
        return _sources(split, bundle)
    if split.kind == "auc_range":
        found = range_of_drugs(split, bundle)
        return [name for i, name in enumerate(range_names(split)) if (found == i).any()]
    return [f"f{fold}" for fold in (split.use_folds if split.use_folds is not None else range(split.folds))]


def make_masks(split: Split, label: str, bundle: Bundle) -> Masks:
    """The masks of one part of a split."""
    return _KINDS[split.kind](split, label, bundle)


def _rng(split: Split, *more: int) -> np.random.Generator:
    return np.random.default_rng([split.seed, *split.kind.encode(), *more])


def _rest(test: np.ndarray, validation: np.ndarray) -> Masks:
    return test, validation, ~(test | validation)


def _of_rows(bundle: Bundle, axis: str, values: np.ndarray) -> np.ndarray:
    """What is said of each cell (drug), for each row of the response."""
    found: np.ndarray = values[bundle.response[axis].to_numpy()]
    return found


def _drug_twins(bundle: Bundle) -> np.ndarray:
    """Twin group of each drug."""
    return bundle.once("twins", lambda: twin_groups(bundle.array("fingerprints")))


def _twins(bundle: Bundle) -> np.ndarray:
    """Twin group of each row's drug."""
    return bundle.once("twins of rows", lambda: _of_rows(bundle, "drug", _drug_twins(bundle)))


def _are(unit: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """True where a row's unit (numbers from 0) is one of the chosen ones."""
    flags = np.zeros(max(unit.max(), np.max(chosen, initial=0)) + 1, bool)
    flags[chosen] = True
    found: np.ndarray = flags[unit]
    return found


def _pairs(bundle: Bundle, drug: np.ndarray) -> np.ndarray:
    """A number for each row's (cell, drug) pair, the drugs numbered by `drug`."""
    cell = bundle.response["cell"].to_numpy().astype(np.int64)
    number: np.ndarray = np.unique(cell * len(bundle.drugs) + drug, return_inverse=True)[1].reshape(-1)
    return number


# ---- folds of equally many units


def _equal_folds(split: Split, unit: np.ndarray, label: str, *more: int) -> tuple[np.ndarray, np.ndarray]:
    """Test and validation units of a fold, of folds with equally many units each."""
    order = _rng(split, *more).permutation(np.unique(unit))
    _enough(split, len(order))
    folds = np.array_split(order, split.folds)
    rest = np.concatenate(_others(folds, _fold(label)))
    return folds[_fold(label)], rest[: max(1, round(split.validation * len(rest)))]


def _fold(label: str) -> int:
    return int(label.removeprefix("f"))


def _others(folds: list[np.ndarray], fold: int) -> list[np.ndarray]:
    """The other folds, from the one after the test on: every unit validates about equally often."""
    return [folds[(fold + i) % len(folds)] for i in range(1, len(folds))]


def _enough(split: Split, units: int) -> None:
    if units < split.folds:
        raise HedflowError(f"split {split.kind}: {split.folds} folds of {units} units; use fewer folds.")


def _by_folds(unit_of: Callable[[Bundle], np.ndarray]) -> Callable[[Split, str, Bundle], Masks]:
    def masks(split: Split, label: str, bundle: Bundle) -> Masks:
        unit = unit_of(bundle)
        test, validation = _equal_folds(split, unit, label)
        return _rest(_are(unit, test), _are(unit, validation))

    return masks


def _disjoint(split: Split, label: str, bundle: Bundle) -> Masks:
    """Fold i of the drugs with fold i of the cells; rows of a held-out drug in a training cell are used nowhere."""
    drug, cell = _twins(bundle), bundle.response["cell"].to_numpy()
    (test_drugs, validation_drugs), (test_cells, validation_cells) = (
        _equal_folds(split, unit, label, axis) for axis, unit in enumerate((drug, cell))
    )
    test = np.isin(drug, test_drugs) & np.isin(cell, test_cells)
    validation = np.isin(drug, validation_drugs) & np.isin(cell, validation_cells)
    held = np.isin(drug, [*test_drugs, *validation_drugs]) | np.isin(cell, [*test_cells, *validation_cells])
    return test, validation, ~held


# ---- folds of about equally many rows: of units that are few or uneven


def balanced_folds(weights: np.ndarray, folds: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Units 0..n-1 in folds of about equal weight, each to the lightest fold, the heavy ones first.

    Units within a factor of two of each other come in the order of `rng`, so that another seed gives other folds.
    """
    shuffled = rng.permutation(len(weights))
    size = np.floor(np.log2(np.maximum(weights[shuffled], 1)))
    found: list[list[int]] = [[] for _ in range(folds)]
    total = np.zeros(folds)
    for unit in shuffled[np.argsort(-size, kind="stable")]:
        lightest = int(np.argmin(total))
        found[lightest].append(int(unit))
        total[lightest] += weights[unit]
    # Else the heaviest unit would be in fold 0 whatever the seed.
    return [np.array(found[fold], dtype=np.int64) for fold in rng.permutation(folds)]


def take_share(order: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """The first of the units `order` that fill `share` of their weight; one too heavy is passed over.

    If all are too heavy, the lightest of them.
    """
    target, total, taken = share * weights[order].sum(), 0.0, []
    for unit in order:
        if total + weights[unit] / 2 <= target:  # it brings the total nearer to the target
            taken.append(unit)
            total += weights[unit]
    return np.array(taken or [order[np.argmin(weights[order])]], dtype=np.int64)


def _by_weight(group_of: Callable[[Split, Bundle], np.ndarray]) -> Callable[[Split, str, Bundle], Masks]:
    """Folds of groups by their rows; a row of group -1 is used nowhere."""

    def masks(split: Split, label: str, bundle: Bundle) -> Masks:
        group = group_of(split, bundle)
        names, unit = np.unique(group[group >= 0], return_inverse=True)
        _enough(split, len(names))
        weights = np.bincount(unit).astype(np.float64)
        folds = balanced_folds(weights, split.folds, _rng(split))
        rest = np.concatenate(_others(folds, _fold(label)))
        test = np.isin(group, names[folds[_fold(label)]])
        validation = np.isin(group, names[take_share(rest, weights, split.validation)])
        return test, validation, ~(test | validation | (group < 0))

    return masks


def _tissue(split: Split, bundle: Bundle) -> np.ndarray:
    """Tissue of each row's cell, numbered; -1 where it is unknown, for it may be any."""
    tissue = bundle.cells["tissue"].to_numpy(dtype=str)
    known = tissue != UNKNOWN
    if not known.any():
        raise HedflowError(
            f"split {split.kind}: no cell line has a tissue: the wheel-only edition and csa folders have no "
            "annotation. Set data.mirror, or data.sources to all you want, or split by cell_blind."
        )
    numbers = np.where(known, np.unique(tissue, return_inverse=True)[1].reshape(-1), -1)
    return _of_rows(bundle, "cell", numbers)


def _scaffold(split: Split, bundle: Bundle) -> np.ndarray:
    groups = bundle.once("scaffolds", lambda: scaffold_groups(bundle.drugs["smiles"], bundle.array("fingerprints")))
    return _of_rows(bundle, "drug", groups)


def _cluster(split: Split, bundle: Bundle) -> np.ndarray:
    threshold = split.similarity
    groups = bundle.once(("clusters", threshold), lambda: cluster_groups(bundle.array("fingerprints"), threshold))
    return _of_rows(bundle, "drug", groups)


# ---- chosen drugs


def _held_out(split: Split, bundle: Bundle, test: np.ndarray) -> Masks:
    """Test: the twin groups `test`. Validation: the same drugs for every part, but for those that are tested."""
    unit = _twins(bundle)
    order = _rng(split).permutation(bundle.once("twins with rows", lambda: np.unique(unit)))
    rest = order[~np.isin(order, test)]
    validation = rest[: max(1, round(split.validation * len(rest)))]
    return _rest(_are(unit, test), _are(unit, validation))


def _one_drug(split: Split, label: str, bundle: Bundle) -> Masks:
    return _held_out(split, bundle, _drug_twins(bundle)[(bundle.drugs["drug_id"] == label).to_numpy()])


def _lists(split: Split, label: str, bundle: Bundle) -> Masks:
    """Listed drugs are taken as listed: a twin left in training is for the audit to find, not to hide."""
    drug = bundle.response["drug"].to_numpy()
    test, validation = (
        np.isin(drug, find_drugs(bundle.drugs, wanted or [])) for wanted in (split.drugs, split.validation_drugs)
    )
    return _rest(test, validation)


def _high_error(split: Split, label: str, bundle: Bundle) -> Masks:
    """The drugs that the plan has looked up in the earlier experiment, with their twins."""
    if not split.drugs:
        raise HedflowError(
            f"split high_error: the high error drugs of '{split.experiment}' are not known; plan it anew."
        )
    return _held_out(split, bundle, _drug_twins(bundle)[find_drugs(bundle.drugs, split.drugs)])


def range_names(split: Split) -> list[str]:
    """`auc0.3-0.4`, one a range."""
    return [f"auc{low:g}-{high:g}" for low, high in zip(split.edges[:-1], split.edges[1:], strict=True)]


def range_of_drugs(split: Split, bundle: Bundle) -> np.ndarray:
    """The range that each drug's mean AUC lies in, shape (drugs,); -1 outside all of them.

    The mean is over all rows of the drug and its twins, whatever their source. As everywhere, ranges compare in
    float32 and are closed below, the last one above too.
    """
    twin = _drug_twins(bundle)
    unit, auc = twin[bundle.response["drug"].to_numpy()], bundle.response["auc"].to_numpy(np.float64)
    mean = (np.bincount(unit, auc) / np.bincount(unit)).astype(np.float32)[twin]
    edges = np.asarray(split.edges, np.float32)
    at = np.searchsorted(edges, mean, side="right") - 1
    at = np.where(mean == edges[-1], len(edges) - 2, at)
    return np.where((at < 0) | (at > len(edges) - 2), -1, at)


def _range(split: Split, label: str, bundle: Bundle) -> Masks:
    twin = _drug_twins(bundle)
    return _held_out(split, bundle, twin[range_of_drugs(split, bundle) == range_names(split).index(label)])


# ---- sources


def _sources(split: Split, bundle: Bundle) -> list[str]:
    has = [str(name) for name in bundle.response["source"].unique()]
    if unknown := [name for name in split.sources or [] if name not in has]:
        raise HedflowError(f"split {split.kind}: the bundle has no source '{unknown[0]}'{nearest(unknown[0], has)}")
    if len(has) < 3:
        raise HedflowError(
            f"split {split.kind}: the bundle has {' and '.join(has)}; one source is tested and another validates, so "
            "there must be three. Add to data.sources, or split by random_pairs."
        )
    return [name for name in has if split.sources is None or name in split.sources]


def _source(split: Split, label: str, bundle: Bundle) -> Masks:
    """Test: a source. Validation: other sources, as many as come nearest to the share of rows.

    With `shared_pairs` = remove a (cell, drug) pair that is tested is neither validated nor trained in another
    source, and one that is validated is not trained.
    """
    names, source = np.unique(bundle.response["source"].to_numpy(dtype=str), return_inverse=True)
    weights = np.bincount(source).astype(np.float64)
    tested = int(np.flatnonzero(names == label)[0])
    order = _rng(split).permutation(len(names))
    test = source == tested
    validation = np.isin(source, take_share(order[order != tested], weights, split.validation))
    train = ~(test | validation)
    if split.shared_pairs == "remove":
        pair = _pairs(bundle, _twins(bundle))
        validation &= ~np.isin(pair, pair[test])
        train &= ~np.isin(pair, pair[test | validation])
    return test, validation, train


# ---- IMPROVE's own split files


def _improve_labels(split: Split, bundle: Bundle) -> list[str]:
    """Names of the csa splits that the bundle has, of the wanted studies and numbers."""
    known = [str(name).rsplit("_", 2) for name in bundle.manifest.get("improve_splits", {})]
    if not known:
        raise HedflowError(
            f"split {split.kind}: the bundle has no split of IMPROVE's; it takes a csa folder (data.improve) with "
            "files like splits/CCLE_split_0_train.txt."
        )
    studies = list(dict.fromkeys(study for study, _, _ in known))
    for study in split.studies or ():
        if study not in studies:
            raise HedflowError(f"split {split.kind}: {study} has no split files{nearest(study, studies)}")
    chosen = []
    for study in split.studies or studies:
        axes = [axis for axis in IMPROVE_SPLITS[split.kind] if any(k[:2] == [study, axis] for k in known)][:1]
        numbers = [int(number) for name, axis, number in known if name == study and [axis] == axes]
        wanted = numbers if split.use_folds is None else split.use_folds
        lacking = sorted(set(wanted) - set(numbers))
        if lacking:
            raise HedflowError(f"split {split.kind}: use_folds has {lacking}, but {study} has the splits {numbers}.")
        chosen += [f"{study}_{axes[0]}_{number}" for number in wanted]
    return chosen


def _improve(split: Split, label: str, bundle: Bundle) -> Masks:
    """The files' rows; a row of the bundle that they do not name is used nowhere."""
    part = bundle.improve_split(label)
    return part == 2, part == 1, part == 0


_KINDS: dict[str, Callable[[Split, str, Bundle], Masks]] = {
    "drug_blind": _by_folds(_twins),
    # The same pair measured by two sources is one pair: else its twin would tell the answer.
    "random_pairs": _by_folds(lambda bundle: _pairs(bundle, bundle.response["drug"].to_numpy())),
    "cell_blind": _by_folds(lambda bundle: bundle.response["cell"].to_numpy().astype(np.int64)),
    "disjoint": _disjoint,
    "tissue_blind": _by_weight(_tissue),
    "scaffold": _by_weight(_scaffold),
    "tanimoto_cluster": _by_weight(_cluster),
    "leave_one_drug_out": _one_drug,
    "drug_lists": _lists,
    "high_error": _high_error,
    "auc_range": _range,
    "leave_source_out": _source,
    **dict.fromkeys(IMPROVE_SPLITS, _improve),
}


def find_drugs(drugs: pd.DataFrame, wanted: Sequence[str]) -> list[int]:
    """Rows of the bundle's drugs, by id, by name, or by any source's name (case does not count).

    Raises:
        HedflowError: a drug that is not there, with the nearest names.
    """
    aliases = [[alias.split(":", 1)[1] for alias in str(names).split("|") if ":" in alias] for names in drugs["names"]]
    known: dict[str, int] = {}
    # A drug's own name counts before what some source calls another drug.
    for column in ([[id_] for id_ in drugs["drug_id"]], [[name] for name in drugs["drug_name"]], aliases):
        for i, names in enumerate(column):
            for name in names:
                known.setdefault(str(name).lower(), i)
    found = []
    for name in wanted:
        if name.lower() not in known:
            raise HedflowError(f"unknown drug '{name}'{nearest(name, drugs['drug_name'])}")
        found.append(known[name.lower()])
    return found
