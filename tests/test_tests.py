"""What is asked of the tests: fields rather than wording, no private name changed, few processes."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.rglob("*.py") if "outside" not in path.parts)
QUOTED = re.compile(r"(['`\"])[^\s'`\"]+\1")
WORD = re.compile(r"(?<!\S)[^\w\s]*[^\W\d_]{2,}(?:['-][^\W\d_]+)*[^\w\s]*(?!\S)")
WORDINGS = 98
"""Tests that may assert wording. It only ever falls: an error has `problems`, a note a `kind`, a score a
`value`, a log's record its `args`; and what they say to a reader may be said better."""
STARTS = re.compile(r"sys\.executable|several\.start")
FRESH = 27
"""Quick tests that may start Python anew, a second and more each: of what only a fresh process shows. It only
ever falls."""


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def cases(tree: ast.Module) -> list[ast.FunctionDef]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [node for node in found if node.name.startswith("test_")]


def texts(node: ast.AST, given: dict[str, list[str]]) -> Iterator[str]:
    """Yield the texts that an expression may be: its own, or those that `parametrize` gives it."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Name):
            yield from given.get(part.id, [])


def parameters(test: ast.FunctionDef) -> dict[str, list[str]]:
    """Return the texts that the decorators of a test give to each of its parameters."""
    given: dict[str, list[str]] = {}
    for mark in test.decorator_list:
        if not (isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("parametrize")):
            continue
        names = [name for text in texts(mark.args[0], {}) for name in re.findall(r"\w+", text)]
        for row in getattr(mark.args[1], "elts", []):
            values = row.args if isinstance(row, ast.Call) else getattr(row, "elts", [row])
            for name, value in zip(names, values, strict=False):
                given.setdefault(name, []).extend(texts(value, {}))
    return given


def wordings(test: ast.FunctionDef) -> list[str]:
    """Return the texts of three words or more that a test looks for in what is said to a reader; keys, paths,
    numbers and quoted names are no words."""
    given, found = parameters(test), []
    for node in ast.walk(test):
        if isinstance(node, ast.keyword) and node.arg == "match":
            found += texts(node.value, given)
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            found += texts(node.left, given)
    return [text for text in found if len(WORD.findall(QUOTED.sub("", text))) >= 3]


def private(name: str) -> bool:
    return re.fullmatch(r"_[a-z]\w*", name.rpartition(".")[2]) is not None


def called(node: ast.Call) -> str:
    """Return the name of what is called, without what it belongs to."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def changes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield where a private name of something else is set: by `setattr`, or by an assignment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) in ("setattr", "delattr"):
            named = [text for argument in node.args[:2] for text in texts(argument, {})]
        elif isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in ast.walk(target)]
            named = [
                part.attr
                for part in targets
                if isinstance(part, ast.Attribute) and ast.unparse(part.value) != "self"
            ]
        else:
            continue
        yield from ((node.lineno, name) for name in named if private(name))


def test_no_more_tests_assert_wording_than_did():
    found = {
        f"{path.relative_to(HERE)}:{test.lineno} {test.name}": said
        for path in FILES
        for test in cases(parsed(path))
        if (said := wordings(test))
    }
    more = "assert fields in place of words, as other tests of the file do"
    assert len(found) <= WORDINGS, f"{more}; these assert words: {sorted(found)}"


def test_wording_is_seen_wherever_it_stands():
    [test] = cases(
        ast.parse(
            "@pytest.mark.parametrize(('value', 'said'), [(1, 'is out of range'), (2, 'range')])\n"
            "def test_it(value, said):\n"
            "    with pytest.raises(ValueError, match='it was said thus'):\n"
            "        call(value)\n"
            "    assert said in text and 'two words' in text and 'three plain words' not in text\n"
        )
    )
    assert set(wordings(test)) == {"it was said thus", "is out of range", "three plain words"}


def test_no_test_changes_a_private_name():
    found = [
        f"{path.relative_to(HERE)}:{line} {name}"
        for path in FILES
        for line, name in changes(parsed(path))
    ]
    assert not found, (
        "use hooks of the run file, a part of the test's own, files or the environment"
    )


def test_changes_of_private_names_are_seen_however_they_are_made():
    code = (
        "monkeypatch.setattr(Loop, '_count', f)\nm.setattr('a.b._c', 1)\nLoop._run = f\n"
        "self._mine = 1\nmonkeypatch.setattr(Loop, '__init__', f)\nLoop.run = f\n"
    )
    assert set(changes(ast.parse(code))) == {(1, "_count"), (2, "a.b._c"), (3, "_run")}


def fresh(tree: ast.Module) -> list[str]:
    """Return the quick tests of a file that start Python anew, by themselves or by others of the file."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    used = {
        name: {getattr(part, "id", getattr(part, "arg", "")) for part in ast.walk(node)}
        for name, node in functions.items()
    }
    starting, more = set(), {n for n, f in functions.items() if STARTS.search(ast.unparse(f))}
    while more:
        starting |= more
        more = {name for name in functions.keys() - starting if used[name] & starting}
    slow = any("mark.slow" in ast.unparse(n) for n in tree.body if isinstance(n, ast.Assign))
    tests = [] if slow else cases(tree)
    return [
        test.name
        for test in tests
        if test.name in starting and "slow" not in str(list(map(ast.unparse, test.decorator_list)))
    ]


def test_no_more_quick_tests_start_python_than_did():
    some = [path for path in FILES if STARTS.search(path.read_text(encoding="utf-8"))]
    found = {str(path.relative_to(HERE)): fresh(parsed(path)) for path in some}
    assert sum(map(len, found.values())) <= FRESH, (
        f"mark it slow, or do it in this process: {found}"
    )


def test_a_process_is_seen_wherever_a_test_starts_it():
    code = (
        "def run():\n    return subprocess.run([sys.executable, '-c', ''])\n"
        "@pytest.fixture\ndef made():\n    return run()\n"
        "def test_a(made):\n    pass\n@pytest.mark.slow\ndef test_b(made):\n    pass\n"
        "def test_c():\n    run()\ndef test_d():\n    pass\n"
    )
    assert fresh(ast.parse(code)) == ["test_a", "test_c"]
    assert fresh(ast.parse(f"pytestmark = pytest.mark.slow\n{code}")) == []
