"""Unrolled parameter files (UPF) as the reference system has them: a JSON object a line, over a file of defaults.

A name of the reference's that has one clear meaning here is translated (`ALIASES`), a value that is what hedflow does
anyway is accepted (`FIXED`), and a key that says where things are kept or how a run is watched is left out and counted
(`IGNORED`). Anything else is the plan's to know, or to refuse. docs/howto.md has the table for users.

Sources: ECP-CANDLE/Supervisor (workflows/upf, common/python/model_runner.py), ECP-CANDLE/candle_lib
(parsing_utils.py), JDACS4C-IMPROVE/Scratch (hed/), JDACS4C-IMPROVE/UNO and its fork by J. Wozniak (params.py,
uno_default_model.txt), ECP-CANDLE/Benchmarks (Pilot1/Uno).
"""

from __future__ import annotations

import ast
import configparser
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hedflow import HedflowError
from hedflow.files import read_json, write_text
from hedflow.loss_kinds import loss_kinds

# What a run's folder may be called (rules/common.smk).
RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*")

# The reference's name -> ours.
ALIASES = {
    "rng_seed": "seed",
    "drop": "dropout",
    "early_stopping_patience": "patience",
    "reduce_lr_patience": "plateau_patience",
    "reduce_lr_factor": "plateau_factor",
    "use_landmark_genes": "gene_set",
    "use_lincs": "gene_set",
}
# Keys whose value is made into ours once line and defaults are merged.
TRANSLATED = ("custom_loss_module", "raw_max_lr", "dense", "dense_feature_layers", "model_name")
LOSSES = {
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "mae_poly_loss": "mae_poly",
    "logcosh": "log_cosh",
    "log_cosh_loss": "log_cosh",
}
VIEWS = {"rnaseq": "expression"}
# What hedflow does anyway: another value is another experiment.
FIXED: dict[str, tuple[Any, ...]] = {
    "activation": ("relu",),
    "optimizer": ("adam",),
    "regression_activation": ("sigmoid",),
    "out_activation": ("sigmoid",),
    "warmup_type": ("linear",),
    "scaling": ("std",),
    "ge_scaling": ("std",),
    "md_scaling": ("std",),
    "agg_dose": ("auc",),
    "y_col_name": ("auc",),
    "batch_normalization": (False,),
    "early_stop": (True,),
    "reduce_lr": (True,),
    "warmup_lr": (True,),
    "clr_flag": (False, None, ""),
    "residual": (False,),
    "train_bool": (True,),
    "train_subset_data": (False,),
    "preprocess_subset_data": (False,),
    "feature_subsample": (0,),
    "hyperparam_space": ("global",),
    # Another set of data
    "by_cell": (None, ""),
    "by_drug": (None, ""),
    "cell_types": (None, ""),
    "cell_subset_path": (None, ""),
    "drug_subset_path": (None, ""),
    "feature_subset_path": (None, ""),
    "cell_feature_subset_path": (None, ""),
    "drug_feature_subset_path": (None, ""),
    "drug_median_response_min": (-1,),
    "drug_median_response_max": (1,),
    "use_filtered_genes": (False,),
    "growth_bins": (0,),
    "initial_weights": (None, ""),
}
# Where things are kept, how a run is watched, and what hedflow's configuration decides (data, split, validation).
IGNORED = (
    "base_lr", "cache", "calc_infer_score", "calc_infer_scores", "candle_image", "config_file", "cp", "cuda_name",
    "cv", "data_dir", "data_format", "data_type", "data_url", "early_stop_metric", "eval_bool",
    "experiment_id", "export_csv", "export_data", "framework", "generator_batch_size", "gpus", "home_dir",
    "infer_batch", "infer_outdir", "instance_directory", "lincs_genes_file", "logfile", "max_val_loss",
    "metric_type", "metrics", "mixed_precision", "ml_data_outdir", "model_dir", "model_file_format", "model_file_name",
    "model_outdir", "no_feature_source", "no_gen", "no_response_source", "output_dir", "partition_by",
    "post_module", "pre_module", "preprocess_debug", "preprocess_rnaseq", "profiling", "run_id",
    "save", "save_path", "save_weights", "shuffle", "single", "solr_root", "tb", "tb_prefix", "test_data",
    "test_ml_data_dir", "test_sources", "test_split_file", "timeout", "train_data", "train_debug",
    "train_ml_data_dir", "train_sources", "train_split_file", "use_exported_data", "val_data", "val_ml_data_dir",
    "val_split", "val_split_file", "validation_split", "verbose", "x_data_canc_files",
    "x_data_drug_files", "y_data_files",
)  # fmt: skip
IGNORED_PREFIXES = ("ckpt_", "clr_", "input_dir", "perf_")
# Architectures by block and by layer in IMPROVE's file: unused, as there, while hyperparam_space is global.
UNUSED_LAYERS = re.compile(r"(canc|drug|interaction)_(arch|activation|dropout|num_layers|layer_\d_\w+)")


@dataclass(frozen=True)
class Line:
    """One run: where it stands (for errors), its keys in hedflow's names, and the names that mean nothing here."""

    where: str
    given: dict[str, Any]
    ignored: tuple[str, ...]


