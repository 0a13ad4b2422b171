"""Helpers of the rules: the checked configuration, digests, and look-ups in plans. No rule lives here."""

import functools
import math
from pathlib import Path

import pandas as pd

from hedflow import HedflowError
from hedflow.bundle import FILES as BUNDLE_FILES
from hedflow.config import parse_config
from hedflow.files import digest
from hedflow.provenance import code_digest
from hedflow.registry import (
    identity_files,
    needed_files,
    read_registry,
    source_files,
    wheel_entry,
)

try:
    CONFIG = parse_config(config)
    REGISTRY = read_registry(CONFIG.data.registry)
    NEEDED = needed_files(CONFIG.data, REGISTRY)
except HedflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS = CONFIG.results
EXPERIMENTS = list(CONFIG.experiments)
# A rule with N inputs costs Snakemake O(N^2): runs are gathered in chunks.
CHUNK = 200


wildcard_constraints:
    dataset=r"[A-Za-z0-9]+",
    file=r"[^/]+",
    experiment="|".join(EXPERIMENTS),
    run=r"[A-Za-z0-9._~-]+",
    chunk=r"\d+",


def raw(keys):
    """Paths of registry files below results/raw."""
    return [f"{RESULTS}/raw/{key}" for key in keys]


@functools.lru_cache
def read_plan(path, mtime_ns):
    """A plan by run, read once for each version of the file: asked for by every job of a sweep."""
    return pd.read_parquet(path).set_index("run")


def plan_of(experiment):
    """The plan of an experiment, once its checkpoint has run."""
    path = checkpoints.plan.get(experiment=experiment).output[0]
    return read_plan(path, Path(path).stat().st_mtime_ns)


def plan_row(wildcards):
    """A run's row of the plan."""
    return plan_of(wildcards.experiment).loc[wildcards.run]


def chunk_runs(wildcards):
    """The runs of one chunk."""
    first = int(wildcards.chunk) * CHUNK
    return list(plan_of(wildcards.experiment).index[first : first + CHUNK])


def chunks(wildcards):
    """The chunks of an experiment's runs."""
    return range(math.ceil(len(plan_of(wildcards.experiment)) / CHUNK))
