"""What made a result: digests of the code it used, and the versions it ran with."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
from pathlib import Path

# The version says nothing the code does not; the configuration's values are in each step's parameters.
IGNORED = ("hedflow", "hedflow.config", "hedflow.strict", "hedflow.models", "hedflow.models.settings")
OWN = __name__.split(".")[0]
ROOT = Path(__file__).parent
PACKAGES = ("hedflow", "snakemake", "numpy", "pandas", "pyarrow", "rdkit", "torch", "pytorch-lightning")


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of `modules` and of every module of this package, or of their own, that they import.

    Comments, layout and docstrings do not count, so that a better comment does not train 770 models again.
    Snakemake watches a rule's script only; this digest, given to a rule as a parameter, watches the rest.
    """
    result = hashlib.sha256()
    for name in sorted(_closure(modules)):
        result.update(f"{name}\n{_essence(name)}\n".encode())
    return result.hexdigest()[:16]


def _path(module: str) -> Path | None:
    """The source file of a module; found by its name, since importing would cost seconds."""
    package, *rest = module.split(".")
    stems = [root.joinpath(*rest) for root in ([ROOT] if package == OWN else _roots(package))]
    files = (p for stem in stems for p in (stem.with_suffix(".py"), stem / "__init__.py"))
    return next((p for p in files if p.is_file()), None)


def _roots(package: str) -> list[Path]:
    """Folders of another package, which may bring a kind of model; a module of one file without its suffix."""
    found = importlib.util.find_spec(package)
    if found is None:
        return []
    return [Path(place) for place in found.submodule_search_locations or [str(found.origin).removesuffix(".py")]]


def _tree(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} is no module with a source file here")
    return ast.parse(path.read_text(encoding="utf-8"))


# Each of a workflow's rules asks for a digest, and most modules are in several: each is parsed once.
@functools.cache
def _essence(module: str) -> str:
    """The code as a syntax tree without docstrings."""
    tree = _tree(module)
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


@functools.cache
def _imports(module: str) -> set[str]:
    """Modules that a module imports, of its own package and of this one."""
    packages = {OWN, module.split(".")[0]}
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = _absolute(module, node)
            found.add(name)
            # `from hedflow import splits` names a module, `... import x` does not
            found |= {f"{name}.{a.name}" for a in node.names if name.split(".")[0] in packages}
    return {name for name in found if name.split(".")[0] in packages and _path(name)}


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that `from ... import` names, written out."""
    if node.level == 0:
        return str(node.module)
    path = _path(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


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
