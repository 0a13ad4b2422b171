"""Rows/s of hedflow's training, against the usual way and the reference's way, at equal network, batch and optimiser.

    python benchmarks/bench_training_speed.py [--bundle results/bundle | --mirror ../shared/data] [--model uno_small]

`usual`: a plain Lightning module over materialised rows, the features of cell and drug side by side in a TensorDataset,
with PyTorch's DataLoader (shuffled, no workers) and Lightning's Trainer without logger, checkpoints and progress bar.
`reference`: for each batch of 32 the response's rows are merged by pandas with the tables of expression and of
descriptors, as the data generator of CANDLE's Uno does it; the steps are a bare PyTorch loop's, without Keras.

Only steps are timed: the sides take turns, and what setting up takes is subtracted. With one thread on a CPU it is CPU
time that counts, since other work on a machine does not stretch it.
A line of JSON for each batch size: `ratio_to_usual` and `ratio_to_reference` are medians over the rounds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from real_bundle import add_options, rates, ratio, report, the_bundle
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from hedflow.bundle import Bundle
from hedflow.config import DEFAULT_MODELS, Model, Split, Training
from hedflow.splits import Rows, make_rows
from hedflow.training.fit import fit, make_network
from hedflow.training.inputs import Inputs, make_inputs

REFERENCE_BATCH = 32
MATERIALISED = 65_536  # rows of the usual way's TensorDataset: every row of five sources would take 5 GB


class Plain(nn.Module):
    """The same network over rows of features: what hedflow computes once for each cell and drug, for each row."""

    def __init__(self, network: Any, cell_columns: int) -> None:
        super().__init__()
        self.network, self.cell_columns = network, cell_columns

    def forward(self, x: Tensor) -> Tensor:
        """Predicted AUC (rows,) of features (rows, cell + drug columns)."""
        towers = self.network.cell_tower(x[:, : self.cell_columns]), self.network.drug_tower(x[:, self.cell_columns :])
        return torch.sigmoid(self.network.head(self.network.join(torch.cat(towers, dim=1)))).squeeze(-1)


class PlainModule(pl.LightningModule):
    """A Lightning module as its tutorial has it."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        super().__init__()
        self.network, self.rate = network, rate

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, y = batch
        return functional.mse_loss(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


class Usual:
    """Lightning, DataLoader, materialised rows."""

    def __init__(self, inputs: Inputs, rows: np.ndarray, model: Model, batch: int, device: str) -> None:
        self.inputs, self.model, self.batch, self.device = inputs, model, batch, device
        some = torch.from_numpy(rows[:MATERIALISED].astype(np.int64))
        x = torch.cat([inputs.cells[inputs.cell[some]], inputs.drugs[inputs.drug[some]]], dim=1)
        self.data = TensorDataset(x, inputs.auc[some])

    def train(self, rows: int) -> int:
        """About so many rows, in epochs of all that there are."""
        steps = max(1, rows // self.batch)
        module = PlainModule(Plain(make_network(self.inputs, self.model), self.inputs.cells.shape[1]), RATE)
        trainer = pl.Trainer(
            accelerator="gpu" if self.device == "cuda" else "cpu",
            devices=1,
            max_steps=steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(self.data, self.batch, shuffle=True, drop_last=True))
        return steps * self.batch


class Reference:
    """A pandas merge for each batch."""

    def __init__(self, inputs: Inputs, rows: np.ndarray, model: Model, device: str) -> None:
        self.inputs, self.model, self.device = inputs, model, torch.device(device)
        index = {"cell": inputs.cell.numpy()[rows], "drug": inputs.drug.numpy()[rows]}
        self.response = pd.DataFrame({**index, "auc": inputs.auc.numpy()[rows]})
        self.expression, self.descriptors = (
            pd.DataFrame(matrix.numpy()).rename(columns=str).assign(**{key: np.arange(len(matrix))})
            for key, matrix in (("cell", inputs.cells), ("drug", inputs.drugs))
        )

    def train(self, rows: int) -> int:
        """About so many rows."""
        network = Plain(make_network(self.inputs, self.model), self.inputs.cells.shape[1]).to(self.device).train()
        optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
        steps, order = max(1, rows // REFERENCE_BATCH), np.random.default_rng(0).permutation(len(self.response))
        for step in range(steps):
            start = step * REFERENCE_BATCH % (len(order) - REFERENCE_BATCH)
            batch = self.response.iloc[order[start : start + REFERENCE_BATCH]]
            cells = batch[["cell"]].merge(self.expression, on="cell", how="left").drop(columns="cell")
            drugs = batch[["drug"]].merge(self.descriptors, on="drug", how="left").drop(columns="drug")
            x = torch.from_numpy(np.concatenate([cells.to_numpy(), drugs.to_numpy()], axis=1)).to(self.device)
            y = torch.from_numpy(batch["auc"].to_numpy(copy=True)).to(self.device)
            optimiser.zero_grad()
            functional.mse_loss(network(x), y).backward()
            optimiser.step()
        return steps * REFERENCE_BATCH


class Hedflow:
    """hedflow's own training."""

    def __init__(self, bundle: Bundle, rows: Rows, model: Model, batch: int, given: argparse.Namespace) -> None:
        self.bundle, self.model, self.batch, self.given = bundle, model, batch, given
        # One validation row: what validating takes depends on how often it is done, not on the training.
        self.rows = Rows(rows.train, rows.validation[:1], rows.test)

    def train(self, rows: int) -> int:
        """About so many rows: of one epoch, or of several where there are not enough."""
        whole = len(self.rows.train) // self.batch * self.batch
        drawn, epochs = min(rows, whole), max(1, round(rows / whole))
        training = Training(
            epochs=epochs,
            epoch_rows=drawn,
            batch_size=self.batch,
            learning_rate=RATE,
            warmup_epochs=0,
            patience=epochs,
            plateau_patience=epochs,
            threads=self.given.threads,
            device=self.given.device,
        )
        fit(self.bundle, self.rows, self.model, training, "mse", None, 0)
        return drawn * epochs


RATE = 1e-4


def main() -> None:
    """Print a line for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--model", default="uno_small", choices=list(DEFAULT_MODELS), help="uno: IMPROVE's, width 1000")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256, 4096])
    given = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    model = DEFAULT_MODELS[given.model]
    with the_bundle(given) as bundle:
        rows = make_rows(Split(kind="drug_blind"), "f0", bundle)
        inputs = make_inputs(bundle, rows, model)
        order = np.random.default_rng(0).permutation(rows.train)
        reference = Reference(inputs, order, model, given.device)
        for batch in given.batches:
            sides = {
                "hedflow": Hedflow(bundle, rows, model, batch, given).train,
                "usual": Usual(inputs, order, model, batch, given.device).train,
                "reference": reference.train,
            }
            found = rates(sides, max(batch, REFERENCE_BATCH), given)
            report(
                benchmark="training_speed",
                model=given.model,
                batch=batch,
                device=torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
                threads=given.threads,
                **{f"{name}_rows_per_second": round(statistics.median(values)) for name, values in found.items()},
                ratio_to_usual=ratio(found, "hedflow", "usual"),
                ratio_to_reference=ratio(found, "hedflow", "reference"),
            )


if __name__ == "__main__":
    main()
