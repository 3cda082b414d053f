"""Find a method, task kind, metric, plot or another part by its name: the name is the module.

`find("methods", "lora")` imports `graftlab.methods.lora`. Packages outside this project join through
the entry-point groups `graftlab.methods`, `graftlab.tasks`, ...; a name that exists already is refused.
A catalogue (`graftlab/tasks/catalogue/*.yaml`) gives further names, as data, to what the kinds can do.
"""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import Any, Literal, overload

from graftlab.contracts import (
    Analysis,
    BackboneKind,
    HookKind,
    LayerScore,
    Method,
    Metric,
    Plot,
    Quantity,
    TaskKind,
)
from graftlab.contracts.modules import provided
from graftlab.errors import ConfigError, unknown

KINDS = (
    *("analyses", "backbones", "commands", "hooks", "methods", "metrics"),
    *("plots", "quantities", "scores", "tasks"),
)
FOLDERS = {"scores": "selection/scores"}  # of kinds that belong to one part
CONTRACTS: dict[str, type] = {
    "analyses": Analysis,
    "backbones": BackboneKind,
    "hooks": HookKind,
    "methods": Method,
    "metrics": Metric,
    "plots": Plot,
    "quantities": Quantity,
    "scores": LayerScore,
    "tasks": TaskKind,
}

IRREGULAR = {"analyses": "analysis", "quantities": "quantity"}


def singular(kind: str) -> str:
    """Return what one of a kind is called."""
    return IRREGULAR.get(kind) or kind.removesuffix("s")


def _folder(kind: str) -> Path:
    assert kind in KINDS, kind
    return Path(__file__).parent / FOLDERS.get(kind, kind)


def _modules(kind: str) -> dict[str, str]:
    """Return the module path of each name, without importing any of them."""
    return _modules_on(tuple(sys.path), kind)


@functools.cache
def _modules_on(path: tuple[str, ...], kind: str) -> dict[str, str]:
    """Return the same for packages on `path`, which is Python's: a folder put on it later is looked into.

    Raises:
        ConfigError: a package outside the project takes a name that exists already.
    """
    inside = [m.name for m in pkgutil.iter_modules([str(_folder(kind))]) if m.name[0] != "_"]
    package = FOLDERS.get(kind, kind).replace("/", ".")
    modules = {name: f"graftlab.{package}.{name}" for name in inside}
    for point in importlib.metadata.entry_points(group=f"graftlab.{kind}"):
        taken = modules.get(point.name)
        if taken not in (None, point.value):
            raise ConfigError(
                f"the package {point.dist.name if point.dist else point.value!r} names its "
                f"{singular(kind)} {point.name!r}, but {taken} has that name already. "
                f"Rename it in the package's entry points, or uninstall it."
            )
        modules[point.name] = point.value
    return modules


def names(kind: str) -> list[str]:
    """Return the names of a kind, sorted, without importing any of them."""
    return sorted(_modules(kind))


def own(kind: str) -> list[str]:
    """Return the names of this project's own modules of a kind, not those of other packages."""
    return [name for name in names(kind) if _modules(kind)[name].startswith("graftlab.")]


@overload
def find(kind: Literal["analyses"], name: str) -> Analysis: ...
@overload
def find(kind: Literal["backbones"], name: str) -> BackboneKind: ...
@overload
def find(kind: Literal["hooks"], name: str) -> HookKind: ...
@overload
def find(kind: Literal["methods"], name: str) -> Method: ...
@overload
def find(kind: Literal["metrics"], name: str) -> Metric: ...
@overload
def find(kind: Literal["plots"], name: str) -> Plot: ...
@overload
def find(kind: Literal["quantities"], name: str) -> Quantity: ...
@overload
def find(kind: Literal["scores"], name: str) -> LayerScore: ...
@overload
def find(kind: Literal["tasks"], name: str) -> TaskKind: ...
@overload
def find(kind: str, name: str) -> Any: ...
def find(kind: str, name: str) -> Any:
    """Import the module that implements `name`, and return it as what its kind provides: what the module
    leaves out is there too (`graftlab.contracts`). A command is its module.

    Raises:
        ConfigError: there is no such module, or it lacks something.
        ImportError: the module exists, but something that *it* needs is not installed.
    """
    if name not in _modules(kind):
        raise ConfigError(unknown(singular(kind), name, names(kind)))
    module = importlib.import_module(_modules(kind)[name])
    return provided(CONTRACTS[kind], module) if kind in CONTRACTS else module


def having(kind: str, constant: str, value: object) -> dict[str, Any]:
    """Return by name the modules of a kind in which a constant has this value."""
    modules = {name: find(kind, name) for name in names(kind)}
    return {name: module for name, module in modules.items() if getattr(module, constant) == value}


def describe(kind: str, name: str) -> str:
    """Return the first docstring line of the module behind `name`, without importing it."""
    spec = importlib.util.find_spec(_modules(kind)[name])
    assert spec is not None, (kind, name)
    assert spec.origin is not None, (kind, name)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def catalogue(kind: str, word: str = "") -> dict[str, Path]:
    """Return the catalogue files of a kind by name: `tasks` one entry a file, `backbones` one family.

    With a `word` only those in whose name or text it stands, without reading what the others mean.
    """
    paths = sorted((_folder(kind) / "catalogue").glob("*.yaml"))
    return {p.stem: p for p in paths if word in p.stem or word in p.read_text(encoding="utf-8")}
