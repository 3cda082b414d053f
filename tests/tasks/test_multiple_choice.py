"""Questions with choices: their layouts, their labels, what is left out, and what a model reads of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from faults import conflict
from pydantic import ValidationError

from graftlab import registry, runfile
from graftlab.backbones import tiny
from graftlab.config import Paths, read_yaml
from graftlab.config import read as config_of
from graftlab.contracts import Note
from graftlab.errors import ConfigError, DataError
from graftlab.tasks import multiple_choice
from graftlab.tasks._questions import Question

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
LEADS = {
    "answer": "Please choose the correct answer to the question",
    "solution": "Please choose the correct solution to the question",
    "ending": "Please choose the correct ending to complete the given sentence",
    "option": "Please choose the correct answer to fill in the blank to complete the given sentence",
}
FOUR = ("by day", "by night", "at noon", "never")


def listed(labels: list[str], texts: Any = FOUR) -> dict[str, Any]:
    return {"text": list(texts), "label": labels}


# Data set -> (a row of the hub with the right choice's label, as the hub's viewer shows it; a row of
# LLM-Adapters' files; what both become).
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], Question, int]] = {}


def instruction(word: str, question: str, choices: Any, right: int, between: str = " ") -> Any:
    marked = between.join(f"{word.capitalize()}{i + 1}: {c}" for i, c in enumerate(choices))
    answers = [f"{word}{i + 1}" for i in range(len(choices))]
    text = f"{LEADS[word]}: {question}\n\n{marked}\n\nAnswer format: {'/'.join(answers)}"
    output = f"the correct answer is {answers[right]}"
    return {"instruction": text, "input": "", "output": output, "answer": answers[right]}


for arc, key in (("arc_easy", "C"), ("arc_challenge", "3")):
    LAYOUTS[arc] = (
        {
            "id": "Mercury_1",
            "question": "When: do bats fly?",
            "choices": listed(list("ABCD") if key == "C" else list("1234")),
            "answerKey": key,
        },
        instruction("answer", "When: do bats fly?", FOUR, 2),
        Question("When: do bats fly?", FOUR),
        2,
    )
LAYOUTS["openbookqa"] = (
    {"id": "7-1", "question_stem": "Bats fly", "choices": listed(list("ABCD")), "answerKey": "B"},
    instruction("answer", "Bats fly", FOUR, 1),
    Question("Bats fly", FOUR),
    1,
)
LAYOUTS["hellaswag"] = (
    {
        "ind": 4,
        "activity_label": "Bats",
        "ctx_a": "They wake.",
        "ctx_b": "they",
        "ctx": "They wake. they",
        "endings": list(FOUR),
        "source_id": "a~b",
        "split": "train",
        "split_type": "indomain",
        "label": "3",
    },
    instruction("ending", "Bats: They wake. they", FOUR, 3),
    Question("Bats: They wake. they", FOUR),
    3,
)
LAYOUTS["piqa"] = (
    {"goal": "see bats", "sol1": "look  up.", "sol2": "look\ndown.", "label": 1},
    instruction("solution", "see bats", ("look  up.", "look\ndown."), 1, "\n\n"),
    Question("see bats", ("look  up.", "look\ndown.")),
    1,
)
LAYOUTS["siqa"] = (
    {
        "context": "Bo saw a bat.",
        "question": "What does Bo want?",
        "answerA": "run",
        "answerB": "hide",
        "answerC": "sing",
        "label": "3",
    },
    instruction("answer", "Bo saw a bat. What does Bo want?", ("run", "hide", "sing"), 2),
    Question("Bo saw a bat. What does Bo want?", ("run", "hide", "sing")),
    2,
)
LAYOUTS["winogrande"] = (
    {"sentence": "Bo fed Al as _ was kind.", "option1": "Bo", "option2": "Al", "answer": "1"},
    instruction("option", "Bo fed Al as _ was kind.", ("Bo", "Al"), 0),
    Question("Bo fed Al as _ was kind.", ("Bo", "Al")),
    0,
)
TRUE_FALSE = {
    "instruction": "Please answer the following question with true or false, question: do bats fly?\n\n"
    "Answer format: true/false",
    "input": "",
    "output": "the correct answer is true",
    "answer": "true",
}
BOOLQ = {"question": "do bats fly", "answer": True, "passage": "Bats are {mammals}."}


def entry(name: str, **over: Any) -> multiple_choice.Config:
    fields = read_yaml(registry.catalogue("tasks")[name])
    keep = {key: value for key, value in fields.items() if key not in ("about", "aliases")}
    return multiple_choice.Config(**{"name": name, **keep, **over})


def own(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> multiple_choice.Config:
    """Return a section that reads `rows` and three more of another split."""
    write(folder / "train.jsonl", rows)
    fields = {"labels": tuple("ABC"), **fields}
    return multiple_choice.Config(data_dir=folder, **fields)


def asked(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {"question": f"q{number}", "choices": ["x", "y", "z"], "label": "A", **fields}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(config: multiple_choice.Config) -> Any:
    return multiple_choice.read(config, Paths(), 0)


def shown(row: dict[str, Any]) -> tuple[str, tuple[str, ...], int]:
    return row["question"], tuple(row["choices"]), row["label"]


@pytest.mark.parametrize("layout", ["columns", "instruction"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_both_layouts_become_the_same_question(name: str, layout: str, tmp_path: Path) -> None:
    columns, instructed, question, right = LAYOUTS[name]
    row = columns if layout == "columns" else instructed
    other = json.loads(json.dumps(row).replace("ats", "igs").replace("Bo", "Cy"))
    write(tmp_path / "train.jsonl", [row, other])
    config = entry(name, data_dir=tmp_path, layout=layout)
    assert multiple_choice.check(config) == []
    found = read(config).splits
    rows = {r["index"]: r for split in found.values() for r in split}
    assert shown(rows[0]) == (*question, right)
    assert rows[1]["question"] != question.question


def test_boolq_has_passages_in_columns_and_none_in_instructions(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [BOOLQ, {**BOOLQ, "question": "why", "answer": False}])
    found = read(entry("boolq", data_dir=tmp_path))
    rows = [*found.splits["train"], *found.splits["validation"]]
    assert {shown(row) for row in rows} == {
        ("Bats are {mammals}.\nQuestion: do bats fly?", ("no", "yes"), 1),
        ("Bats are {mammals}.\nQuestion: why?", ("no", "yes"), 0),
    }
    other = {**TRUE_FALSE, "answer": "false", "instruction": TRUE_FALSE["instruction"] + " "}
    other["instruction"] = other["instruction"].replace("bats", "cats")
    write(tmp_path / "train.jsonl", [TRUE_FALSE, other])
    found = read(entry("boolq", data_dir=tmp_path, layout="instruction"))
    rows = [*found.splits["train"], *found.splits["validation"]]
    assert {shown(row) for row in rows} == {
        ("do bats fly?", ("no", "yes"), 1),
        ("do cats fly?", ("no", "yes"), 0),
    }


# How each data set spells its answers -> the place of the right choice.
SPELLED = {
    "arc_easy": {"A": 0, "D": 3, "1": 0, "4": 3, "answer2": 1},
    "arc_challenge": {"B": 1, "3": 2, "answer4": 3},
    "openbookqa": {"A": 0, "answer1": 0, "answer4": 3},
    "hellaswag": {"0": 0, "3": 3, 2: 2, "ending1": 0, "ending4": 3},
    "piqa": {0: 0, 1: 1, "solution1": 0, "solution2": 1},
    "siqa": {"1": 0, "3": 2, "answer1": 0, "answer3": 2},
    "winogrande": {"1": 0, "2": 1, "option1": 0, "option2": 1},
    "boolq": {False: 0, True: 1, "false": 0, "true": 1},
}
REFUSED = {
    "arc_easy": ("E", "0", "5", "answer5"), "arc_challenge": ("0",), "openbookqa": ("E", "1", "0"),
    "hellaswag": ("4", "A1", "ending5"), "piqa": (2, "solution3"), "siqa": ("0", "4", "answer4"),
    "winogrande": ("0", "3"), "boolq": ("maybe", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLED)
def test_answers_are_mapped_as_the_table_of_the_data_set_says(name: str) -> None:
    from graftlab.data.labels import Classes, Unusable

    config = entry(name)
    assert config.labels is not None
    classes = Classes(config.labels)
    assert {label: classes(label) for label in SPELLED[name]} == SPELLED[name]
    for label in REFUSED[name]:
        with pytest.raises(Unusable, match="is not one of"):
            classes(label)
    assert multiple_choice.problem(config).labels == classes.names


def test_an_unknown_answer_is_refused_and_its_row_named(tmp_path: Path) -> None:
    config = own(tmp_path, [asked(0), asked(1, label="F"), asked(2)])
    with pytest.raises(DataError, match=r"row 2:.*'F'"):
        read(config)


def test_questions_with_another_number_of_choices_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [asked(i) for i in range(6)]
    rows[1] |= {"choices": ["x", "y", "z", "u"], "label": "D"}  # D would be refused, were it read
    rows[4] |= {"choices": ["x", "y"]}
    rows[5] |= {"choices": ["x", "y"]}
    data = read(own(tmp_path, rows))
    assert data.record["dropped"] == {"train": {"4 choices, not 3": 1, "2 choices, not 3": 2}}
    kept = [row["index"] for split in data.splits.values() for row in split]
    assert sorted(kept) == [0, 2, 3]
    note = Note.of("rows_left_out", split="train", rows=2, reason="2 choices, not 3")
    assert note.as_json() in data.record["notes"]
    with pytest.raises(DataError, match=r"2 rows \(2.*3\)"):
        read(own(tmp_path, rows[4:]))


BAD = {
    "not a list of choices": {"choices": "x"},
    "is 7, not text": {"choices": ["x", 7, "z"]},
    "the question is empty": {"question": " "},
    "choice 2 is empty": {"choices": ["x", " ", "z"]},
    "labelled B, A, C, out of order": {"choices": listed(["B", "A", "C"], "xyz")},
    "answer '2' labels none": {
        "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "label": "2"
    },
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_a_row_that_is_no_question_is_named(message: str, tmp_path: Path) -> None:
    labels = {"A": "A", "B": "B", "C": "C", "2": "B"}
    config = own(tmp_path, [asked(0), asked(1, **BAD[message]), asked(2)], labels=labels)
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        read(config)


BAD_INSTRUCTIONS = {
    "is not `Please": {"instruction": "Which? Answer1: a Answer2: b"},
    "marked answer1, answer3": {
        "instruction": "Please choose: q Answer1: a Answer3: b\nAnswer format: answer1/answer2"
    },
    "marked nowhere": {"instruction": "Please choose: q\nAnswer format: answer1/answer2"},
    "column 'input' is 'more'": {"input": "more"},
}


@pytest.mark.parametrize("message", BAD_INSTRUCTIONS)
def test_an_instruction_of_another_form_is_named(message: str, tmp_path: Path) -> None:
    good = instruction("answer", "q", ("a", "b"), 0)
    rows = [good, {**good, **BAD_INSTRUCTIONS[message]}]
    config = own(tmp_path, rows, labels={"answer1": "A", "answer2": "B"}, layout="instruction")
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        read(config)


def test_a_mark_within_a_word_is_no_mark(tmp_path: Path) -> None:
    rows = [instruction("answer", f"q{i}", ("a noAnswer2: yet", "b"), 0) for i in range(3)]
    config = own(tmp_path, rows, labels={"answer1": "A", "answer2": "B"}, layout="instruction")
    assert read(config).splits["train"][0]["choices"] == ("a noAnswer2: yet", "b")


def test_the_other_layout_is_suggested(tmp_path: Path) -> None:
    config = own(tmp_path, [instruction("answer", "q", FOUR, 0)])
    assert "task.layout: instruction" in multiple_choice.check(config)[0].words()
    config = own(tmp_path, [asked()], layout="instruction")
    assert "task.layout: columns" in multiple_choice.check(config)[0].words()


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"labels": None}, "labels"),
        ({"labels": ["only"]}, "labels"),
        ({"prompt": "Answer:"}, "prompt"),
        ({"prompt": "{question} {label}"}, "prompt"),
        ({"columns": {"question": "{a[0]}"}}, "columns.question"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is(fields: Any, key: str) -> None:
    with pytest.raises(ValidationError, check=conflict(key)):
        multiple_choice.Config(**{"source": "x:y", "labels": ["A", "B"], **fields})


# What the real files hold: rows of the manifest, less those with another number of choices.
REAL = {
    "arc_easy": ("arc_easy", {"train": {"3 choices, not 4": 6, "5 choices, not 4": 4},
                              "test": {"3 choices, not 4": 5, "5 choices, not 4": 3}}),
    "arc_challenge": ("arc_challenge", {"train": {"3 choices, not 4": 1, "5 choices, not 4": 1},
                                        "test": {"3 choices, not 4": 4, "5 choices, not 4": 3}}),
    "openbookqa": ("openbookqa", {}), "hellaswag": ("hellaswag", {}), "piqa": ("piqa", {}),
    "siqa": ("social_i_qa", {}), "winogrande": ("winogrande", {}), "boolq": ("boolq", {}),
}  # fmt: skip


def shared(folder: str) -> Path:
    if not (SHARED / folder).is_dir():
        pytest.skip("the shared data sets are not beside this clone")
    return SHARED / folder


@pytest.mark.quick("boolq", "winogrande")
@pytest.mark.parametrize("name", REAL)
def test_the_real_instructions_are_read_whole(name: str) -> None:
    folder, dropped = REAL[name]
    config = entry(name, data_dir=shared(folder), layout="instruction")
    assert multiple_choice.check(config) == []
    data = read(config)
    manifest = json.loads((SHARED / "MANIFEST.json").read_text())["datasets"][folder]["splits"]
    assert data.record["skipped"] == {}
    assert data.record["dropped"] == dropped
    sizes = data.record["original_sizes"]
    assert sizes["test"] == manifest["test"]["rows"] - sum(dropped.get("test", {}).values())
    lost = sum(dropped.get("train", {}).values())
    also = sum(where["count"] for where in data.record["overlap"].get("train", {}).values())
    assert sizes["train"] + sizes["validation"] == manifest["train"]["rows"] - lost - also


def test_the_real_rows_are_the_same_in_both_layouts() -> None:
    instructed = entry("hellaswag", data_dir=shared("hellaswag"), layout="instruction")
    columns = entry("hellaswag", data_dir=shared("hellaswag_hub"))
    assert read(instructed).record["fingerprint"] == read(columns).record["fingerprint"]


def test_the_text_of_a_classifier_is_the_question_and_the_lettered_choices(tmp_path: Path) -> None:
    config = own(tmp_path, [asked(i) for i in range(3)])
    data = read(config)
    backbone = tiny.load(tiny.Config(), data.problem, 0)
    task = multiple_choice.bind(data, backbone, config, 0)
    [ids] = task.batch("train", [0], None)["input_ids"].tolist()
    text = backbone.processor.decode(ids, skip_special_tokens=True)
    assert text == f"{data.splits['train'][0]['question']}\nA. x\nB. y\nC. z"


def test_a_long_question_loses_its_beginning_and_no_choice(tmp_path: Path) -> None:
    config = own(tmp_path, [asked(i, question=f"{i}" * 90) for i in range(3)], max_length=30)
    data = read(config)
    backbone = tiny.load(tiny.Config(), data.problem, 0)
    task = multiple_choice.bind(data, backbone, config, 0)
    [ids] = task.batch("train", [0], None)["input_ids"].tolist()
    text = backbone.processor.decode(ids, skip_special_tokens=True)
    digit = data.splits["train"][0]["question"][0]
    assert text == digit * (30 - 2 - 15) + "\nA. x\nB. y\nC. z"
    assert task.record["truncated"] == {"train": 2, "validation": 1}
    assert backbone.processor.truncation_side == "right"  # of others it stays


def test_new_questions_come_as_text_lists_and_files(tmp_path: Path) -> None:
    config = multiple_choice.Config(source="x:y", labels=["A", "B"])
    item = {"question": "q", "choices": ["x", "y"]}
    write(tmp_path / "a.jsonl", [item])
    (tmp_path / "a.txt").write_text(json.dumps(item) + "\n")
    for source in (json.dumps(item), [item], tmp_path / "a.jsonl", tmp_path / "a.txt"):
        [row] = multiple_choice.read_inputs(config, source)
        assert row == {"index": 0, "question": "q", "choices": ("x", "y"), "label": None}
    [row] = multiple_choice.read_inputs(entry("piqa"), [{"goal": "g", "sol1": "x", "sol2": "y"}])
    assert (row["question"], row["choices"]) == ("g", ("x", "y"))
    [row] = multiple_choice.read_inputs(entry("arc_easy"), [LAYOUTS["arc_easy"][0]])
    assert row["choices"] == FOUR
    [row] = multiple_choice.read_inputs(entry("boolq"), "do bats fly?")
    assert (row["question"], row["choices"]) == ("do bats fly?", ("no", "yes"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("what?", "row 1:"),
        ('{"question": ', "row 1:"),
        ([{"question": "q", "choices": ["x"]}], "row 1: 1.*not 2"),
        ([{"question": "q", "choices": "x"}], "row 1:.*'choices'.*'x'"),
        ([{"question": "q"}], "'choices'"),
        ([], "no rows"),
    ],
)
def test_a_new_question_that_is_none_is_refused(source: Any, message: str) -> None:
    config = multiple_choice.Config(source="x:y", labels=["A", "B"])
    with pytest.raises(DataError, match=message):
        multiple_choice.read_inputs(config, source)


def test_likelihood_is_refused_for_an_encoder_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="fits backbones of kind decoder or tiny; minilm is"):
        runfile.resolve(config_of("commonsense/arc_easy-minilm", ["task.form=likelihood"]))
    assert runfile.resolve(config_of("commonsense/arc_easy-minilm")).task.name == "multiple_choice"
