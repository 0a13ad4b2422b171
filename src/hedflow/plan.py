"""The plan: an experiment's runs, one row each, with everything a run needs to know written out.

A run's name says what it is (`uno_small.mae_poly-2.drug_blind-f0.s0`) and does not depend on its place in the
list: adding a loss or a seed leaves the other runs, and their results, as they are. Lines of a UPF file keep
the ids they have there.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from hedflow import HedflowError
from hedflow.baselines import BASELINES
from hedflow.bundle import Bundle
from hedflow.config import Config, Experiment, Loss, Split, Training, nearest
from hedflow.files import digest, sha256
from hedflow.high_error import TABLES as EARLIER_TABLES
from hedflow.high_error import high_error_drugs, read_drug_errors, with_high_error_drugs
from hedflow.models import Kind, code_digest_of, find
from hedflow.models.settings import KindSettings
from hedflow.splits import find_drugs, labels
from hedflow.upf import ALIASES, TRANSLATED, Line, read_upf

# The attribute of a plan's table that says what it was made from.
MADE_FROM = "made_from"
# Settings that change how, and how fast, a result comes, not what is asked for.
HOW = ("threads", "device", "compile", "deterministic", "runs_per_job", "checkpoints")
# An estimator has a loss of its own, and of `training` only this much decides what it learns.
OWN_LOSS = "own"
ESTIMATOR_KEYS = ("align", "monitor")
# Share of the drugs that lie 2 SD above the mean, about: as many stand for high error drugs that are not known yet.
STAND_INS = 0.03
UPF_KEYS = ("id", "index", "drug", "fold", "model", "loss", "alpha", "weigh", "seed", "raw_max_lr")
Settings = TypeVar("Settings", bound=BaseModel)


def make_plan(config: Config, experiment: str, bundle: Bundle, earlier: str | Path | None = None) -> pd.DataFrame:
    """The runs of an experiment.

    Args:
        earlier: folder with the tables of the experiment whose high error drugs are held out or weighed.

    Returns:
        One row a run: run, experiment, method (what is compared: the loss, with the model where there are
        several; the model where it has a loss of its own; and `weigh-5` where high error drugs count five times),
        split (`kind-label`), split_kind, label, model, loss (`mae_poly-2`, or `own`), loss_name, alpha, seed, factor
        (1 where all rows count alike), reference (whether this loss is what others are compared with), ignored (keys
        of a UPF line that mean nothing here), spec (JSON: all that training reads), digest (of the spec, the bundle
        and the code of training and of the model: the run is repeated when it changes, and for no other reason).
    """
    drugs: list[str] = []
    if config.experiments[experiment].earlier:
        drugs = high_error_drugs(config, experiment, read_drug_errors(earlier or ""))
    return _planned(config, experiment, bundle, drugs)


def likely_plan(config: Config, experiment: str, bundle: Bundle, results: str | Path) -> tuple[pd.DataFrame, str]:
    """The plan, for a look at it; where its high error drugs are not known yet, one with stand-ins, and a word on that.

    Args:
        results: folder of the experiments.
    """
    earlier = config.experiments[experiment].earlier
    tables = Path(results) / earlier / "tables" if earlier else None
    if tables is None or any((tables / name).is_file() for name in EARLIER_TABLES):
        return make_plan(config, experiment, bundle, tables), ""
    some = list(bundle.drugs["drug_id"][: max(1, round(STAND_INS * len(bundle.drugs)))])
    word = f"; which drugs is known when '{earlier}' has run, here {len(some)} stand for them"
    return _planned(config, experiment, bundle, some), word


def _planned(config: Config, experiment: str, bundle: Bundle, drugs: list[str]) -> pd.DataFrame:
    """The plan with these high error drugs (ids)."""
    if config.experiments[experiment].split.kind == "high_error":
        config = with_high_error_drugs(config, experiment, drugs)
    wanted = config.experiments[experiment]
    runs = _from_upf(config, experiment, bundle) if wanted.upf else _from_axes(config, experiment, bundle)
    if not runs:
        raise HedflowError(
            f"experiment '{experiment}': no drug's mean AUC lies in any of its split's `ranges`; widen them."
        )
    table = pd.DataFrame([_row(experiment, bundle, wanted.split, drugs, **run) for run in runs])
    table = table.assign(method=_methods(table)).drop(columns="recipe")
    _check_same_parts(experiment, table)
    twice = table["run"][table["run"].duplicated()]
    if len(twice):
        raise HedflowError(f"experiment '{experiment}': two runs are called {twice.iloc[0]}; expected distinct ids.")
    return table


def made_from(asked: Sequence[Any], bundle: Bundle, files: Iterable[str | Path] = ()) -> str:
    """What a plan was made from, kept with it: a dry run then knows whether it is still the configuration's plan.

    Args:
        asked: parameters of the rule `plan`: settings and code.
        files: `plan_files`; what is in them counts. One that is not there makes a plan no current one.
    """
    contents = [sha256(path) if Path(path).is_file() else None for path in files]
    return digest(list(asked), bundle.digest, contents)[:16]


def plan_files(config: Config, experiment: str, earlier: str | Path | None) -> list[Path]:
    """Files that a plan is made from besides bundle and configuration: a UPF file, its defaults, earlier tables.

    Args:
        earlier: folder with the tables of the experiment whose high error drugs are asked for, if it asks.
    """
    wanted = config.experiments[experiment]
    tables = [Path(earlier) / name for name in EARLIER_TABLES] if wanted.earlier and earlier else []
    return [*(Path(path) for path in (wanted.upf, wanted.defaults) if path), *tables]


def _check_same_parts(experiment: str, table: pd.DataFrame) -> None:
    """Methods are compared on the same test rows: each must be tried on the same parts of the split."""
    parts = {str(name): set(rows["split"]) for name, rows in table.groupby("method", sort=False)}
    (first, wanted), *others = parts.items()
    for name, found in others:
        if found != wanted:
            odd = sorted(found ^ wanted)[0]
            raise HedflowError(
                f"experiment '{experiment}': {first} and {name} are tried on different parts of the split ({odd} by "
                "one of them only) and could not be compared; give both the same parts, or an experiment each."
            )


def _methods(table: pd.DataFrame) -> list[str]:
    """A short distinct name for each recipe (model, loss, alpha, training settings); a UPF file may vary any."""
    several = len(set(table["model"])) > 1
    names: dict[str, str] = {}
    for row in table.itertuples():
        if row.recipe not in names:
            own = row.loss == OWN_LOSS
            loss, model = None if own else row.loss, row.model if several or own else None
            name = _dotted(model, loss, weigh_label(float(str(row.factor))))
            # A naive baseline of the same name is in every comparison already.
            others = [*names.values(), *BASELINES]
            taken = sum(other == name or other.startswith(f"{name}~") for other in others)
            names[str(row.recipe)] = f"{name}~{taken + 1}" if taken else name
    return [names[str(recipe)] for recipe in table["recipe"]]


def loss_label(name: str, alpha: float | None) -> str:
    """`mse`, `mae_poly-2`, `mae_exp-0.5`."""
    return name if alpha is None else f"{name}-{alpha:g}"


def weigh_label(factor: float) -> str | None:
    """`weigh-5`; None where all rows count alike."""
    return None if factor == 1 else f"weigh-{factor:g}"


def _dotted(*parts: Any) -> str:
    return ".".join(str(part) for part in parts if part is not None)


def factors_of(experiment: Experiment, kind: Kind) -> tuple[float, ...]:
    """How many times the training rows of high error drugs count, 1 first; 1 alone if the model cannot weigh rows."""
    return experiment.weigh.all_factors if experiment.weigh is not None and kind.weighs else (1.0,)


def _axes(losses: list[Loss]) -> list[tuple[str, float | None]]:
    return [(loss.name, alpha) for loss in losses for alpha in (tuple(loss.alpha) or (None,))]


def _from_axes(config: Config, experiment: str, bundle: Bundle) -> list[dict[str, Any]]:
    wanted = config.experiments[experiment]
    training = config.training_of(experiment)
    parts = labels(wanted.split, bundle)
    first = _axes(wanted.losses)[0]
    runs = []
    for model in wanted.models:
        kind = find(config.models[model].kind)
        losses = _axes(wanted.losses) if kind.losses else [(OWN_LOSS, None)]
        # One run serves all seeds of a kind that has no use for one.
        seeds = wanted.seeds if kind.seeded else [0]
        for (loss, alpha), factor, label, seed in itertools.product(losses, factors_of(wanted, kind), parts, seeds):
            leads = (loss, alpha) == first if kind.losses else model == wanted.models[0]
            runs.append(
                {
                    "run": None,
                    "label": label,
                    "model": model,
                    "settings": config.models[model],
                    "loss": loss,
                    "alpha": alpha,
                    "factor": factor,
                    "seed": seed,
                    "training": training,
                    "reference": factor == 1 and leads,
                    "ignored": "",
                }
            )
    return runs


def _row(
    experiment: str,
    bundle: Bundle,
    split: Split,
    weighed: list[str],
    *,
    run: str | None,
    label: str,
    model: str,
    settings: KindSettings,
    loss: str,
    alpha: float | None,
    factor: float,
    seed: int,
    training: Training,
    reference: bool,
    ignored: str,
) -> dict[str, Any]:
    shown = loss_label(loss, alpha)
    # What only chooses among a split's parts is no part of a run: one fold more trains no other fold again.
    deciding = split.deciding()
    spec = {
        "split": deciding,
        "label": label,
        "model": settings.model_dump(),
        "loss": loss,
        "alpha": alpha,
        "weights": None if factor == 1 else {"drugs": weighed, "factor": float(factor)},
        "seed": seed,
        "training": training.model_dump(),
    }
    # Of an earlier experiment only the drugs that it found count.
    asked = {
        **spec,
        "split": {key: value for key, value in deciding.items() if key not in ("experiment", "high_error_z")},
        "training": _deciding(settings, training),
    }
    part = label if split.kind == "drug_lists" else f"{split.kind}-{label}"
    return {
        "run": run or _dotted(model, shown, weigh_label(factor), part, f"s{seed}"),
        "experiment": experiment,
        "split": part,
        "split_kind": split.kind,
        "label": label,
        "model": model,
        "loss": shown,
        "loss_name": loss,
        "alpha": np.nan if alpha is None else float(alpha),
        "seed": seed,
        "factor": float(factor),
        "reference": reference,
        "recipe": digest({k: v for k, v in asked.items() if k not in ("split", "label", "seed")}, model)[:16],
        "threads": training.threads,
        "ignored": ignored,
        "spec": json.dumps(spec, sort_keys=True),
        "digest": digest(asked, bundle.digest, code_digest_of(settings, losses=[loss]))[:16],
    }


def _deciding(settings: KindSettings, training: Training) -> dict[str, Any]:
    """The training settings that decide what is learnt."""
    if not find(settings.kind).network:
        return training.model_dump(include=set(ESTIMATOR_KEYS))
    rollback = training.checkpoints.rollback
    return training.model_dump(exclude=set(HOW)) | ({"rollback": rollback} if rollback else {})


def _from_upf(config: Config, experiment: str, bundle: Bundle) -> list[dict[str, Any]]:
    """Runs of an unrolled parameter file: a JSON object a line over the defaults, over the experiment's axes."""
    wanted = config.experiments[experiment]
    parts, training = labels(wanted.split, bundle), config.training_of(experiment)
    lines = read_upf(wanted.upf or "", wanted.defaults, experiment)
    return [
        _upf_run(config, wanted, training, line) | {"label": _upf_label(wanted.split.kind, parts, bundle, line)}
        for line in lines
    ]


