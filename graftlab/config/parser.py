"""YAML text as plain values with the place of every key.

Scalars follow YAML 1.2: `1e-4` is a number, `on`, `off` and `no` are text, `0123` is 123 and
`1_000` is text. Keys are always text. The node tree is walked here, not by ruamel's constructors,
because those read `1_000` as a number and expand aliases without a limit.
"""

import functools
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from graftlab.errors import ConfigError, Place, near_file

Location = tuple[str | int, ...]
"""Keys and list indices from the top of a file to a value."""
Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
"""What YAML can say."""

MAX_BYTES = 1_000_000
MAX_NODES = 20_000  # a bomb of nested aliases expands to billions
MAX_DEPTH = 40
# What ruamel gives to values without a tag, and the same written out
TAGS = r"tag:yaml\.org,2002:(str|int|float|bool|null|map|seq|timestamp|value|merge)"
TEXT_TAG = "tag:yaml.org,2002:str"

SCALARS: tuple[tuple[str, Callable[[str], Value]], ...] = (  # YAML 1.2 core schema, section 10.3.2
    (r"null|Null|NULL|~|", lambda _: None),
    (r"true|True|TRUE", lambda _: True),
    (r"false|False|FALSE", lambda _: False),
    (r"[-+]?[0-9]+", int),
    (r"0o[0-7]+", lambda text: int(text, 8)),
    (r"0x[0-9a-fA-F]+", lambda text: int(text, 16)),
    (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    (r"[-+]?\.(inf|Inf|INF)", lambda text: float(text.replace(".", ""))),
    (r"\.(nan|NaN|NAN)", lambda _: float("nan")),
)


class Parsed(NamedTuple):
    """A YAML mapping with where each key stands."""

    values: dict[str, Any]
    places: dict[Location, Place]
    """Line and column of each key and list item, counted from 1."""


def scalar(text: str) -> Value:
    """Return what a plain (unquoted) scalar means in YAML 1.2."""
    for pattern, convert in SCALARS:
        if re.fullmatch(pattern, text):
            return convert(text)
    return text


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a YAML file as plain values.

    Raises:
        ConfigError: the file cannot be read, or is not one mapping of YAML 1.2 with unique keys.
    """
    return parse_file(path).values


def parse_file(path: str | os.PathLike[str]) -> Parsed:
    """Return a YAML file's values and places. `Raises:` as `read_yaml`."""
    return parse(file_text(Path(path)), str(path))


def file_text(path: Path) -> str:
    """Return the text of a UTF-8 file of at most a megabyte, with or without a byte order mark.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise _refused(path, "this is a folder; a YAML file is wanted.") from None
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path} (looked in {Path.cwd()}).{near_file(path)}", kind="missing"
        ) from None
    except (OSError, ValueError) as error:
        raise _refused(path, f"it cannot be read: {error}.") from None
    if len(data) > MAX_BYTES:
        raise _refused(path, f"it is larger than {MAX_BYTES} bytes: is it a run file?")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refused(path, "it is UTF-16. Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        said = f"byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        raise ConfigError(said, place=Place(str(path), line)) from None


def _refused(path: Path, said: str) -> ConfigError:
    return ConfigError(said, place=Place(str(path)))


def parse(text: str, source: str) -> Parsed:
    """Return the values and places of a YAML text that is one mapping; messages name `source`.

    Raises:
        ConfigError: it is not.
    """
    whole = Place(source)
    node = _compose(text, whole)
    if node is None:
        raise ConfigError("the file is empty: it has no keys.", place=whole)
    if not isinstance(node, MappingNode):
        kind = "text" if isinstance(node, ScalarNode) else "a list"
        said = f"the file is {kind}; 'key: value' is wanted."
        raise ConfigError(said, place=_place(node, whole))
    places: dict[Location, Place] = {}
    walk = _Walk(whole, places)
    return Parsed(walk.mapping(node, ()), places)


def parse_value(text: str, source: Place) -> Value:
    """Return the value of a YAML text of any shape, as an override `key=text` has it."""
    node = _compose(text, source)
    return None if node is None else _Walk(source, {}).value(node, ())


def _compose(text: str, source: Place) -> Node | None:
    try:
        return YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = replace(source, line=mark.line + 1, column=mark.column + 1) if mark else source
        problem = error.problem or error.context
        hint = ""
        if problem and "'\\t'" in problem:
            hint = " YAML is indented with spaces, not with tabs."
        elif problem and "mapping values" in problem:
            hint = " Is the indentation right, or does a text with ': ' lack quotes?"
        elif problem and ("end of stream" in problem or "stream end" in problem):
            hint = " Is a quote or a bracket opened and not closed?"
        elif problem and "expected ',' or" in problem:
            hint = " Is a bracket opened and not closed, or is a comma missing?"
        elif problem and "cannot start any token" in problem:
            hint = " Put a text that begins so in quotes."
        elif problem and "another document" in problem:
            hint = " Only one document a file: remove the second '---'."
        raise ConfigError(f"{problem}.{hint}", place=where, kind="syntax") from None
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise ConfigError(said, place=source, kind="syntax") from None
    except RecursionError:
        raise ConfigError(f"it is nested more than {MAX_DEPTH} deep.", place=source) from None


def _place(node: Node, source: Place) -> Place:
    return replace(source, line=node.start_mark.line + 1, column=node.start_mark.column + 1)


class _Walk:
    """Turns nodes into values, noting places, within limits on size and depth."""

    def __init__(self, source: Place, places: dict[Location, Place]) -> None:
        self._place = functools.partial(_place, source=source)
        self._places = places
        self._count = 0

    def value(self, node: Node, location: Location) -> Value:
        self._count += 1
        if self._count > MAX_NODES or len(location) > MAX_DEPTH:
            raise ConfigError(
                f"more than {MAX_NODES} values or {MAX_DEPTH} levels, counting what aliases (*name) repeat.",
                place=self._place(node),
            )
        if not re.fullmatch(TAGS, str(node.tag)):
            said = f"tags such as {node.tag} are not allowed."
            raise ConfigError(said, place=self._place(node))
        if isinstance(node, ScalarNode):
            plain = node.style is None and node.tag != TEXT_TAG
            return scalar(node.value) if plain else node.value
        if isinstance(node, MappingNode):
            return self.mapping(node, location)
        return [self._item(item, (*location, index)) for index, item in enumerate(node.value)]

    def _item(self, node: Node, location: Location) -> Value:
        self._places[location] = self._place(node)
        return self.value(node, location)

    def mapping(self, node: MappingNode, location: Location) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise ConfigError("a key must be one word.", place=self._place(key_node))
            key = str(key_node.value)
            if key == "<<":
                said = "merge keys (<<) are not YAML 1.2. Use 'extends:'."
                raise ConfigError(said, place=self._place(key_node))
            if key in mapping:
                first = self._places[(*location, key)]
                said = f"the key {key!r} stands here and at {first}. Keep one of them."
                raise ConfigError(said, place=self._place(key_node))
            self._places[(*location, key)] = self._place(key_node)
            mapping[key] = self.value(value_node, (*location, key))
        return mapping
