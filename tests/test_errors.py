"""Errors carry problems: records that words are made of, in the spelling of whoever called."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import graftlab
from graftlab import config
from graftlab.cli import option
from graftlab.config import Problems
from graftlab.errors import (
    NEW,
    OUT,
    Argument,
    ConfigError,
    DataError,
    Fault,
    Place,
    in_python,
    wrong,
)
from graftlab.rundir import files
from graftlab.runs.identity import compare_config

FLAGS = Path(__file__).parent / "commands.txt"


def test_a_text_alone_is_one_problem():
    error = ConfigError("the lock is held.", ("Wait, or choose another with ", OUT, "."))
    (problem,) = error.problems
    assert problem.said == "the lock is held."
    assert str(error) == "the lock is held. Wait, or choose another with `out`."


@pytest.mark.parametrize(
    ("argument", "python", "command"),
    [
        (OUT, "`out`", "--out"),
        (NEW, "new=True", "--new"),
        (Argument("allow_inexact", True), "allow_inexact=True", "--allow-inexact"),
        (Argument("task", "sst2"), "task='sst2'", "--task sst2"),
        (Argument("override", ("a:b", "c d")), "override=('a:b', 'c d')", "--override a:b --override 'c d'"),
        (Argument("overrides", "seed"), "overrides='seed'", "--set seed"),
    ],
)  # fmt: skip
def test_an_argument_is_spelled_as_the_caller_writes_it(argument, python, command):
    assert in_python(argument) == python
    assert option(argument) == command


def test_problems_are_sorted_by_place_and_each_is_there_once():
    problems = Problems()
    for line in (12, 3, 12):
        problems.say(Place("a.yaml", line, 1), "wrong.")
    problems.say(Place(argument=Argument("overrides", "seed")), "wrong.")
    with pytest.raises(ConfigError) as caught:
        problems.raise_if_any()
    assert [problem.place.line for problem in caught.value.problems] == [3, 12, None]


def test_what_is_wrong_with_the_data_alone_is_a_data_error_and_with_more_a_config_error():
    problems = Problems()
    problems.include(DataError("no rows."), Place("a.yaml", 1, 1))
    with pytest.raises(DataError):
        problems.raise_if_any()
    problems.include(ConfigError("no key."))
    with pytest.raises(ConfigError):
        problems.raise_if_any()


def test_an_inner_place_is_kept():
    inner = Fault("wrong.", place=Place("base.yaml", 2, 3))
    (problem,) = ConfigError(inner).at(Place("top.yaml", 1, 1)).problems
    assert problem.place == inner.place


def test_a_problem_of_a_part_stands_below_its_section():
    assert wrong(("columns", "text"), "gone.").within("task").place.key == (
        "task",
        "columns",
        "text",
    )


def test_json_has_place_key_given_and_allowed(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "training: {epochs: 1}\ntask:\n  name: x\n", encoding="utf-8"
    )
    document = config.read(tmp_path / "run.yaml")
    fault = Fault(
        "wrong.", "not_allowed", document.place("task", "name"), "x", ["y"], (("Take ", NEW),)
    )
    assert fault.as_json(option) == {
        "kind": "not_allowed",
        "message": f"{tmp_path}/run.yaml:3:3: wrong. Take --new",
        "file": f"{tmp_path}/run.yaml",
        "line": 3,
        "column": 3,
        "row": None,
        "argument": None,
        "key": "task.name",
        "given": "x",
        "allowed": ["y"],
        "remedies": ["Take --new"],
    }


def test_an_error_goes_through_a_pipe_with_its_problems():
    error = DataError("no rows.", ("Give some with ", OUT), kind="no_rows")
    again = pickle.loads(pickle.dumps(error))  # its own bytes
    assert again.problems == error.problems
    assert str(again) == str(error)


OWN = set(re.findall(r"--[a-z-]+", FLAGS.read_text(encoding="utf-8")))
COMMANDS = {
    "config/foreign.py",
    "demo.py",
    "drafts/draft.py",
    "release/push/card.py",
}  # they compose whole command lines, to be typed as they are
BUBBLEWRAP = "programs/sandbox.py"  # its own options
PACKAGE = Path(graftlab.__file__).parent


def library(holding):
    """Yield each module that holds a text, but the commands', with its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        text = path.read_text(encoding="utf-8")
        if holding in text and not name.startswith(("commands/", "cli.py")):
            yield name, ast.parse(text)


def test_the_library_speaks_of_arguments_and_no_sentence_of_options():
    for name, tree in library("--"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                sentence = re.sub(r"`[^`]*`", "", node.value)  # what is typed as it stands
                options = OWN & set(re.findall(r"(?<![\w-])--[a-z-]+", sentence))
                assert not options or name in {*COMMANDS, BUBBLEWRAP}, (name, node.value)


def test_every_argument_that_an_error_names_is_an_option():
    named = {
        ast.literal_eval(node.args[0])
        for _, tree in library("Argument(")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Argument"
        if isinstance(node.args[0], ast.Constant)
    }
    assert {"out", "new", "override", "overrides", "task", "allow_inexact"} <= named
    assert {option(Argument(name)) for name in named} <= OWN


def test_a_directory_that_is_taken_is_told_in_both_spellings(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    with pytest.raises(ConfigError) as caught:
        files.refuse_taken(tmp_path / "there")
    assert caught.value.problems[0].kind == "taken"
    assert str(caught.value).endswith("Choose another with `out`.")
    assert caught.value.words(option).endswith("Choose another with --out.")


def test_a_change_that_is_refused_names_its_override_in_both_spellings():
    with pytest.raises(ConfigError) as caught:
        compare_config({"a": {"b:c": 1}}, {"a": {"b:c": 2}}, ())
    (problem,) = caught.value.problems
    assert (problem.kind, problem.allowed, problem.given) == ("changed", 1, 2)
    assert "override=('a.b:c',)" in str(caught.value)
    assert "--override a.b:c" in caught.value.words(option)