def _upf_run(config: Config, wanted: Experiment, training: Training, line: Line) -> dict[str, Any]:
    """What a line asks for, but for the part of the split."""
    given, where = line.given, line.where
    model = str(given.get("model", wanted.models[0]))
    if model not in config.models:
        raise HedflowError(f"{where}: unknown model '{model}'{nearest(model, config.models)}")
    of_model = [key for key in type(config.models[model]).model_fields if key != "kind"]
    valid = [*UPF_KEYS, *Training.model_fields, *of_model]
    for key in given:
        if key not in valid:
            raise HedflowError(f"{where}: unknown key '{key}'{nearest(key, [*valid, *ALIASES, *TRANSLATED])}")
    first, first_alpha = _axes(wanted.losses)[0]
    kind = find(config.models[model].kind)
    loss = str(given.get("loss", first))
    alpha = given.get("alpha", first_alpha if loss == first else None)
    seed, factor = given.get("seed", wanted.seeds[0] if kind.seeded else 0), given.get("weigh", 1.0)
    if type(seed) is not int or seed < 0:
        raise HedflowError(f"{where}: seed {seed!r}, expected a whole number from 0.")
    if factor not in factors_of(wanted, kind):
        allowed = ", ".join(f"{one:g}" for one in factors_of(wanted, kind))
        raise HedflowError(f"{where}: weigh {factor!r}, expected {allowed} (the experiment's `weigh`, for {model}).")
    try:
        Loss(name=loss, alpha=[] if alpha is None else [alpha])
        training = _changed(training, given, Training.model_fields)
        if given.get("raw_max_lr") is not None:  # a rate for each row of a batch
            rate = _changed(training, {"learning_rate": given["raw_max_lr"]}, ["learning_rate"]).learning_rate or 0
            training = training.model_copy(update={"learning_rate": rate * training.batch_size})
        settings = _changed(config.models[model], given, of_model)
    except ValidationError as error:
        problem = error.errors()[0]
        said = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
        raise HedflowError(f"{where}: '{problem['loc'][0] if problem['loc'] else loss}': {said}.") from None
    alpha = None if alpha is None else float(alpha)
    reference = (loss, alpha) == (first, first_alpha)
    if not kind.losses:  # the file's loss is for the lines of networks
        loss, alpha, reference = OWN_LOSS, None, model == wanted.models[0]
    return {
        "run": str(given["id"]),
        "model": model,
        "settings": settings,
        "loss": loss,
        "alpha": alpha,
        "factor": float(factor),
        "seed": seed,
        "training": training,
        "reference": reference and factor == 1,
        "ignored": ", ".join(line.ignored),
    }


