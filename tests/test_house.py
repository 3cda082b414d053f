"""The house: few loose modules, names that say what a room holds, imports that point down, and no circle."""

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from house import MAY_FIND, RUNG

import graftlab

ROOT = Path(graftlab.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "recipes" not in path.relative_to(ROOT).parts
}
OUTSIDE = ("graftlab", "graftlab.__main__")  # the public surface and `python -m graftlab`
MOST_LOOSE = 8
MOST_ANY = 12  # of 1,000 lines
FIELD_WORDS = {
    "training",
    "testing",
    "planning",
    "sharding",
    "_packing",
    "forgetting",
}  # gerunds that the field says
SAYS_NOTHING = {"base", "common", "found", "helper", "manager", "misc", "own", "said", "utils"}


def statements(block: ast.AST) -> Iterator[ast.AST]:
    """Yield all that stands inside, at any depth, without going through the expressions."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(block, part, ()):
            yield node
            yield from statements(node)


def imported(name: str, text: str) -> Iterator[str]:
    """Yield the modules that a file imports: inside functions and for annotations too."""
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            is_package = FILES[name].name == "__init__.py"
            above = ".".join(parts[: len(parts) - node.level + is_package]) if node.level else ""
            source = ".".join(filter(None, [above, node.module]))
            names = {f"{source}.{alias.name}" for alias in node.names}
            yield from ({full if full in FILES else source for full in names}) & FILES.keys()
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & FILES.keys()


@functools.cache
def arrows() -> dict[str, set[str]]:
    found = {}
    for name, path in FILES.items():
        others = set(imported(name, path.read_text(encoding="utf-8")))
        found[name] = others - {name, *OUTSIDE}
    return found


def room_of(name: str) -> str:
    return name.split(".")[1]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return every set of files that lead back to themselves (strongly connected, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            members, stack[at:] = sorted(stack[at:]), []
            if len(members) > 1:
                found.append(members)

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_few_modules_stand_loose():
    loose = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    assert len(loose) <= MOST_LOOSE, f"put one of {sorted(loose)} into the room that it belongs to"


def test_every_file_stands_in_a_room_that_is_on_the_plan():
    rooms = {room_of(name) for name in FILES if name not in OUTSIDE}
    assert rooms == RUNG.keys(), "give it a rung and a line in tests/house.py"


def test_imports_point_down():
    wrong = {
        f"{name} stands on rung {RUNG[room_of(name)]} and imports {other}"
        for name in set(FILES) - set(OUTSIDE)
        for other in arrows()[name]
        if room_of(other) != room_of(name) and RUNG[room_of(other)] >= RUNG[room_of(name)]
    }
    assert not wrong


def test_no_files_import_each_other_in_a_circle_not_even_in_functions_or_for_annotations():
    assert not circles(arrows())


def test_a_circle_is_seen_wherever_its_import_stands():
    """The check itself: one import at the top, one in a function, one for annotations."""
    a, b, c = "graftlab.errors", "graftlab.seeds", "graftlab.registry"
    texts = {
        a: "from graftlab import seeds\n",
        b: "def later():\n    from graftlab.registry import find\n",
        c: "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import graftlab.errors\n",
    }
    graph = {name: set(imported(name, text)) for name, text in texts.items()}
    assert circles(graph) == [sorted([a, b, c])]


def test_modules_are_named_by_nouns_that_say_something():
    stems = {name: name.rpartition(".")[2] for name in FILES}
    gerunds = {n for n, stem in stems.items() if stem.endswith("ing")} - {
        n for n, stem in stems.items() if stem in FIELD_WORDS
    }
    empty = {n for n, stem in stems.items() if stem.strip("_") in SAYS_NOTHING}
    assert not gerunds | empty


def test_only_the_wiring_finds_parts_by_name():
    found = set()
    for name in set(FILES) - set(OUTSIDE):
        text = FILES[name].read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "registry" in text else ():
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("registry"), attr="find")):
                    found.add(room_of(name))
    assert found <= MAY_FIND, "what these need must be handed to them"


def test_few_lines_say_any():
    lines = [line for path in FILES.values() for line in path.read_text("utf-8").splitlines()]
    untyped = [line for line in lines if re.search(r"\bAny\b", line)]
    assert len(untyped) <= MOST_ANY * len(lines) / 1000


def test_no_file_is_over_300_lines():
    lengths = {n: len(p.read_text("utf-8").splitlines()) for n, p in FILES.items()}
    long = {name: length for name, length in lengths.items() if length > 300}
    assert not long, f"give what stands for itself a file of its own: {long}"
