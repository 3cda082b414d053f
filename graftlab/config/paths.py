"""Paths of a run file made absolute: each is relative to the file that it stands in."""

import os
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from graftlab.config.document import Document
from graftlab.config.parser import Location
from graftlab.config.section import NamesModel, expand


def absolute(annotation: object, value: Any, document: Document, where: Location) -> Any:
    """Return what stands at a key, of the type `annotation`, with every path in it absolute.

    The name of a model is a path if it begins like one, or if a model lies there. What is no path, or of the
    wrong type, is handed back as it is.
    """
    if isinstance(value, dict):
        fields = {k: f for model in sections(annotation) for k, f in model.model_fields.items()}
        typed = {
            key: (fields[key].annotation, *fields[key].metadata) for key in value if key in fields
        }
        return {
            key: absolute(typed.get(key), item, document, (*where, key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [absolute(annotation, item, document, (*where, n)) for n, item in enumerate(value)]
    if not isinstance(value, str) or not value:
        return value
    kinds = set(_leaves(annotation))
    if Path in kinds:
        return _joined(value, document.folder(*where))
    return model(value, document, where) if NamesModel in kinds else value


def model(name: str, document: Document, where: Location) -> str:
    """Return the absolute folder that a model's name means in the file where it stands; else the name."""
    path = _joined(name, document.folder(*where))
    begins_like_one = re.match(r"\.{0,2}/|~|\$|\.{1,2}$", name)
    return path if begins_like_one or is_model(Path(path)) else name


def is_model(folder: Path) -> bool:
    """Return whether a folder holds a model as transformers keeps it."""
    try:
        return (folder / "config.json").is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def names_model(field: FieldInfo) -> bool:
    """Return whether a field names a model."""
    return NamesModel in set(_leaves((field.annotation, *field.metadata)))


def elsewhere(text: str, document: Document, where: Location) -> str | None:
    """Return how a file would write a path that lies in the shell's folder, not where it says; else None."""
    folder, shell = document.folder(*where), Path.cwd()
    try:
        meant = expand(Path(text))
        if meant.is_absolute() or (folder / meant).exists() or not (shell / meant).exists():
            return None
    except (OSError, ValueError):
        return None
    return os.path.relpath(shell / meant, folder)


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the sections that a value of a type may be."""
    return (leaf for leaf in _leaves(annotation) if issubclass(leaf, BaseModel))


def _leaves(annotation: object) -> Iterator[type]:
    """Yield the plain types of an annotation, and those of its marks."""
    for part in annotation if isinstance(annotation, tuple) else (annotation,):
        if inside := typing.get_args(part):
            yield from _leaves(inside)
        elif isinstance(part, type):
            yield part
        elif isinstance(part, NamesModel):
            yield NamesModel


def _joined(text: str, folder: Path) -> str:
    """Return a path as it is from a folder, without `..` where no link is in the way."""
    try:
        given = expand(Path(text))
    except ValueError:  # said by the field's own validator
        return text
    if given.is_absolute():
        return str(given)
    path = folder / given
    plain = os.path.normpath(path)
    return plain if os.path.realpath(plain) == os.path.realpath(path) else str(path)