def _changed(settings: Settings, given: dict[str, Any], keys: Iterable[str]) -> Settings:
    """The settings with what is given of these keys, checked."""
    return type(settings)(**{**settings.model_dump(), **{key: given[key] for key in keys if key in given}})


def _upf_label(kind: str, parts: list[str], bundle: Bundle, line: Line) -> str:
    """The part of the split that a line asks for, by `drug`, by `fold`, or by `index`, its place among the parts."""
    given, where = line.given, line.where
    if "drug" in given:
        if given["drug"] in parts:
            return str(given["drug"])
        if kind != "leave_one_drug_out":
            raise HedflowError(f"{where}: 'drug' goes with a leave_one_drug_out split, and this one is {kind}.")
        try:
            return str(bundle.drugs["drug_id"].iloc[find_drugs(bundle.drugs, [str(given["drug"])])[0]])
        except HedflowError as error:
            raise HedflowError(f"{where}: {error}") from None
    if "fold" in given:
        label = f"f{given['fold']}"
        if label not in parts:
            raise HedflowError(f"{where}: the {kind} split has no fold {given['fold']!r}{nearest(label, parts)}")
        return label
    if "index" not in given and len(parts) > 1:
        raise HedflowError(
            f"{where}: which of the {len(parts)} parts of the {kind} split? Give `index`, `fold` or `drug`."
        )
    index = given.get("index", 0)
    if type(index) is not int or not 0 <= index < len(parts):
        raise HedflowError(f"{where}: index {index!r}, expected a whole number from 0 to {len(parts) - 1}.")
    return parts[index]


def parts_of(plan: pd.DataFrame) -> list[tuple[str, Split]]:
    """The distinct (label, split) that a plan's runs use."""
    specs = [json.loads(spec) for spec in plan.drop_duplicates("split")["spec"]]
    return [(spec["label"], Split(**spec["split"])) for spec in specs]


def summary(plan: pd.DataFrame, empty: Sequence[str] = ()) -> str:
    """A line for people: runs, splits, losses, models; and the AUC ranges `empty` of drugs, which have no run."""
    parts = {name: plan[name].nunique() for name in ("method", "split", "seed")}
    said = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in parts.items())
    without = f"; no drug's mean AUC lies in {', '.join(empty)}: no run for that" if empty else ""
    unused = sorted({key for keys in plan["ignored"].unique() for key in keys.split(", ") if key})
    without += f"; {len(unused)} keys of the UPF mean nothing here: {', '.join(unused)}" if unused else ""
    return f"{len(plan)} runs ({said}){without}"
