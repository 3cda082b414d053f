"""A YAML file that lists models: what is wrong in it is said at its line, all of it at once."""

import pytest
from peft import LoraConfig, get_peft_model
from torch import nn

from graftlab.errors import ConfigError
from graftlab.explanation import model_list, targets
from graftlab.explanation.spool import Spool


def problems(tmp_path, text):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised, Spool() as spool:
        targets.find([str(path)], targets.Options(), spool)
    assert {problem.place.file for problem in raised.value.problems} == {str(path)}
    return raised.value.problems


def test_unknown_keys_and_wrong_values_are_all_said_with_line_key_and_what_was_meant(tmp_path):
    rank, family, path = problems(
        tmp_path,
        "models:\n  small: {path: adapter, rnak: 3}\n  large:\n    path: other\n    task_tpye: similar\n"
        "  third:\n    path: 3\n",
    )
    assert (rank.place.line, rank.place.key) == (2, ("models", "small", "rnak"))
    assert (family.place.line, family.place.key) == (5, ("models", "large", "task_tpye"))
    assert "'task_type'" in family.said
    assert set(family.allowed) == {"path", "base", "task_type", "method"}
    assert (path.place.line, path.place.column, path.kind) == (7, 5, "not_allowed")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("models:\n  small: {base: there}\n", 2, ("models", "small", "path")),
        ("models:\n  small: 3\n", 2, ("models", "small")),
        ("models: []\n", 1, ("models",)),
        ("models:\n  small: there\nmodel: x\n", 3, ("model",)),
        ("\nmodles:\n  small: {path: there}\n", 2, ("modles",)),
        ("models:\n  one: a\n  two: b\n  one: c\n", 4, ()),
    ],
)
def test_a_list_that_is_none_says_where_it_goes_wrong(tmp_path, text, line, key):
    (problem,) = problems(tmp_path, text)
    assert (problem.place.line, problem.place.key) == (line, key)


def test_a_model_that_is_not_there_is_told_at_its_entry(tmp_path):
    (problem,) = problems(tmp_path, "models:\n  small: {path: nowhere}\n")
    assert (problem.place.line, problem.place.key) == (2, ("models", "small"))
    assert str(tmp_path / "nowhere") in problem.said


def test_entries_stand_below_models_or_alone_and_paths_are_those_of_the_file(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

    get_peft_model(Net(), LoraConfig(r=1, target_modules=["layer"])).save_pretrained(
        tmp_path / "a" / "adapter"
    )
    (tmp_path / "a" / "below.yaml").write_text("models:\n  one: {path: adapter, method: mine}\n")
    (tmp_path / "a" / "alone.yaml").write_text("two: adapter\n")
    with Spool() as spool:
        given = [str(tmp_path / "a" / name) for name in ("below.yaml", "alone.yaml")]
        one, two = targets.find(given, targets.Options(), spool)
    assert (one.name, two.name) == ("one", "two")
    assert [subject.about.method for subject in (*one.subjects, *two.subjects)] == ["mine", "lora"]
    assert [list(subject.names()) for subject in (*one.subjects, *two.subjects)] == [
        ["layer.weight"]
    ] * 2
    (found,) = model_list.read(tmp_path / "a" / "alone.yaml")
    assert found.entry.path == tmp_path / "a" / "adapter"
