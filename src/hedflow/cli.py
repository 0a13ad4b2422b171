"""The command `hedflow`: small tools around the workflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from hedflow import HedflowError, __version__

# Runs that `hedflow plan` lists, half of them from either end.
RUNS_SHOWN = 20


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; a problem the user can mend is one sentence on stderr and exit status 1."""
    parser = argparse.ArgumentParser(prog="hedflow", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(function=function)
        if name == "identity":
            command.add_argument("name", help="a cell line or drug as a source spells it, or an id")
        if name == "check-model":
            command.add_argument("name", help="a name from `models`, or a kind of model with its default settings")
            command.add_argument("--bundle", help="folder of the bundle to try it on (a small simulated one)")
        if name in ("check", "check-model", "plan", "identity", "export-improve", "upf"):
            command.add_argument("--config", default="config.yaml", help="the configuration (config.yaml)")
        if name == "plan":
            command.add_argument("--all", action="store_true", help="list every run, however many they are")
            command.add_argument("--cores", type=int, help="cores to train on (all that this process may use)")
        if name == "config":
            command.add_argument("--root", default=".", help="the project's folder")
        if name == "table":
            command.add_argument("experiment", help="a name from `experiments` that has been run")
            command.add_argument("--source", default="all", help="score only this source's rows (all)")
            command.add_argument("--lists", help="source whose drugs are ranked (the one with the most ranked lines)")
        if name in ("summary", "table"):
            command.add_argument("--results", help="the results folder (what config.yaml says)")
        if name == "published-curves":
            command.add_argument("mirror", help="folder with the screens' files (data.mirror)")
        if name == "export-improve":
            command.add_argument("experiment", help="whose splits are written; a name from `experiments`")
            command.add_argument("--out", required=True, help="folder to write, for example csa_data")
            command.add_argument("--genes", help="table of gene ids: Gene_Symbol (or Symbol) and Entrez, Ensembl")
            command.add_argument("--mordred", action="store_true", help="drug_mordred.tsv too (needs mordredcommunity)")
        if name == "upf":
            command.add_argument("experiment", help="whose runs are written; a name from `experiments`")
            command.add_argument("--out", required=True, help="file to write, for example runs.upf")
            command.add_argument("--numbered", action="store_true", help="call the runs RUN000, RUN001, ...")
        if name == "simulate":
            command.add_argument("out", help="folder to write")
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--cells", type=int, default=60)
            command.add_argument("--drugs", type=int, default=24)
    given = parser.parse_args(arguments)
    try:
        given.function(given)
    except HedflowError as error:
        print(f"hedflow: {error}", file=sys.stderr)
        return 1
    return 0


def check(given: argparse.Namespace) -> None:
    """Check a configuration and say what it will use."""
    from hedflow.config import load_config
    from hedflow.improve import find_layout
    from hedflow.registry import left_out_files, needed_files, read_registry

    config = load_config(given.config)
    registry = read_registry(config.data.registry)
    files = needed_files(config.data, registry, config.curves)
    if config.data.improve is not None:
        find_layout(config.data.improve)
        print(f"{given.config} is valid: {', '.join(config.data.names) or 'every study'} in {config.data.improve};")
    else:
        print(f"{given.config} is valid: sources {', '.join(config.data.names)}; {len(files)} files;")
    print(f"experiments {', '.join(config.experiments)}.")
    if left := left_out_files(config.data, registry):
        print(f"Found in a mirror only, so drugs they name may be missing: {', '.join(left)}.")


def check_model(given: argparse.Namespace) -> None:
    """Hold a kind of model, your own for example, to the laws that hedflow needs."""
    from hedflow.bundle import open_bundle
    from hedflow.config import load_config
    from hedflow.testing import check_model as check_kind

    models = load_config(given.config).models if Path(given.config).is_file() else {}
    settings = models[given.name].model_dump() if given.name in models else {"kind": given.name}
    bundle = open_bundle(given.bundle) if given.bundle else None
    kept = check_kind(settings.pop("kind"), settings, bundle)
    print("\n".join(f"kept: {law}" for law in kept))


def write_config(given: argparse.Namespace) -> None:
    """Write config.yaml, its schema and its reference page from the models (defaults)."""
    from hedflow.config_docs import write_all

    for path in write_all(Path(given.root)):
        print(path)


def plan(given: argparse.Namespace) -> None:
    """Say which runs each experiment has, and the time, memory and disk they take on this machine."""
    from hedflow.bundle import open_bundle
    from hedflow.config import load_config
    from hedflow.estimate import estimate
    from hedflow.estimate_words import said, together
    from hedflow.machine import this_machine
    from hedflow.plan import likely_plan, summary
    from hedflow.splits import empty_ranges

    config = load_config(given.config)
    bundle = open_bundle(Path(config.results) / "bundle")
    machine = this_machine(given.cores)
    tables, estimates = [], []
    for name, experiment in config.experiments.items():
        table, word = likely_plan(config, name, bundle, config.results)
        estimates.append(estimate(table, config.results, machine, bundle, measuring=True))
        print(said(estimates[-1], summary(table, empty_ranges(experiment.split, bundle)) + word), flush=True)
        tables.append(table[["run", "method", "split", "seed"]])
    if len(estimates) > 1:
        print(together(estimates))
    for table in tables:
        print(_listed(table, given.all))


def _listed(table: pd.DataFrame, every: bool) -> str:
    """The runs of a plan, a line each; of many the first and the last ones."""
    left_out = len(table) - RUNS_SHOWN
    if left_out <= 1 or every:
        return f"\n{table.to_string(index=False)}"
    half = RUNS_SHOWN // 2
    lines = pd.concat([table.head(half), table.tail(half)]).to_string(index=False).splitlines()
    lines.insert(1 + half, f"... {left_out:,} more (--all lists them) ...")
    return "\n".join(["", *lines])


def identity(given: argparse.Namespace) -> None:
    """Say which cell line or drug a name is, and what every route and table answered."""
    from hedflow.config import load_config
    from hedflow.identity.explain import explain

    print(explain(load_config(given.config), given.name))


def export_improve(given: argparse.Namespace) -> None:
    """Write the bundle and an experiment's splits in the layout of IMPROVE's csa data."""
    from hedflow.bundle import open_bundle
    from hedflow.config import load_config, nearest
    from hedflow.high_error import read_drug_errors
    from hedflow.improve.write import Extras, export_experiment
    from hedflow.plan import make_plan

    config = load_config(given.config)
    if given.experiment not in config.experiments:
        raise HedflowError(f"unknown experiment '{given.experiment}'{nearest(given.experiment, config.experiments)}")
    results = Path(config.results)
    bundle = open_bundle(results / "bundle", verify=True)
    earlier = config.experiments[given.experiment].earlier
    tables = results / earlier / "tables" if earlier else None
    plan = make_plan(config, given.experiment, bundle, tables)
    response = results / "integration" / "response.parquet"
    extras = Extras(
        genes=Path(given.genes) if given.genes else None,
        mordred=given.mordred,
        response=response if response.is_file() else None,
        errors=read_drug_errors(tables) if tables else None,
    )
    print(export_experiment(bundle, plan, Path(given.out), extras))


def upf(given: argparse.Namespace) -> None:
    """Write an experiment's runs as an unrolled parameter file (UPF), a JSON object a line."""
    from hedflow.bundle import open_bundle
    from hedflow.config import load_config, nearest
    from hedflow.plan import make_plan
    from hedflow.splits import labels
    from hedflow.upf import write_upf

    config = load_config(given.config)
    if given.experiment not in config.experiments:
        raise HedflowError(f"unknown experiment '{given.experiment}'{nearest(given.experiment, config.experiments)}")
    experiment, results = config.experiments[given.experiment], Path(config.results)
    bundle = open_bundle(results / "bundle")
    tables = results / experiment.earlier / "tables" if experiment.earlier else None
    plan = make_plan(config, given.experiment, bundle, tables)
    write_upf(plan, labels(experiment.split, bundle), given.out, given.numbered)
    print(f"{given.out}: {len(plan)} runs; use it as experiments.<name>.upf.")


def summary(given: argparse.Namespace) -> None:
    """Say where the report is and its most important numbers."""
    from hedflow.config import load_config
    from hedflow.report import headline

    print(headline(given.results or load_config("config.yaml").results))


def table(given: argparse.Namespace) -> None:
    """Print an experiment's results as a Markdown table: R2, MAE, MAE of potent pairs, recall, with intervals."""
    from hedflow.config import load_config
    from hedflow.report.markdown import results_table

    results = Path(given.results or load_config("config.yaml").results)
    print(results_table(results / given.experiment, given.source, given.lists), end="")


def simulate(given: argparse.Namespace) -> None:
    """Write a small simulated world: the five sources' native files, with known truth."""
    from hedflow.simulate import simulate_world

    simulate_world(Path(given.out), seed=given.seed, n_cells=given.cells, n_drugs=given.drugs)
    print(f"{given.out}: set data.mirror to it, and data.registry to {Path(given.out) / 'datasets.csv'}")


def published_curves(given: argparse.Namespace) -> None:
    """Compare fitted curves with what the screens published of the same ones: the table of docs/curves.md."""
    from hedflow.curves.published import as_markdown, compare

    print(as_markdown(compare(given.mirror)))


COMMANDS = {
    "check": check,
    "check-model": check_model,
    "config": write_config,
    "plan": plan,
    "published-curves": published_curves,
    "identity": identity,
    "summary": summary,
    "table": table,
    "simulate": simulate,
    "export-improve": export_improve,
    "upf": upf,
}

if __name__ == "__main__":
    sys.exit(main())
