"""The keys of `models.<name>` in config.yaml, a class a kind. Light: no torch, no scikit-learn.

Descriptions are what a user reads as comments in config.yaml: write them for a biologist. `kind` of a class that is not
the default is required, so that config.yaml always says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hedflow.baselines import BASELINES
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


def _described(name: str) -> str:
    """The description of a key whose default another kind changes."""
    return str(ModelSettings.model_fields[name].description)


KIND = (
    "uno (network: two towers and a head), ridge, kernel_ridge, lightgbm, random_forest, tanimoto_knn, naive, or a "
    "kind of a package that is installed (docs/howto.md). Each has keys of its own: docs/config.md."
)


class UnoSettings(ModelSettings):
    """Uno of IMPROVE: a tower for cells, a tower for drugs, a head over both."""

    kind: Literal["uno"] = Field("uno", description=KIND)
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


Positive = Annotated[float, Field(gt=0)]


class RidgeSettings(ModelSettings):
    """Ridge regression on the features of cells and drugs side by side. One run serves all seeds."""

    kind: Literal["ridge"] = Field(description=KIND)
    drug_features: ModelViews = Field(
        ["descriptors", "fingerprints"], min_length=1, description=_described("drug_features")
    )
    penalties: list[Positive] = Field(
        [10.0**power for power in range(8)],
        min_length=1,
        description="Penalties on the squared coefficients (of the sum of squares over the rows); the one that "
        "validates best is taken.",
    )

    def memory_mb(self, sizes: Sizes) -> int:
        """Six square matrices of the columns, and a few numbers a row and a pair."""
        columns = sizes.cell_columns + sizes.drug_columns
        return BASE_MB + round((48 * columns**2 + 100 * sizes.rows + 40 * sizes.cells * sizes.drugs) / 1e6)


class TreeSettings(ModelSettings):
    """What models of trees share."""

    components: int | None = Field(
        50,
        ge=1,
        description="Trees see this many principal components of the cells' and of the drugs' features (of the "
        "training cells and drugs). null = the features themselves: slow, and 4 bytes a row and feature.",
    )

    def tree_columns(self, sizes: Sizes) -> int:
        """Columns that the trees see."""
        most = self.components or max(sizes.cell_columns, sizes.drug_columns)
        return min(most, sizes.cell_columns) + min(most, sizes.drug_columns)

    def memory_mb(self, sizes: Sizes) -> int:
        """The columns of every row, laid out three times over."""
        return BASE_MB + round((12 * sizes.rows * self.tree_columns(sizes) + 100 * sizes.rows) / 1e6)


class LightGBMSettings(TreeSettings):
    """Gradient-boosted trees (LightGBM), stopped early."""

    kind: Literal["lightgbm"] = Field(description=KIND)
    trees: int = Field(500, ge=1, description="At most this many trees.")
    patience: int = Field(30, ge=1, description="Stop after this many trees without progress of training.monitor.")
    learning_rate: float = Field(0.1, gt=0, le=1, description="Weight of each tree.")
    leaves: int = Field(63, ge=2, description="Leaves of a tree.")
    leaf_rows: int = Field(100, ge=1, description="Fewest rows of a leaf.")
    column_share: float = Field(0.5, gt=0, le=1, description="Share of the columns that a tree sees.")
    row_share: float = Field(1.0, gt=0, le=1, description="Share of the rows that a tree sees.")


class RandomForestSettings(TreeSettings):
    """Random forest (scikit-learn). Nothing is chosen by the validation."""

    kind: Literal["random_forest"] = Field(description=KIND)
    trees: int = Field(100, ge=1, description="Trees.")
    tree_rows: int = Field(50_000, ge=1, description="Training rows that a tree is grown on, drawn with replacement.")
    leaf_rows: int = Field(5, ge=1, description="Fewest rows of a leaf.")
    column_share: float = Field(0.33, gt=0, le=1, description="Share of the columns that a split looks at.")

    def memory_mb(self, sizes: Sizes) -> int:
        """That of the columns, and of the trees: two nodes a leaf of 72 bytes."""
        leaves = self.trees * min(self.tree_rows, sizes.rows) / self.leaf_rows
        return super().memory_mb(sizes) + round(150 * leaves / 1e6)


class NaiveSettings(KindSettings):
    """A naive baseline as a model, on the training rows of each run. One run serves all seeds."""

    kind: Literal["naive"] = Field(description=KIND)
    baseline: Literal[BASELINES] = Field(  # type: ignore[valid-type]
        "mean_effects", description=f"Which: {', '.join(BASELINES)}."
    )


class TanimotoKnnSettings(KindSettings):
    """Mean of the cell's responses to the training drugs most similar by fingerprint. One run serves all seeds."""

    kind: Literal["tanimoto_knn"] = Field(description=KIND)
    neighbours: list[Annotated[int, Field(ge=1)]] = Field(
        [10],
        min_length=1,
        description="How many neighbours; of several the number that validates best is taken.",
    )

    def memory_mb(self, sizes: Sizes) -> int:
        """Numbers a pair of cell and drug, and of drugs."""
        return BASE_MB + round((80 * sizes.cells * sizes.drugs + 40 * sizes.drugs**2 + 100 * sizes.rows) / 1e6)


class KernelRidgeSettings(ModelSettings):
    """Kernel ridge on pairs: kernel of the cells x kernel of the drugs. One run serves all seeds."""

    kind: Literal["kernel_ridge"] = Field(description=KIND)
    drug_features: ModelViews = Field(["fingerprints"], min_length=1, description=_described("drug_features"))
    cell_kernel: Literal["rbf", "linear"] = Field(
        "rbf", description="Kernel of the cells' features: rbf, exp(-s d2 / median d2), or linear."
    )
    drug_kernel: Literal["tanimoto", "rbf", "linear"] = Field(
        "tanimoto", description="Kernel of the drugs: tanimoto (of the fingerprints alone), or one of their features."
    )
    sharpness: list[Positive] = Field(
        [1.0, 3.0, 10.0],
        min_length=1,
        description="rbf: s above, the same for cells and drugs; a small one is wide. The one that validates best is "
        "taken.",
    )
    penalties: list[Positive] = Field(
        [10.0, 3.0, 1.0, 0.3, 0.1],
        min_length=1,
        description="Penalties, in rows; the one that validates best is taken.",
    )

    @model_validator(mode="after")
    def _kernel_fits(self) -> KernelRidgeSettings:
        if self.drug_kernel == "tanimoto" and self.drug_features != ["fingerprints"]:
            raise ValueError("drug_kernel tanimoto is of fingerprints: leave drug_features out, or use rbf or linear")
        return self

    def memory_mb(self, sizes: Sizes) -> int:
        """Twenty grids of cells and drugs, kernels and their eigenvectors, and the rows."""
        squares = 8 * (20 * sizes.cells * sizes.drugs + 6 * (sizes.cells**2 + sizes.drugs**2))
        return super().memory_mb(sizes) + round((squares + 100 * sizes.rows) / 1e6)
