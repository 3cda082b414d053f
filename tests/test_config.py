"""Run files: YAML 1.2, places, bases, overrides, and errors that name what was meant."""

import string
from pathlib import Path
from typing import Literal

import pytest
from faults import fault
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator
from ruamel.yaml import YAML

from graftlab import config, registry
from graftlab.config import Conflict, Paths, Section, build, closest, dump, inline, read, read_yaml
from graftlab.config.parser import parse_value
from graftlab.errors import NOWHERE, Argument, ConfigError, Place


class Schedule(Section):
    name: Literal["linear", "cosine"] = "linear"
    warmup: float = Field(0.06, ge=0)


class Toy(Section):
    steps: int = Field(10, ge=1, le=1000)
    rate: float = Field(1e-3, gt=0)
    compile: bool = False
    label: str = "x"
    targets: str | tuple[str, ...] = "all"
    schedule: Schedule = Schedule()
    folder: Path | None = None

    @model_validator(mode="after")
    def _ends_after_warmup(self):
        if self.schedule.warmup > self.steps:
            raise Conflict("steps", "schedule.warmup is longer than steps")
        return self


@pytest.fixture
def write(tmp_path):
    def write(text, name="run.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def toy(path, overrides=()):
    document = read(path, overrides)
    return build(Toy, document.values.get("toy"), document, ("toy",))


def refusal(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


# Expected values: the YAML 1.2.2 specification, section 10.3.2 (core schema).
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1e3", 1000.0), ("-.5", -0.5), ("+12", 12), ("0123", 123), ("0o14", 12),
        ("0x1F", 31), (".inf", float("inf")), ("-.INF", float("-inf")), ("12.", 12.0),
        ("1_000", "1_000"), ("on", "on"), ("off", "off"), ("yes", "yes"), ("no", "no"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("2024-01-02", "2024-01-02"), ("1:30", "1:30"), ("'1'", "1"), ("!!str 12", "12"),
        ('"caf\\u00e9"', "café"), ("=", "="), ("0b1", "0b1"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(write, text, value):
    read_value = read_yaml(write(f"key: {text}\n"))["key"]
    assert (read_value, type(read_value)) == (value, type(value))


def test_keys_are_text_whatever_they_look_like(write):
    assert read_yaml(write("no: 1\n0: 2\ntrue: 3\n")) == {"no": 1, "0": 2, "true": 3}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a: 1\n\tb: 2\n", "2:1: found character '\\t'"),
        ("a: 1\n\tb: 2\n", "not with tabs"),
        ("a: 1\nb: 2\na: 3\n", "3:1: the key 'a' stands here and at"),
        ("x: {b: 1, b: 2}\n", "1:11: the key 'b'"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- 1\n- 2\n", "1:1: the file is a list"),
        ("just words\n", "1:1: the file is text"),
        ("a: 1\n---\nb: 2\n", "2:1: but found another document"),
        ("a: [1, 2\n", "expected ',' or ']'"),
        ("a: b: c\n", "1:5: mapping values are not allowed here"),
        ("a: *nothing\n", "found undefined alias"),
        ("a: !!python/object:os.system x\n", "tag:yaml.org,2002:python"),
        ("a: !custom x\n", "tags such as !custom"),
        ("base: &b {c: 1}\na:\n  <<: *b\n", "3:3: merge keys"),
        ("[1, 2]: 3\n", "a key must be one word"),
        ("a: &a [*a]\n", "levels"),
        pytest.param("a: " + "[" * 3000, "deep", marks=pytest.mark.slow),
        (b"a: \xff\n", "1: byte 0xff"),
        ("a: 1\n".encode("utf-16"), "is UTF-16"),
        (b"a: \x00\n", "special characters"),
        (b"a: " + b"x" * 1_000_001, "larger than"),
    ],
)
def test_a_file_that_is_no_run_file_is_explained(write, data, said):
    path = write(data)
    message = refusal(read_yaml, path)
    assert said in message
    assert str(path) in message


def test_a_bomb_of_aliases_is_refused_before_it_expands(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "than 20000" in refusal(read_yaml, write("\n".join(lines)))


def test_aliases_that_repeat_a_little_are_fine(write):
    assert read_yaml(write("a: &a [1]\nb: *a\n")) == {"a": [1], "b": [1]}


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(write):
    assert read_yaml(write(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n")) == {"a": 1, "b": {"c": 2}}


def test_a_missing_file_a_folder_and_an_impossible_name_are_told_apart(tmp_path):
    assert "no recipe" in refusal(read, tmp_path / "nothing.yaml")
    assert "is a folder" in refusal(read, tmp_path)
    assert "cannot be a file" in refusal(read, "x" * 300)
    assert "NUL" in refusal(read, "a\0b")
    assert "'glue/sst2-lora'" in refusal(read, "glue/sst2-lor")


@pytest.mark.parametrize(
    "name", ["with space.yaml", "qu'o\"te.yaml", "únï©ode.yaml", "a/../b.yaml"]
)
def test_files_of_any_name_are_read(write, tmp_path, name):
    (tmp_path / "a").mkdir()
    assert read(write("seed: 3\n", name)).values == {"seed": 3}


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("backbone: {kind: tiny}\ntask: {name: sst2}\n", True),
        ("base: run.yaml\nmethods: [lora]\n", True),
        ("base: run.yaml\nspace: {}\n", True),
        ("a line\ntask: another\n", False),
    ],
)
def test_a_text_file_is_read_where_it_has_two_keys_of_a_run_file(write, text, is_one):
    path = write(text, "run.txt")
    if is_one:
        assert len(read(path).values) == 2
        return
    with pytest.raises(ConfigError, check=fault("foreign")):
        read(path)


def test_a_symlink_is_followed(write, tmp_path):
    (tmp_path / "link.yaml").symlink_to(write("seed: 3\n"))
    assert read(tmp_path / "link.yaml").values == {"seed": 3}


def test_every_problem_is_listed_with_its_place(write):
    path = write(
        "toy:\n  setps: 3\n  rate: on\n  compile: yes\n  label: 12\n  steps: 1e2\n"
        "  targets: [a, 3]\n  schedule:\n    nmae: cosine\n    warmup: 1_000\n"
    )
    lines = refusal(toy, path).splitlines()
    assert lines[0] == "8 problems:"
    expected = [
        "2:3: unknown key in toy: 'setps'. Did you mean 'steps'? Known: ",
        "3:3: toy.rate is 'on'; allowed: a number above 0.",
        "4:3: toy.compile is 'yes'; allowed: true or false. In YAML 1.2 yes is text",
        "5:3: toy.label is 12; allowed: text. Put it in quotes",
        "6:3: toy.steps is 100.0; allowed: a whole number at least 1 and at most 1000. Write 100.",
        "7:16: toy.targets.1 is 3; allowed: text.",
        "9:5: unknown key in toy.schedule: 'nmae'. Did you mean 'name'? Known: name, warmup.",
        "10:5: toy.schedule.warmup is '1_000'; allowed: a number at least 0. Write it without",
    ]
    for line, start in zip(lines[1:], expected, strict=True):
        assert line.startswith(f"  {path}:{start}")


@pytest.mark.parametrize(
    ("given_value", "allowed"),
    [
        ("steps: 0", "most 1000"),
        ("steps: -1", "most 1000"),
        ("steps: true", "a whole number"),
        ("steps: '3'", "Write it without quotes"),
        ("steps: null", "a whole number"),
        ("rate: 0", "above 0"),
        ("rate: .nan", "a number"),
        ("rate: .inf", "a number"),
        ("compile: 1", "true or false"),
        ("schedule: linear", "a section (key: value)"),
        ("schedule: {name: linaer}", "'linear' or 'cosine'"),
        ("targets: {a: 1}", "text or a list"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(write, given_value, allowed):
    assert allowed in refusal(toy, write(f"toy: {{{given_value}}}\n"))


def test_a_conflict_between_keys_stands_at_the_key_that_it_names(write):
    with pytest.raises(ConfigError) as caught:
        toy(write("toy:\n  schedule:\n    warmup: 5\n  steps: 3\n"))
    (problem,) = caught.value.problems
    assert (problem.kind, problem.place.line, problem.place.column) == ("conflict", 4, 3)
    assert problem.place.key == ("toy", "steps")


def test_an_empty_section_is_all_defaults(write):
    assert toy(write("toy:\n")) == Toy()


def one_slip(name):
    """Every word that `name` becomes when a letter is left out, added, wrong, or swapped with the next."""
    letters = string.ascii_lowercase + "_"
    parts = [(name[:at], name[at:]) for at in range(len(name) + 1)]
    return (
        {a + b[1:] for a, b in parts if b}
        | {a + letter + b for a, b in parts for letter in letters}
        | {a + letter + b[1:] for a, b in parts if b for letter in letters}
        | {a + b[1] + b[0] + b[2:] for a, b in parts if len(b) > 1}
    ) - {name}


def all_sections():
    """Every section of every part that is installed."""
    from graftlab.runfile import Root
    from graftlab.training import config as training

    kinds = ("backbones", "tasks", "methods")
    parts = [registry.find(kind, name).Config for kind in kinds for name in registry.names(kind)]
    return [Root, training.Config, Paths, *parts]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_slip_in_a_key_of_any_part_gives_the_right_suggestion(data):
    fields = data.draw(
        st.sampled_from([list(s.model_fields) for s in all_sections() if s.model_fields])
    )
    meant = data.draw(st.sampled_from(fields))
    typo = data.draw(st.sampled_from(sorted(one_slip(meant))))
    if typo in fields:
        return
    # Where two keys are one slip away, either is a right answer.
    assert closest(typo, fields) in {field for field in fields if typo in one_slip(field)}


@pytest.mark.parametrize(
    ("said", "known", "meant"),
    [
        ("lr", ["learning_rate", "clip_norm"], "learning_rate"),
        ("num_train_epochs", ["epochs", "seed"], "epochs"),
        ("lora_alpha", ["alpha", "rank"], "alpha"),
        ("r", ["alpha", "rank"], "rank"),
        ("target_modules", ["targets", "rank"], "targets"),
        ("Rank", ["alpha", "rank"], "rank"),
        ("tp", ["tags", "to"], "to"),
        ("zebra", ["alpha", "rank"], None),
    ],
)
def test_the_words_of_other_libraries_are_understood(said, known, meant):
    assert closest(said, known) == meant


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=20
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=8
    ).filter(lambda key: key != "<<"), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(plain)
@example({"a": ["1e-4", "on", "0123", "1_000", "~", "", " x", "a: b", "#", "\x85", "\u2028", "<<"]})
@example({"a": [1e-5, 1e300, -0.0, float("inf"), 10**30]})
@example({"?0": None, ":0": [":", "?"]})
def test_what_is_written_is_read_back_the_same(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump({"value": value}), encoding="utf-8", newline="")
    back = read_yaml(path)["value"]
    assert (back, repr(back)) == (value, repr(value))
    line = inline(value)
    again = parse_value(line, NOWHERE)
    assert ("\n" in line, again, repr(again)) == (False, value, repr(value))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(plain)
def test_what_is_written_means_the_same_to_another_yaml_reader(value):
    text = dump({"value": value})
    assert YAML(typ="safe", pure=True).load(text) == {"value": value}


def test_keys_are_written_in_their_own_order():
    assert dump({"b": 1, "a": {"d": 1, "c": 2}}) == "b: 1\na:\n  d: 1\n  c: 2\n"


def test_a_child_says_only_what_differs(write):
    write("toy: {steps: 3, schedule: {warmup: 1}, targets: [a, b]}\nseed: 1\n", "base.yaml")
    child = write(
        "extends: base.yaml\ntoy: {schedule: {name: cosine}, targets: [c]}\n", "child.yaml"
    )
    schedule = {"warmup": 1, "name": "cosine"}
    assert read(child).values == {
        "toy": {"steps": 3, "schedule": schedule, "targets": ["c"]},
        "seed": 1,
    }


def test_a_key_keeps_the_place_of_the_file_it_comes_from(write):
    base = write("toy:\n  stepz: 3\n", "base.yaml")
    child = write("extends: base.yaml\ntoy:\n  rate: -1\n", "child.yaml")
    message = refusal(toy, child)
    assert f"{base}:2:3: unknown key in toy: 'stepz'" in message
    assert f"{child}:3:3: toy.rate is -1" in message


def test_another_part_drops_the_keys_of_the_part_it_replaces(write):
    write("method: {name: lora, rank: 8}\ntask: {max_length: 9}\nname: a\n", "base.yaml")
    child = write("extends: base.yaml\nmethod: {name: head}\ntask: {name: x}\nname: b\n", "c.yaml")
    assert read(child).values == {
        "method": {"name": "head"},
        "task": {"max_length": 9, "name": "x"},
        "name": "b",
    }


def test_the_same_part_said_twice_keeps_its_keys(write):
    write("task: {name: sst2, kind: classification, max_length: 9}\n", "base.yaml")
    child = write("extends: base.yaml\ntask: {name: sst2}\n", "child.yaml")
    assert read(child).values["task"]["max_length"] == 9


def test_a_base_is_found_beside_the_file_and_among_the_recipes(write, monkeypatch):
    write("seed: 5\n", "folder/base.yaml")
    child = write("extends: base.yaml\n", "folder/child.yaml")
    monkeypatch.chdir("/")
    assert read(child).values == {"seed": 5}
    assert read(write("extends: glue/base\n")).values == read("glue/base").values


def test_files_that_extend_each_other_are_refused(write):
    write("extends: b.yaml\n", "a.yaml")
    b = write("extends: a.yaml\n", "b.yaml")
    assert "in a circle" in refusal(read, b)
    assert "in a circle" in refusal(read, write("extends: self.yaml\n", "self.yaml"))


def test_a_base_that_is_not_there_is_named_with_its_place(write):
    path = write("seed: 1\nextends: glue/bsae\n")
    assert f"{path}:2:1" in refusal(read, path)
    assert "'glue/base'" in refusal(read, path)
    assert "a recipe's" in refusal(read, write("extends: [a]\n"))


def test_overrides_win_over_every_file_and_the_last_one_over_the_others(write):
    write("toy: {steps: 3}\n", "base.yaml")
    path = write("extends: base.yaml\ntoy: {steps: 4}\n")
    assert toy(path, ["toy.steps=5"]).steps == 5
    assert toy(path, ["toy.steps=5", "toy.steps=6"]).steps == 6


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("toy.rate=1e-4", "rate", 1e-4),
        ("toy.compile=true", "compile", True),
        ("toy.label=a=b", "label", "a=b"),
        ("toy.label='12'", "label", "12"),
        ('toy.label=""', "label", ""),
        ("toy.targets=[a, b]", "targets", ("a", "b")),
        ("toy.folder=null", "folder", None),
        ("toy.schedule={name: cosine}", "schedule", Schedule(name="cosine")),
    ],
)
def test_an_override_is_typed_as_yaml(write, override, field, value):
    assert getattr(toy(write("seed: 1\n"), [override]), field) == value


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("toy.steps", "write key.key=value"),
        ("toy..steps=1", "write key.key=value"),
        ("=1", "write key.key=value"),
        ("toy.steps=", "toy.steps=null for nothing"),
        ("toy.label=*x", "found undefined alias"),
        ("seed.x=1", "seed is 1, not a section"),
        ("extends=x", "only a file can say"),
        ("toy.stesp=1", "'stesp'"),
        ("toy.steps=0", "toy.steps is 0"),
    ],
)
def test_a_wrong_override_is_explained(write, override, said):
    with pytest.raises(ConfigError) as caught:
        toy(write("seed: 1\n"), [override])
    (problem,) = caught.value.problems
    assert said in problem.words()
    assert problem.place.argument.name == "overrides"
    assert problem.place.argument.value in (override, override.partition("=")[0])


ENTRIES = "toy: {entries: [{as: mine, name: sst2, n: 1}, {name: mnli}, {kind: qqp}, plain]}\n"


@pytest.mark.parametrize(
    ("key", "number"), [("0", 0), ("mine", 0), ("1", 1), ("mnli", 1), ("qqp", 2), ("2", 2)]
)
def test_an_override_reaches_an_entry_of_a_list_by_its_number_or_its_name(write, key, number):
    override = f"toy.entries.{key}.n=5"
    document = read(write(ENTRIES), [override])
    changed = [entry.get("n") for entry in document.values["toy"]["entries"][:3]]
    assert changed == [5 if n == number else (1, None, None)[n] for n in range(3)]
    place = document.place("toy", "entries", number, "n")
    assert place.argument == Argument("overrides", f"toy.entries.{key}.n")
    assert document.place("toy", "entries", 0, "name").line == 1


SPACES = """
space: {training.rate: {float: [1, 2], log: true}}
methods: [head, {name: lora, vary: {training.rate: [1, 2]}}]
"""


@pytest.mark.parametrize(
    ("override", "at", "found"),
    [
        ("space.training.rate.float=[1, 3]", ("space", "training.rate", "float"), [1, 3]),
        ("space.training.rate={int: [1, 3]}", ("space", "training.rate"), {"int": [1, 3]}),
        ("space.method.optimizer.name=[a]", ("space", "method.optimizer.name"), ["a"]),
        ("methods.1.vary.training.rate=[5]", ("methods", 1, "vary", "training.rate"), [5]),
        ("methods.lora.vary.training.rate=[5]", ("methods", 1, "vary", "training.rate"), [5]),
    ],
)
def test_an_override_reaches_keys_that_have_dots_themselves(write, override, at, found):
    document = read(write(SPACES), [override])
    value = document.values
    for key in at:
        value = value[key]
    assert value == found
    assert document.place(*at).argument.name == "overrides"


def test_an_override_replaces_a_whole_entry_of_a_list(write):
    document = read(write(ENTRIES), ["toy.entries.3={name: rte}", "toy.entries.3.n=2"])
    assert document.values["toy"]["entries"][3] == {"name": "rte", "n": 2}


@pytest.mark.parametrize("key", ["4", "sst2", "-1", "rte"])
def test_an_override_of_an_entry_that_is_not_there_is_told_which_are(write, key):
    with pytest.raises(ConfigError, check=fault("unknown", given=key)) as caught:
        read(write(ENTRIES), [f"toy.entries.{key}.n=5"])
    assert caught.value.problems[0].allowed == ["mine", "mnli", "qqp", "plain"]


def test_an_override_by_a_name_that_two_entries_have_is_refused(write):
    path = write("toy: {entries: [{name: a}, {name: a}]}\n")
    with pytest.raises(ConfigError, check=fault("unknown", given="a")):
        read(path, ["toy.entries.a.n=5"])


def test_paths_expand_variables_and_home_and_text_does_not(write, monkeypatch):
    monkeypatch.setenv("DATA", "/data/é x")
    monkeypatch.setenv("HOME", "/home/someone")
    path = write('toy: {folder: "${DATA}/a/", label: "$DATA"}\n')
    assert toy(path).folder == Path("/data/é x/a")
    assert toy(path).label == "$DATA"
    assert toy(path, ["toy.folder=~/b"]).folder == Path("/home/someone/b")
    assert toy(path, ["toy.folder=$DATA/../c"]).folder == Path("/data/é x/../c")


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("$NOT_SET/x", "$NOT_SET"),
        ("${NOT_SET}", "is not set"),
        ("a" * 256, "than 255"),
    ],
)
def test_a_path_that_cannot_be_is_refused(write, monkeypatch, folder, said):
    monkeypatch.delenv("NOT_SET", raising=False)
    assert said in refusal(toy, write(f"toy: {{folder: '{folder}'}}\n"))


