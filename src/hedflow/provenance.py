"""What made a result: digests of the code it used, and the versions it ran with."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

# The version says nothing the code does not; the configuration's values are in each step's parameters.
IGNORED = ("hedflow", "hedflow.config")
ROOT = Path(__file__).parent
PACKAGES = ("hedflow", "snakemake", "numpy", "pandas", "pyarrow", "rdkit", "torch", "pytorch-lightning")


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of `modules` of this package and of every module of it that they import.

    Comments, layout and docstrings do not count, so that a better comment does not train 770 models again.
    Snakemake watches a rule's script only; this digest, given to a rule as a parameter, watches the rest.
    """
    result = hashlib.sha256()
    for name in sorted(_closure(modules)):
        result.update(f"{name}\n{_essence(_source(name))}\n".encode())
    return result.hexdigest()[:16]


def _path(module: str) -> Path | None:
    """The source file of a module of this package; found by its name, since importing would cost seconds."""
    stem = ROOT.joinpath(*module.split(".")[1:])
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def _source(module: str) -> str:
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} is no module of this package")
    return path.read_text(encoding="utf-8")


def _essence(source: str) -> str:
    """The code as a syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree)


def _imports(module: str) -> set[str]:
    package = module.split(".")[0]
    found = set()
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            found.add(node.module)
            for alias in node.names:  # `from hedflow import splits` names a module, `... import x` does not
                candidate = f"{node.module}.{alias.name}"
                if _path(candidate):
                    found.add(candidate)
    return found


def _closure(modules: tuple[str, ...]) -> set[str]:
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in seen and module not in IGNORED:
            seen.add(module)
            todo.extend(_imports(module))
    return seen


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
