"""The public surface does not change by accident: what others import, call and register by.

A change here is a decision that CHANGELOG.md tells of; `python tests/test_surface.py` writes the list anew.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftlab import registry

LIST = Path(__file__).with_name("surface.txt")
MODULES = ("graftlab", "graftlab.inference", "graftlab.testing.rig")
CLASSES = ("graftlab.inference.Adapted", "graftlab.rundir.run.Run")


def signature(thing: Any) -> str:
    """Return a function's parameters by name, with their defaults; types may become sharper."""
    shown = []
    for parameter in inspect.signature(thing).parameters.values():
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        star = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        only = "only " if parameter.kind.name == "KEYWORD_ONLY" else ""
        shown.append(f"{only}{star}{parameter.name}{default}")
    return f"({', '.join(shown)})"


def of_module(name: str) -> Iterator[str]:
    """Yield the functions that a module, or a package by `__all__`, gives, with their signatures."""
    module = importlib.import_module(name)
    own = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == name]
    for public in sorted(getattr(module, "__all__", own)):
        thing = getattr(module, public)
        if public[0] != "_":
            yield f"{name}.{public}{signature(thing) if inspect.isfunction(thing) else ''}"


def of_class(name: str) -> Iterator[str]:
    """Yield what instances of a class have."""
    module, _, own = name.rpartition(".")
    kind = getattr(importlib.import_module(module), own)
    for public, thing in sorted(vars(kind).items()):
        if public[0] != "_":
            yield f"{name}.{public}{signature(thing) if inspect.isfunction(thing) else ''}"


def surface() -> str:
    lines = [line for name in MODULES for line in of_module(name)]
    lines += [line for name in CLASSES for line in of_class(name)]
    testing = importlib.import_module("graftlab.testing")
    lines += [
        f"import {name.name}"
        for name in pkgutil.iter_modules(testing.__path__, "graftlab.testing.")
    ]
    lines += ["import graftlab.auto", *(f"entry points graftlab.{kind}" for kind in registry.KINDS)]
    return "\n".join(lines) + "\n"


def test_parts_of_other_packages_find_what_they_are_made_of():
    """The names that docs/add-a-method.md, docs/add-a-part.md and docs/hooks.md import."""
    pages = (Path(__file__).parents[1] / "docs").glob("*.md")
    imports = {
        (module, name.strip())
        for page in pages
        for module, names in re.findall(
            r"^from (graftlab[\w.]*) import ([\w, ]+)$", page.read_text(encoding="utf-8"), re.M
        )
        for name in names.split(",")
    }
    lost = [
        f"{module}.{name}"
        for module, name in sorted(imports)
        if not hasattr(importlib.import_module(module), name)
        and importlib.util.find_spec(f"{module}.{name}") is None
    ]
    assert imports
    assert not lost


def test_names_signatures_and_entry_points_are_what_they_were():
    assert surface() == LIST.read_text(encoding="utf-8")


if __name__ == "__main__":
    LIST.write_text(surface(), encoding="utf-8")