def test_sections_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Toy().steps = 3


def test_every_recipe_says_in_its_first_line_what_it_is():
    for name, path in config.recipes().items():
        assert path.read_text(encoding="utf-8").startswith("# "), name


def test_a_folder_does_not_hide_a_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue" / "sst2-lora").mkdir(parents=True)
    assert config.read("glue/sst2-lora").path == config.recipes()["glue/sst2-lora"]


def test_an_override_from_a_file_sets_its_keys_and_says_where_they_stand(write, monkeypatch):
    run = write("toy: {steps: 1, name: a}\n", "run.yaml")
    layer = write("extends: below.yaml\ntoy: {steps: 2}\n", "layer.yaml")
    write("toy: {name: b}\n", "below.yaml")
    document = config.read(run, [f"@{layer}"])
    assert document.values == {"toy": {"steps": 2, "name": "b"}}
    assert document.place("toy", "steps") == Place(str(layer), 2, 7, key=("toy", "steps"))
    later = config.read(run, [f"@{layer}", "toy.steps=3"])
    assert later.values["toy"] == {"steps": 3, "name": "b"}
    earlier = config.read(run, ["toy.steps=3", f"@{layer}"])
    assert earlier.values["toy"] == {"steps": 2, "name": "b"}


def test_an_override_from_a_file_that_is_not_there_is_refused_with_the_nearest_recipe(write):
    with pytest.raises(ConfigError, match="'jelly/as-source'") as caught:
        config.read(write("toy: {}\n"), ["@jelly/as-sorce"])
    (problem,) = caught.value.problems
    assert problem.place.argument == Argument("overrides", "@jelly/as-sorce")
