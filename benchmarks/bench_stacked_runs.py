"""Many runs trained together in one process, their weights stacked, against one by one.

    python benchmarks/bench_stacked_runs.py [--bundle results/bundle | --mirror ../shared/data] [--runs 2 8 32]

Runs of leave-one-drug-out, each with its own held-out drug and seed; either side trains the same runs in the same
batches, and the sides take turns. What setting up takes is subtracted. With one thread on a CPU, CPU time is what
counts. A line of JSON for each number of runs and batch size: `ratio` is rows/s of all runs, stacked over one by one;
above 1, `training.runs_per_job` pays.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from real_bundle import add_options, rates, ratio, report, the_bundle

from hedflow.bundle import Bundle
from hedflow.config import DEFAULT_MODELS, Model, Split, Training
from hedflow.splits import Rows, labels, make_rows
from hedflow.training.fit import Job, fit_stack
from hedflow.training.inputs import make_inputs


class Runs:
    """Runs of one kind, trained together or one by one."""

    def __init__(self, bundle: Bundle, model: Model, number: int, batch: int, given: argparse.Namespace) -> None:
        self.model, self.batch, self.given, self.jobs = model, batch, given, []
        split = Split(kind="leave_one_drug_out")
        for seed, label in enumerate(labels(split, bundle)[:number]):
            rows = make_rows(split, label, bundle)
            few = Rows(rows.train, rows.validation[:1], rows.test)
            self.jobs.append(Job(label, few, make_inputs(bundle, few, model), None, seed))

    def together(self, rows: int) -> int:
        """About so many rows of all runs, in one stack."""
        fit_stack(self.jobs, self.model, self._training(rows), "mse")
        return self._drawn(rows) * len(self.jobs)

    def one_by_one(self, rows: int) -> int:
        """The same, a run after the other."""
        for job in self.jobs:
            fit_stack([job], self.model, self._training(rows), "mse")
        return self._drawn(rows) * len(self.jobs)

    def _drawn(self, rows: int) -> int:
        """Rows of one run: whole batches."""
        most = min(len(job.rows.train) for job in self.jobs) // self.batch
        return min(max(1, rows // len(self.jobs) // self.batch), most) * self.batch

    def _training(self, rows: int) -> Training:
        return Training(
            epochs=1,
            epoch_rows=self._drawn(rows),
            batch_size=self.batch,
            learning_rate=1e-4,
            warmup_epochs=0,
            threads=self.given.threads,
            device=self.given.device,
        )


def main() -> None:
    """Print a line for each number of runs and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--model", default="uno_small", choices=list(DEFAULT_MODELS), help="uno: IMPROVE's, width 1000")
    parser.add_argument("--runs", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 4096])
    given = parser.parse_args()
    with the_bundle(given) as bundle:
        for number in given.runs:
            for batch in given.batches:
                runs = Runs(bundle, DEFAULT_MODELS[given.model], number, batch, given)
                sides = {"together": runs.together, "one_by_one": runs.one_by_one}
                found = rates(sides, number * batch, given)
                report(
                    benchmark="stacked_runs",
                    model=given.model,
                    runs=number,
                    batch=batch,
                    device=torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
                    threads=given.threads,
                    **{f"{name}_rows_per_second": round(statistics.median(values)) for name, values in found.items()},
                    ratio=ratio(found, "together", "one_by_one"),
                )


if __name__ == "__main__":
    main()
