"""hedflow.config: one source for file, schema and reference; a bad value is told in one sentence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hedflow import HedflowError
from hedflow.config import (
    DEFAULT_EXPERIMENTS,
    RESERVED,
    SOURCES,
    WHEEL_SOURCES,
    Analysis,
    Config,
    Data,
    Experiment,
    Features,
    Loss,
    Model,
    Split,
    Training,
    load_config,
    parse_config,
)
from hedflow.config_docs import as_reference, as_schema, as_yaml, write_all


def test_defaults_are_valid() -> None:
    config = parse_config({})
    assert config == Config()
    assert config.data.names == WHEEL_SOURCES
    assert set(config.experiments) == set(DEFAULT_EXPERIMENTS)


def test_a_mirror_brings_all_sources_in_their_order() -> None:
    assert Data(mirror="x").names == SOURCES
    assert Data(sources=["gCSI", "CCLE"]).names == ("CCLE", "gCSI")
    assert not Data().annotated
    assert Data(sources=["CTRPv2"]).annotated
    assert Data(mirror="x").annotated


# ---- file, schema and reference


@pytest.mark.parametrize("name", ["config.yaml", "config/schema.json", "docs/config.md"])
def test_written_files_do_not_drift(repo: Path, name: str, tmp_path: Path) -> None:
    if name == "config.yaml":
        command = ["git", "status", "--porcelain", "config.yaml"]
        edited = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False).stdout
        if edited.strip():
            pytest.skip("config.yaml is edited (git status): it is the user's")
    write_all(tmp_path)
    said = f"{name} is not what the models give; run `hedflow config`"
    assert (repo / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8"), said


ODD = Config(
    results="a folder/with: colon # and hash",
    data=Data(mirror="/data/it's", sources=["gCSI", "CCLE"]),
    features=Features(fingerprint_bits=64, max_missing=0.0),
    models={
        "first": Model(genes=7, width=3, drug_features=["fingerprints", "descriptors"]),
        "second": Model(dropout=0.0),
        "null": Model(),
        "1": Model(width=5),
    },
    training=Training(learning_rate=1e-7, epochs=1, device="cpu"),
    experiments={
        "lodo": Experiment(
            split=Split(kind="leave_one_drug_out", drugs=["PD-0325901", "null", "1", "a: b, c"]),
            models=["second", "1"],
            losses=[Loss(name="mae_exp", alpha=[0, 0.5, 50]), Loss(name="mse")],
            seeds=[0, 7],
            training={"learning_rate": 3e-5, "threads": 2},
        ),
        "lists": Experiment(models=["null"], split=Split(kind="drug_lists", drugs=["x"], validation_drugs=["y"])),
        "upf": Experiment(models=["first"], upf="runs.txt", defaults="d.json"),
        "high": Experiment(models=["first"], split=Split(kind="high_error", experiment="lodo", high_error_z=1.5)),
        "range": Experiment(models=["first"], split=Split(kind="auc_range", ranges=[0.0, 0.25, 1.0])),
    },
    analysis=Analysis(high_error_z=-1.5),
)


@pytest.mark.parametrize("config", [Config(), ODD], ids=["default", "odd"])
def test_yaml_round_trip(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(as_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def test_every_key_is_commented_and_in_the_reference() -> None:
    text, reference = as_yaml(Config()), as_reference()
    for model in (Config, Data, Features, Model, Training, Split, Experiment, Analysis):
        for name, field in model.model_fields.items():
            assert field.description, (model, name)
            assert f"| `{name}` |" in reference
            assert " ".join(field.description.split()) in " ".join(text.replace("#", " ").split()), (model, name)


@pytest.mark.parametrize("config", [Config(), ODD], ids=["default", "odd"])
def test_schema_accepts_what_the_models_accept(config: Config) -> None:
    schema = json.loads(as_schema())
    jsonschema.validators.validator_for(schema).check_schema(schema)
    jsonschema.validate(yaml.safe_load(as_yaml(config)), schema)


def test_schema_refuses_an_unknown_key() -> None:
    with pytest.raises(jsonschema.ValidationError, match="miror"):
        jsonschema.validate({"data": {"miror": None}}, json.loads(as_schema()))


# ---- bad input


def experiment(**keys: Any) -> dict[str, Any]:
    return {"experiments": {"mine": keys}}


BAD: dict[str, tuple[dict[Any, Any], str]] = {
    "unknown key, top": ({"analisys": {}}, "unknown key 'analisys'; did you mean analysis or quality?"),
    "unknown key, depth 1": ({"data": {"miror": "x"}}, "unknown key 'data.miror'; did you mean mirror or improve?"),
    "unknown key, depth 2": (
        {"models": {"uno": {"widht": 3}}},
        "unknown key 'models.uno.widht'; did you mean width?",
    ),
    "unknown key, depth 3": (
        experiment(split={"fold": 3}),
        "unknown key 'experiments.mine.split.fold'; did you mean folds",
    ),
    "unknown key, in a list": (
        experiment(losses=[{"name": "mae_exp", "alfa": [1]}]),
        "unknown key 'experiments.mine.losses.0.alfa'; did you mean alpha?",
    ),
    "unknown key, nothing near": (
        {"data": {"zzz": 1}},
        "unknown key 'data.zzz'. Valid: mirror, sources, registry, improve.",
    ),
    "key that is a number": ({1: 2}, "'1' is 1, but keys should be strings"),
    "wrong source": (
        {"data": {"sources": ["GDSC1"]}},
        "'data.sources.0' is 'GDSC1', which is not a valid name; did you",
    ),
    "source in other letters": ({"data": {"sources": ["ctrpv2"]}}, "did you mean CTRPv2"),
    "no sources": ({"data": {"sources": []}}, "'data.sources' is []"),
    "source, not a list": ({"data": {"sources": "CCLE"}}, "'data.sources' is 'CCLE', but input should be a valid list"),
    "wrong loss": (
        experiment(losses=[{"name": "mae_pol", "alpha": [1]}]),
        "`name` is 'mae_pol', and there is no such loss; did you mean mae_poly",
    ),
    "loss without a name": (experiment(losses=[{}]), "'experiments.mine.losses.0.name' is missing"),
    "alpha missing": (
        experiment(losses=[{"name": "mae_poly"}]),
        "mae_poly needs `alpha` (power of (1 - AUC)), for example alpha: [2]",
    ),
    "alpha on mse": (
        experiment(losses=[{"name": "mse", "alpha": [1]}]),
        "mse has no alpha; alpha belongs to mae_poly, mse_poly, mae_exp",
    ),
    "alpha below 0": (
        experiment(losses=[{"name": "mae_exp", "alpha": [-1]}]),
        "alpha of mae_exp is -1, expected one from 0 to 50 (rate of exp(-alpha AUC))",
    ),
    "unknown model": (
        experiment(models=["uno_smal"]),
        "experiment 'mine' uses model 'uno_smal', which is not in `models`; did you mean uno_small",
    ),
    "drug feature": (
        {"models": {"m": {"drug_features": ["descriptor"]}}},
        "'models.m.drug_features.0' is 'descriptor', which is not a valid name; did you mean descriptors?",
    ),
    "model called literal": (
        {"models": {"literal_model": {"width": 0}}},
        "'models.literal_model.width' is 0, but input should be greater than or equal to 1",
    ),
    "training override unknown": (
        experiment(training={"epoch": 1}),
        "experiments.mine.training has the unknown key 'epoch'; did you mean epochs",
    ),
    "training override of a wrong type": (
        experiment(training={"epochs": "many"}),
        "'experiments.mine.training.epochs' is 'many', but input should be a valid integer",
    ),
    "wrong type": (
        {"training": {"epochs": "many"}},
        "'training.epochs' is 'many', but input should be a valid integer",
    ),
    "out of range": ({"training": {"epochs": 0}}, "'training.epochs' is 0, but input should be greater than"),
    "fold out of range": (
        experiment(split={"use_folds": [7]}),
        "'experiments.mine.split': use_folds has [7], but the folds are 0 to 4",
    ),
    "fold counted from 1": (experiment(split={"folds": 3, "use_folds": [1, 2, 3]}), "use_folds has [3]"),
    "lists missing": (
        experiment(split={"kind": "drug_lists"}),
        "needs the lists `drugs` (test) and `validation_drugs`",
    ),
    "high error of nothing": (experiment(split={"kind": "high_error"}), "a high_error split needs `experiment`"),
    "high error of an unknown one": (
        experiment(split={"kind": "high_error", "experiment": "mihe"}),
        "experiment 'mine' holds out the high error drugs of 'mihe', which is not in `experiments`, or is switched "
        "off; did you mean mine",
    ),
    "high error of itself": (
        experiment(split={"kind": "high_error", "experiment": "mine"}),
        "experiment 'mine' holds out the high error drugs of itself (mine of mine)",
    ),
    "high error in a circle": (
        {"experiments": {name: {"split": {"kind": "high_error", "experiment": of}} for name, of in ("ab", "bc", "cb")}},
        "experiment 'b' holds out the high error drugs of itself (b of c of b)",
    ),
    "an earlier experiment of another kind": (
        experiment(split={"experiment": "mine"}),
        "`experiment` belongs to a high_error split, and this one is drug_blind",
    ),
    "ranges that fall": (experiment(split={"ranges": [0.5, 0.2]}), "ranges is [0.5, 0.2], expected 10, 2, or at least"),
    "ranges beyond 1": (experiment(split={"ranges": [0.5, 1.2]}), "expected 10, 2, or at least two rising edges"),
    "one edge": (experiment(split={"ranges": [0.5]}), "expected 10, 2, or at least two rising edges"),
    "edges too fine": (experiment(split={"ranges": [0.5, 0.50001]}), "of three decimals"),
    "wrong split": (experiment(split={"kind": "drugblind"}), "did you mean drug_blind"),
    "section that is a number": ({"data": 3}, "'data' is 3, but input should be a valid dictionary"),
    "experiments as a list": ({"experiments": ["a"]}, "'experiments' is ['a'], but input should be a valid dictionary"),
    "no experiment left": ({"experiments": {"losses": None}}, "should have at least 1 item"),
    "name with a blank": ({"models": {"a b": {}}}, "'models.a b' is 'a b', but string should match"),
    "device": ({"training": {"device": "gpu"}}, "'training.device' is 'gpu', which is not a valid name"),
}
BAD |= {
    f"reserved name {name}": ({"experiments": {name: {}}}, f"an experiment cannot be called '{name}'")
    for name in RESERVED
}


@pytest.mark.parametrize(("raw", "said"), BAD.values(), ids=BAD)
def test_bad_value_gives_one_sentence(raw: dict[Any, Any], said: str) -> None:
    with pytest.raises(HedflowError) as caught:
        parse_config(raw, "my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: ")
    assert said in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_two_problems_give_two_sentences() -> None:
    raw = {"training": {"epochs": 0}, "datta": {}, **experiment(training={"epochs": 0, "threads": 0})}
    with pytest.raises(HedflowError) as caught:
        parse_config(raw)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("config.yaml: ") for line in lines)
    assert len(lines) == 2
    with pytest.raises(HedflowError) as caught:
        parse_config(experiment(training={"epochs": 0, "threads": 0}))
    lines = str(caught.value).splitlines()
    assert [line.split("'")[1].rsplit(".", 1)[1] for line in lines] == ["epochs", "threads"]


FILES = {
    "not a mapping": (b"- a\n- b\n", "expected `key: value` lines, got list"),
    "one word": (b"results\n", "expected `key: value` lines, got str"),
    "broken bracket": (b"data: {sources: [CCLE}\n", "expected YAML, but"),
    "tab": (b"data:\n\tmirror: x\n", "expected YAML, but"),
    "latin-1": ("results: café\n".encode("latin-1"), "expected UTF-8"),
    "number as key": (b"1: 2\n", "'1' is 1"),
}


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_bad_file_is_named_with_its_fault(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(HedflowError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_missing_file_says_where_to_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(HedflowError, match="no such file; run in the project's folder"):
        load_config(tmp_path / name)


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# all as it is\n")
    assert load_config(tmp_path / "config.yaml") == Config()


# ---- what the keys mean


def test_null_switches_an_experiment_off() -> None:
    config = parse_config({"experiments": {"losses": None, "mine": {}}})
    assert list(config.experiments) == ["mine"]
    assert config.experiments["mine"] == Experiment()


def test_experiment_training_lies_over_the_common_one() -> None:
    raw = {"training": {"epochs": 9, "threads": 2}, **experiment(training={"epochs": 4, "learning_rate": "1e-4"})}
    found = parse_config(raw).training_of("mine")
    assert (found.epochs, found.threads, found.learning_rate) == (4, 2, 1e-4)
    assert found.batch_size == Training().batch_size


def test_a_checked_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().data.mirror = "x"  # type: ignore[misc]
