"""Writes config.yaml, config/schema.json and docs/config.md from the configuration's models."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from hedflow.config import (
    Analysis,
    Config,
    Curves,
    Data,
    Experiment,
    Features,
    Identity,
    Loss,
    Quality,
    SecondStep,
    Split,
    Training,
    Weigh,
)
from hedflow.files import write_text
from hedflow.models import KINDS

HEADER = """\
# hedflow: the one file you edit. Then run `snakemake`: only what changed is run again.
# Made from the models in src/hedflow/config.py by `hedflow config`; every key: docs/config.md.
"""
WIDTH = 108


def as_yaml(config: Config) -> str:
    """The configuration as YAML, each key under its description."""
    return HEADER + "\n" + "\n".join(_model_lines(config, 0, top=True)) + "\n"


def _model_lines(model: BaseModel, depth: int, top: bool = False, brief: bool = False) -> list[str]:
    lines: list[str] = []
    pad = "  " * depth
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if brief and value == field.get_default():
            continue
        if field.description and not brief:
            wrapped = textwrap.wrap(field.description, WIDTH - len(pad) - 2)
            lines += [f"{pad}# {line}" for line in wrapped]
        lines += _value_lines(name, value, depth, brief)
        if top:
            lines.append("")
    return lines


def _value_lines(name: str, value: Any, depth: int, brief: bool = False) -> list[str]:
    pad = "  " * depth
    if isinstance(value, BaseModel):
        return [f"{pad}{name}:", *_model_lines(value, depth + 1, brief=brief)]
    if isinstance(value, dict) and any(isinstance(item, BaseModel) for item in value.values()):
        lines = [f"{pad}{name}:"]
        for number, (key, item) in enumerate(value.items()):
            # The first entry shows every key with its comment; the others only what differs from the default.
            body = _model_lines(item, depth + 2, brief=number > 0)
            lines += [f"{pad}  {_flow(key)}:", *body] if body else [f"{pad}  {_flow(key)}: {{}}"]
        return lines
    if isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        return [f"{pad}{name}:", *(f"{pad}  - {_flow(item.model_dump(exclude_defaults=True))}" for item in value)]
    return [f"{pad}{name}: {_flow(value)}"]


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def as_schema() -> str:
    """The JSON schema of config.yaml, for editors."""
    return json.dumps(Config.model_json_schema(), indent=1) + "\n"


def as_reference() -> str:
    """The reference page: a table of keys for each section."""
    lines = [
        "# Configuration reference",
        "",
        "Made from the models in `src/hedflow/config.py` by `hedflow config`; do not edit it by hand.",
    ]
    sections: list[tuple[str, type[BaseModel]]] = [
        ("The top level", Config),
        ("`data`", Data),
        ("`curves`", Curves),
        ("`quality`", Quality),
        ("`identity`", Identity),
        ("`features`", Features),
        *((f"`models.<name>` of kind `{name}`", kind.settings) for name, kind in KINDS.items()),
        ("`training`", Training),
        ("`experiments.<name>`", Experiment),
        ("`experiments.<name>.split`", Split),
        ("`experiments.<name>.losses[]`", Loss),
        ("`experiments.<name>.weigh`", Weigh),
        ("`experiments.<name>.second_step`", SecondStep),
        ("`analysis`", Analysis),
    ]
    for title, model in sections:
        summary = (model.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## {title}", "", summary, "", "| key | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            default = field.get_default()
            nested = isinstance(default, BaseModel) or (
                isinstance(default, dict | list) and "Model" in str(type(next(iter(_items(default)), None)).__mro__)
            )
            shown = "required" if field.is_required() else "see below" if nested else f"`{_flow(default)}`"
            lines.append(f"| `{name}` | {shown} | {(field.description or '').replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else list(value)


def write_all(root: Path) -> list[Path]:
    """Write the three files below the project's root; returns their paths."""
    made = {
        root / "config.yaml": as_yaml(Config()),
        root / "config" / "schema.json": as_schema(),
        root / "docs" / "config.md": as_reference(),
    }
    for path, text in made.items():
        write_text(path, text)
    return list(made)
