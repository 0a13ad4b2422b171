"""The keys of `models.<name>` in config.yaml, a class a kind. Light: no torch, no scikit-learn.

Descriptions are what a user reads as comments in config.yaml: write them for a biologist. `kind` of a class that is not
the default is required, so that config.yaml always says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hedflow.features import VIEWS
from hedflow.features.genes import GeneSet
from hedflow.strict import Strict

if TYPE_CHECKING:
    ViewName = str
else:  # a name that is valid is one that the registry of views has
    ViewName = Literal[tuple(VIEWS)]

# MB of Python with the packages that a run imports, and of the response.
BASE_MB = 1000


@dataclass(frozen=True)
class Sizes:
    """What a run works on, for estimates: rows, cells and drugs of the bundle, the columns that the model reads of a
    cell and of a drug, and the rows of a batch."""

    rows: int
    cells: int
    drugs: int
    cell_columns: int
    drug_columns: int
    batch_size: int


class KindSettings(Strict):
    """What every kind of model has: its kind. A kind that reads no features needs no more."""

    kind: str = Field(description="What kind of model it is.")

    @property
    def views(self) -> tuple[str, ...]:
        """The views of the bundle that it reads."""
        return ()

    def columns(self, views: Mapping[str, Sequence[str]]) -> tuple[int, int]:
        """How many columns it reads of a cell and of a drug, of `views` (name -> columns), as far as can be said
        before a run; none here."""
        return 0, 0

    def memory_mb(self, sizes: Sizes) -> int:
        """MB that a run may use; a limit, not a remark."""
        return BASE_MB


def views_of(axis: str) -> list[str]:
    """Names of the views of a cell or of a drug."""
    return [name for name, view in VIEWS.items() if view.axis == axis]


def _one_is_a_list(value: Any) -> Any:
    """`cell_features: expression` is the list of one."""
    return [value] if isinstance(value, str) else value


ModelViews = Annotated[list[ViewName], BeforeValidator(_one_is_a_list)]


class ModelSettings(KindSettings):
    """What a kind of model has that reads features of cells and of drugs."""

    cell_features: ModelViews = Field(
        ["expression"], min_length=1, description="Views of a cell that it reads: expression, mutations, or both."
    )
    drug_features: ModelViews = Field(
        ["descriptors"],
        min_length=1,
        description="Views of a drug that it reads: descriptors, fingerprints, mordred, or several.",
    )
    gene_set: GeneSet = Field(
        "all",
        description="Genes of the expression that it may use: all, or landmark (the 978 of L1000, where measured).",
    )
    genes: int | None = Field(
        None, ge=1, description="Of these, the genes that vary most over the training cells. null = all."
    )

    @model_validator(mode="after")
    def _axes_fit(self) -> ModelSettings:
        for key, axis, names in (("cell", "cell", self.cell_features), ("drug", "drug", self.drug_features)):
            wrong = [name for name in names if VIEWS[name].axis != axis]
            if wrong:
                raise ValueError(
                    f"{key}_features names {wrong[0]}, a view of {VIEWS[wrong[0]].axis}s; views of {axis}s are "
                    f"{', '.join(views_of(axis))}"
                )
        return self

    @property
    def views(self) -> tuple[str, ...]:
        """The views of the bundle that it reads."""
        return (*self.cell_features, *self.drug_features)

    def columns(self, views: Mapping[str, Sequence[str]]) -> tuple[int, int]:
        """How many columns it reads of a cell and of a drug."""
        cells = [len(views[name]) for name in self.cell_features if name in views]
        if self.genes is not None and "expression" in views and "expression" in self.cell_features:
            cells.append(min(0, self.genes - len(views["expression"])))
        return sum(cells), sum(len(views[name]) for name in self.drug_features if name in views)

    def memory_mb(self, sizes: Sizes) -> int:
        """MB for the features, four times over, and for a few numbers a row."""
        matrices = sizes.cells * sizes.cell_columns + sizes.drugs * sizes.drug_columns
        return BASE_MB + round((16 * matrices + 64 * sizes.rows) / 1e6)


class UnoSettings(ModelSettings):
    """Uno of IMPROVE: a tower for cells, a tower for drugs, a head over both."""

    kind: Literal["uno"] = Field("uno", description="What kind of model it is: one of the kinds below.")
    width: int = Field(1000, ge=1, le=16384, description="Units of each hidden layer.")
    tower_depth: int = Field(3, ge=1, le=20, description="Hidden layers of each tower.")
    head_depth: int = Field(5, ge=1, le=20, description="Hidden layers after the towers are joined.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after each hidden layer.")

    def memory_mb(self, sizes: Sizes) -> int:
        """Twice its weights, gradients and optimiser state and the activations of a batch, and 1 GB for data and
        packages. Full-width Uno on five sources took 2,400 MB; this gives it 2,700."""
        layers = 2 * self.tower_depth + self.head_depth
        weights = self.width * (3000 + self.width * layers)
        return BASE_MB + round(2 * (24 * weights + 12 * sizes.batch_size * self.width * layers) / 1e6)
