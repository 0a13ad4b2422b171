"""What Lightning costs: hedflow's `fit` against a bare PyTorch loop with the same network, batches and optimiser.

    python benchmarks/bench_lightning_overhead.py [--bundle results/bundle | --mirror ../shared/data]

Both train the same rows in the same batches, validate after each epoch, and keep the best weights. The sides take
turns; what setting up takes is subtracted. With one thread on a CPU it is CPU time that counts. A line of JSON for each
batch size: `overhead_percent` is the median over the rounds of hedflow's time over the loop's, less one.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from real_bundle import add_options, rates, ratio, report, the_bundle
from torch import Tensor, nn
from torch.nn import functional

from hedflow.bundle import Bundle
from hedflow.config import DEFAULT_MODELS, Model, Split, Training
from hedflow.models.dropout import seed_dropout
from hedflow.splits import Rows, make_rows
from hedflow.training.batches import Batches, Ordered
from hedflow.training.fit import PREDICT_ROWS, fit, make_network
from hedflow.training.inputs import Inputs, make_inputs

RATE = 1e-4


class Loop:
    """The loop that a user without Lightning writes."""

    def __init__(self, bundle: Bundle, rows: Rows, model: Model, training: Training) -> None:
        self.bundle, self.rows, self.model, self.training = bundle, rows, model, training

    def train(self, rows: int) -> int:
        """About so many rows, in whole epochs."""
        inputs, settings = make_inputs(self.bundle, self.rows, self.model), self.training
        device = torch.device(settings.device)
        network = make_network(inputs, self.model).to(device)
        network.batch_rows = settings.batch_size
        seed_dropout(network, [torch.Generator(device).manual_seed(0)])
        data = Inputs(**{name: tensor.to(device) for name, tensor in vars(inputs).items()})
        optimiser = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
        batches = Batches([self.rows.train], settings.batch_size, [0], settings.epoch_rows)
        best, weights, count = float("inf"), {}, min(len(self.rows.train), settings.epoch_rows or len(self.rows.train))
        epochs = max(1, rows // count)
        for epoch in range(epochs):
            network.train()
            batches.begin([epoch], [0])
            for batch in batches:
                of = batch.rows[0].to(device)
                optimiser.zero_grad()
                functional.mse_loss(self._predict(network, data, of), data.auc[of]).backward()
                optimiser.step()
            error = self._validate(network, data, device)
            if error < best:
                best, weights = error, {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(weights)
        return epochs * count

    def _validate(self, network: nn.Module, data: Inputs, device: torch.device) -> float:
        network.eval()
        total = 0.0
        with torch.no_grad():
            for batch in Ordered([self.rows.validation], PREDICT_ROWS):
                of = batch.rows[0].to(device)
                total += float((self._predict(network, data, of) - data.auc[of]).abs().sum())
        return total / len(self.rows.validation)

    def _predict(self, network: nn.Module, data: Inputs, of: Tensor) -> Tensor:
        predicted: Tensor = network(data.cells, data.drugs, data.cell[of], data.drug[of])
        return predicted


class Lightning:
    """hedflow's own training."""

    def __init__(self, bundle: Bundle, rows: Rows, model: Model, training: Training) -> None:
        self.bundle, self.rows, self.model, self.training = bundle, rows, model, training

    def train(self, rows: int) -> int:
        """About so many rows, in whole epochs."""
        count = min(len(self.rows.train), self.training.epoch_rows or len(self.rows.train))
        epochs = max(1, rows // count)
        changes = {"epochs": epochs, "patience": epochs, "plateau_patience": epochs}
        fit(self.bundle, self.rows, self.model, self.training.model_copy(update=changes), "mse", None, 0)
        return epochs * count


def main() -> None:
    """Print a line for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--model", default="uno_small", choices=list(DEFAULT_MODELS), help="uno: IMPROVE's, width 1000")
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--epoch-batches", type=int, default=64, help="batches an epoch")
    given = parser.parse_args()
    with the_bundle(given) as bundle:
        rows = make_rows(Split(kind="drug_blind"), "f0", bundle)
        for batch in given.batches:
            drawn = given.epoch_batches * batch
            # As many rows validate for each that trains as in the whole split.
            share = max(1, len(rows.validation) * drawn // len(rows.train))
            some = Rows(rows.train, np.random.default_rng(0).permutation(rows.validation)[:share], rows.test)
            training = Training(
                epoch_rows=drawn,
                batch_size=batch,
                learning_rate=RATE,
                warmup_epochs=0,
                threads=given.threads,
                device=given.device,
            )
            model = DEFAULT_MODELS[given.model]
            sides = {
                "lightning": Lightning(bundle, some, model, training).train,
                "loop": Loop(bundle, some, model, training).train,
            }
            found = rates(sides, drawn, given)
            report(
                benchmark="lightning_overhead",
                model=given.model,
                batch=batch,
                device=torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
                threads=given.threads,
                **{f"{name}_rows_per_second": round(statistics.median(values)) for name, values in found.items()},
                overhead_percent=round(100 * (ratio(found, "loop", "lightning") - 1), 1),
            )


if __name__ == "__main__":
    main()
