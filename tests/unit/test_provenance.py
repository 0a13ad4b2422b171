"""hedflow.provenance: the code digest follows code and imports, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hedflow
from hedflow.provenance import code_digest, versions

PACKAGE = Path(hedflow.__file__).parent
DIGEST = "import sys; from hedflow.provenance import code_digest; print(code_digest(*sys.argv[1:]))"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package that a test may change."""
    shutil.copytree(PACKAGE, tmp_path / "hedflow", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "hedflow"


def digest_of(copy: Path, *modules: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", DIGEST, *modules]
    done = subprocess.run(command, env=environment, cwd=copy.parent, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def edit(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text
    path.write_text(changed, encoding="utf-8")


def with_comments(text: str) -> str:
    return "# a comment\n\n\n" + text.replace("\n\n\ndef ", "\n\n\n# another\n\n\ndef ") + "\n# the end\n"


def with_docstrings(text: str) -> str:
    return text.replace('"""', '"""Said better: ', 1)


def without_docstring(text: str) -> str:
    start = text.index('"""')
    return text[:start] + text[text.index('"""', start + 3) + 3 :]


def with_layout(text: str) -> str:
    return text.replace(", ", ",   ")


LAYOUT = [with_comments, with_docstrings, without_docstring, with_layout]


@pytest.mark.parametrize("change", LAYOUT, ids=lambda change: change.__name__)
def test_comments_docstrings_and_layout_do_not_count(copy: Path, change: Callable[[str], str]) -> None:
    # A module whose strings hold no ", ": with_layout then changes the layout only.
    (copy / "small.py").write_text(
        '"""A module."""\n\nimport math\n\n\ndef area(a: float, b: float) -> float:\n'
        '    """Its area."""\n    return math.prod((a, b))\n\n\ndef twice(a: float) -> float:\n    return 2 * a\n'
    )
    before = digest_of(copy, "hedflow.small")
    edit(copy / "small.py", change)
    assert digest_of(copy, "hedflow.small") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("sources/ccle.py", "DOSES = 8", "DOSES = 9"),
        ("integrate.py", "HIGHEST_AUC = 2.0", "HIGHEST_AUC = 3.0"),
        ("schemas.py", "in_range(0, 1)", "in_range(0, 2)"),
        # A message is behaviour too.
        ("sources/tables.py", "no such file.", "there is no such file."),
    ],
)
def test_code_of_a_module_and_of_its_imports_counts(copy: Path, file: str, old: str, new: str) -> None:
    # A reader is imported by its name: a rule that uses it names its module.
    modules = ("hedflow.integrate", "hedflow.sources.ccle")
    before = digest_of(copy, *modules)
    edit(copy / file, lambda text: text.replace(old, new, 1))
    assert digest_of(copy, *modules) != before


def test_an_import_is_followed_wherever_it_stands(copy: Path) -> None:
    for name, line in (
        ("a", "from hedflow.leaf import VALUE"),
        ("b", "from hedflow import leaf"),
        ("c", "import hedflow.leaf"),
        ("d", "def late():\n    from hedflow.leaf import VALUE\n    return VALUE"),
        ("e", "from hedflow.a import VALUE"),
    ):
        (copy / f"{name}.py").write_text(f"{line}\n")
    (copy / "leaf.py").write_text("VALUE = 1\n")
    before = {name: digest_of(copy, f"hedflow.{name}") for name in "abcde"}
    (copy / "leaf.py").write_text("VALUE = 2\n")
    assert [name for name in "abcde" if digest_of(copy, f"hedflow.{name}") == before[name]] == []


def test_imports_in_a_circle_end(copy: Path) -> None:
    (copy / "a.py").write_text("import hedflow.b\n")
    (copy / "b.py").write_text("import hedflow.a\n")
    assert len(digest_of(copy, "hedflow.a")) == 16


def test_no_relative_import_escapes_the_digest() -> None:
    """`from . import x` would not be followed: the package has none."""
    lines = [line for path in PACKAGE.rglob("*.py") for line in path.read_text().splitlines()]
    assert [line for line in lines if line.strip().startswith("from .")] == []


def test_training_knows_nothing_of_analysis_integration_and_the_report(copy: Path) -> None:
    modules_of_a_run = ("hedflow.training.run", "hedflow.models.uno")
    before = digest_of(copy, *modules_of_a_run)
    folders = [copy / name for name in ("analysis", "figures", "report", "sources", "simulate")]
    modules = [path for folder in folders for path in folder.glob("*.py")]
    modules += [
        copy / f"{name}.py" for name in ("integrate", "retrieve", "ranking", "baselines", "high_error", "upf", "cli")
    ]
    modules += [copy / "bundle" / "build.py"]
    for path in modules:
        edit(path, lambda text: f"{text}\nCHANGED = True\n")
    assert digest_of(copy, *modules_of_a_run) == before
    for name in ("losses.py", "models/uno.py", "training/module.py", "bundle/__init__.py"):
        edit(copy / name, lambda text: f"{text}\nCHANGED = True\n")
        after = digest_of(copy, *modules_of_a_run)
        assert after != before, name
        before = after


def test_a_model_is_no_part_of_the_training_of_others(copy: Path) -> None:
    """It is imported by its name, and its runs name it."""
    training, uno = ("hedflow.training",), ("hedflow.training", "hedflow.models.uno")
    before = digest_of(copy, *training), digest_of(copy, *uno)
    edit(copy / "models" / "uno.py", lambda text: f"{text}\nCHANGED = True\n")
    assert digest_of(copy, *training) == before[0]
    assert digest_of(copy, *uno) != before[1]


def test_a_module_of_another_package_counts_with_what_it_imports(tmp_path: Path) -> None:
    package = tmp_path / "mymodels"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a digest imports nothing')\n")
    (package / "net.py").write_text("from .parts import SIZE\nfrom hedflow.similarity import tanimoto\nimport torch\n")
    (package / "parts.py").write_text("SIZE = 1\n")
    (package / "other.py").write_text("SIZE = 1\n")
    (tmp_path / "one_file.py").write_text("import mymodels.net\n")

    def digest(name: str = "mymodels.net") -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])}
        command = [sys.executable, "-c", DIGEST, name]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    before, one_file = digest(), digest("one_file")
    (package / "other.py").write_text("SIZE = 2\n")
    assert digest() == before
    (package / "parts.py").write_text("SIZE = 2\n")
    assert digest() != before
    assert digest("one_file") == one_file  # what it imports of others is not its own


def test_digest_is_the_same_everywhere(copy: Path) -> None:
    assert digest_of(copy, "hedflow.integrate") == code_digest("hedflow.integrate")
    assert code_digest("hedflow.integrate", "hedflow.plan") == code_digest("hedflow.plan", "hedflow.integrate")


def test_unknown_module_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"hedflow\.no_such_module"):
        code_digest("hedflow.no_such_module")


def test_digest_of_training_imports_no_torch() -> None:
    """Snakemake computes it for every rule at every start."""
    code = (
        "import sys; from hedflow.provenance import code_digest, versions;"
        "code_digest('hedflow.training.run'); versions();"
        "print([m for m in ('torch', 'pandas', 'rdkit', 'pytorch_lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_versions_are_those_of_the_modules() -> None:
    import numpy as np
    import pandas as pd

    found = versions()
    assert (found["numpy"], found["pandas"]) == (np.__version__, pd.__version__)
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
