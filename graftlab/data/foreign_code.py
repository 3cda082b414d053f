"""Rows made by a function that a file names: what it is, where it lies, and whether it may be called.

Nothing here imports what a file names but `function`, and that only inside `allowed`.
"""

import importlib
import importlib.metadata
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

from graftlab.errors import Argument, ConfigError, Place, Refused

log = logging.getLogger("graftlab")

OWN = ("graftlab.data.digits:rows", "graftlab.data.word_problems:rows")
"""Sources of this project itself, which need no leave."""
_ALLOWED: ContextVar[bool] = ContextVar("allow_code", default=False)


@contextmanager
def allowed(wanted: bool = True) -> Iterator[None]:
    """Let functions of other packages be called inside; with `wanted` false nothing changes."""
    token = _ALLOWED.set(wanted or _ALLOWED.get())
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def is_allowed() -> bool:
    """Return whether this is inside `allowed`."""
    return _ALLOWED.get()


SOURCE = Place(key=("task", "source"))


class Call(NamedTuple):
    """A function that a file wants called."""

    source: str
    """`module:function`."""
    options: Mapping[str, object]
    distribution: str
    """Name and version of the installed distribution that the module belongs to."""
    file: Path

    def as_json(self) -> dict[str, object]:
        """Return what `check --json` has of it."""
        return {**self._asdict(), "options": dict(self.options), "file": str(self.file)}

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.source}({given}) of {self.distribution}, {self.file}"


def called(section: object) -> Call | None:
    """Return the call of another package's function that a task's section asks for, without importing it.

    Raises:
        ConfigError: there is no such module.
        Refused: the module is no installed distribution's.
    """
    source = getattr(section, "source", None)
    elsewhere = any(getattr(section, key, None) for key in ("data_dir", "files", "hub"))
    if source is None or source in OWN or elsewhere:
        return None
    return find(source, getattr(section, "options", {}))


def check(section: object) -> None:
    """Refuse a task's section that would run code of others, where that has not been allowed.

    Raises:
        ConfigError: there is no such module.
        Refused: it is not allowed, or never is.
    """
    if (call := called(section)) is not None:
        _refuse("source", f"would call {call}")
    if getattr(section, "execute_code", False):
        _refuse(
            "execute_code", "runs the programs that the model writes, and the tests of its data"
        )


def _refuse(key: str, what: str) -> None:
    if not is_allowed():
        raise Refused(
            f"task.{key} {what}.",
            ("If you trust it, allow that by ", Argument("allow_code", True), "; no file can."),
            kind="foreign_code",
            place=Place(key=("task", key)),
        )


def function(source: str, options: Mapping[str, object]) -> Callable[..., Any]:
    """Return the function that a section names, imported; say what it is.

    Raises:
        ConfigError: there is no such module or function.
        Refused: it is not allowed, or is no installed distribution's.
    """
    module, _, name = source.partition(":")
    if source not in OWN:
        call = find(source, options)
        _refuse("source", f"would call {call}")
        log.warning("calling %s", call)
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"task.source {source!r}: {error}. Is the package installed?", place=SOURCE
        ) from error
    except AttributeError:
        raise ConfigError(
            f"task.source: the module {module} has no function {name!r}.", place=SOURCE
        ) from None
    home = getattr(found, "__module__", None) or ""
    if home.partition(".")[0] != module.partition(".")[0]:
        raise Refused(
            f"task.source {source!r}: {name} is no function of {module} but of {home or 'no module'}; "
            f"only a package's own functions are called.",
            place=SOURCE,
        )
    return found


def find(source: str, options: Mapping[str, object]) -> Call:
    """Return what a source would call, without importing any of it.

    Raises:
        ConfigError: there is no such module.
        Refused: it is the standard library's, the working folder's, or no installed distribution's.
    """
    module = source.partition(":")[0]
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        raise Refused(
            f"task.source {source!r} names Python's own library; only functions of packages that were "
            f"installed to make rows are called.",
            place=SOURCE,
        )
    origins = _origins(module, source)
    owners = [_owner(origin) for origin in origins]
    for origin, owner in zip(origins, owners, strict=True):
        if owner is None:
            raise Refused(
                f"task.source {source!r}: {origin} belongs to no installed distribution. Make it a package "
                f"with a pyproject.toml and install it with pip; code that merely lies in a folder is "
                f"not run.",
                place=SOURCE,
            )
    owner = owners[-1]
    assert owner is not None
    return Call(source, options, f"{owner.name} {owner.version}", origins[-1])


def _origins(module: str, source: str) -> list[Path]:
    """Return the files that an import of the module would run, in their order.

    Raises:
        ConfigError: there is no such module.
    """
    names = module.split(".")
    found: list[Path] = []
    path: Sequence[str] | None = None
    for length in range(1, len(names) + 1):
        name = ".".join(names[:length])
        spec = _spec(name, path)
        if spec is None:
            said = f"No module named {name!r}"
            raise ConfigError(
                f"task.source {source!r}: {said}. Is the package installed?", place=SOURCE
            )
        if spec.has_location and spec.origin is not None:
            found.append(Path(spec.origin).resolve())
        path = spec.submodule_search_locations or ()
    if not found:
        raise ConfigError(
            f"task.source {source!r}: {module} is a folder without code.", place=SOURCE
        )
    return found


def _spec(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """Return where an import would find a module; unlike `find_spec` of importlib.util, run no parent."""
    for finder in sys.meta_path:
        if (spec := finder.find_spec(name, path)) is not None:
            return spec
    return None


def _owner(origin: Path) -> importlib.metadata.Distribution | None:
    """Return the installed distribution whose file this is, or that is installed as editable from there."""
    here = Path.cwd().resolve()
    for distribution in importlib.metadata.distributions():
        if Path(str(distribution.locate_file(""))).resolve() == here:
            continue  # whoever filled the working folder would install by it
        listed = (file for file in distribution.files or () if file.name == origin.name)
        if any(Path(str(file.locate())).resolve() == origin for file in listed):
            return distribution
        folder = _editable(distribution)
        if folder is not None and origin.is_relative_to(folder):
            return distribution
    return None


def _editable(distribution: importlib.metadata.Distribution) -> Path | None:
    """Return the folder of a distribution that was installed as editable (PEP 610)."""
    try:
        said = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    if not said.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(said["url"]).path)).resolve()
