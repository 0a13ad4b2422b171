"""Training: one run of a plan, from the bundle to predictions of its held-out pairs."""

from hedflow.training.run import train_run, train_runs

__all__ = ["train_run", "train_runs"]