def read_upf(path: str | Path, defaults: str | Path | None, experiment: str) -> Iterator[Line]:
    """The lines of a UPF file over its defaults; blank lines and `#` comments are passed over.

    Raises:
        HedflowError: no such file, a line that is no JSON object with an `id`, a value that hedflow does otherwise.
    """
    path = Path(path)
    if not path.is_file():
        raise HedflowError(f"experiment '{experiment}': no such UPF file: {path}.")
    shared, by_row = _read_defaults(experiment, Path(defaults)) if defaults else ({}, False)
    found = False
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        found, where = True, f"{path} line {number}"
        try:
            own = json.loads(text)
        except json.JSONDecodeError as error:
            raise HedflowError(f"{where}: expected a JSON object, but {error}.") from None
        if not isinstance(own, dict) or not RUN_ID.fullmatch(str(own.get("id") or "")):
            raise HedflowError(f"{where}: expected a JSON object with an `id` of letters, digits, '.', '_', '~', '-'.")
        yield _translated(where, {**_renamed(shared, by_row), **_renamed(own, by_row)})
    if not found:
        raise HedflowError(f"{path}: expected a JSON object a line, found none.")


def _read_defaults(experiment: str, path: Path) -> tuple[dict[str, Any], bool]:
    """The shared values, and whether a learning rate in them is one a row, as in IMPROVE's Uno."""
    if not path.is_file():
        raise HedflowError(f"experiment '{experiment}': no such file of defaults: {path}.")
    if path.suffix != ".txt":
        defaults = read_json(path)
        if not isinstance(defaults, dict):
            raise HedflowError(f"{path}: expected one JSON object, got {type(defaults).__name__}.")
        return defaults, False
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys as they are written
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except configparser.Error as error:
        raise HedflowError(f"{path}: expected `key = value` lines under [sections], but {error.message}.") from None
    values: dict[str, Any] = {}
    for section in parser.sections():
        for key, text in parser.items(section):
            values.setdefault(key, _literal(text))  # the first of several sections counts, as in CANDLE
    # None is CANDLE's word for "not given"
    return {key: value for key, value in values.items() if value is not None}, parser.has_section("Train")


def _literal(text: str) -> Any:
    """A Python literal, as CANDLE writes its values, else the text as it is, as IMPROVE does."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _renamed(given: dict[str, Any], by_row: bool) -> dict[str, Any]:
    """The keys in our names. With `by_row` a `learning_rate` is multiplied by the batch size, as IMPROVE's Uno does."""
    names = {**ALIASES, "learning_rate": "raw_max_lr"} if by_row else ALIASES
    renamed = {names.get(key, key): value for key, value in given.items()}
    for key in ("use_landmark_genes", "use_lincs"):
        if key in given:
            renamed["gene_set"] = "landmark" if given[key] else "all"
    return renamed


def _translated(where: str, given: dict[str, Any]) -> Line:
    for key, right in FIXED.items():
        value = given.pop(key, right[0])
        if (value.lower() if isinstance(value, str) else value) not in right:
            raise HedflowError(f"{where}: {key} is {value!r}, and hedflow does {right[0]!r} only.")
    ignored = {key for key in given if key in IGNORED or key.startswith(IGNORED_PREFIXES)}
    ignored |= {key for key in given if UNUSED_LAYERS.fullmatch(key)}
    own = {key: value for key, value in given.items() if key not in ignored}
    if custom := own.pop("custom_loss_module", None):
        own["loss"] = custom
    if "loss" in own:
        own["loss"] = LOSSES.get(str(own["loss"]), own["loss"])
    for key in ("cell_features", "drug_features"):
        if key in own:
            listed = own[key] if isinstance(own[key], list) else [own[key]]
            own[key] = [VIEWS.get(str(name), name) for name in listed]
    if isinstance(own.get("seed"), float) and own["seed"].is_integer():  # CANDLE's rng_seed is a float
        own["seed"] = int(own["seed"])
    if (name := own.pop("model_name", None)) is not None and str(name).lower() not in ("uno", "unorun"):
        own["model"] = name
    own |= _layers(where, own.pop("dense", None), own.pop("dense_feature_layers", None))
    return Line(where, own, tuple(sorted(ignored)))


def _layers(where: str, head: Any, towers: Any) -> dict[str, int]:
    """CANDLE's lists of layer widths as width and depths."""
    made: dict[str, int] = {}
    for key, given in (("head_depth", head), ("tower_depth", towers)):
        if given is None:
            continue
        listed = given.split() if isinstance(given, str) else given if isinstance(given, list) else [given]
        widths = {str(width) for width in listed} | ({str(made["width"])} if made else set())
        if len(widths) != 1 or not next(iter(widths)).isdecimal():
            raise HedflowError(
                f"{where}: layers of {', '.join(sorted(widths)) or 'no'} units, expected one width for all, a whole "
                "number (dense and dense_feature_layers)."
            )
        made |= {"width": int(widths.pop()), key: len(listed)}
    return made


def write_upf(plan: pd.DataFrame, parts: Sequence[str], path: str | Path, numbered: bool = False) -> None:
    """Write a plan's runs as a UPF file; the same experiment with it as `upf` has the same runs.

    Args:
        parts: the split's parts, `splits.labels`.
        numbered: call the runs RUN000, RUN001, ... as the reference does, and not by what they are.
    """
    weighs = (plan["factor"] != 1).any()
    lines = []
    for number, row in enumerate(plan.to_dict("records")):
        line: dict[str, Any] = {"id": f"RUN{number:03d}" if numbered else row["run"]}
        if row["split_kind"] == "leave_one_drug_out":
            line["drug"] = row["label"]
        elif fold := re.fullmatch(r"f(\d+)", row["label"]):
            line["fold"] = int(fold[1])
        else:
            line["index"] = parts.index(row["label"])
        line |= {"model": row["model"], "seed": int(row["seed"])}
        if row["loss_name"] in loss_kinds():  # else the model's own
            line |= {"loss": row["loss_name"], "alpha": None if pd.isna(row["alpha"]) else row["alpha"]}
        lines.append(json.dumps({**line, "weigh": row["factor"]} if weighs else line))
    write_text(path, "\n".join(lines) + "\n")
