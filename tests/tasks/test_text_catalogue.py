"""Every text that is to be written: the catalogue's entries read the rows that the hub gives for them."""

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab import registry
from graftlab.config import Paths, read_yaml
from graftlab.errors import DataError
from graftlab.runfile import catalogue
from graftlab.tasks.generation import templates

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SHARED_NAMES = {"text_to_code": "concode"}
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
# A row as the hub's data viewer shows it, the prompt that becomes of it, and what answers are scored by.
# fmt: off
ROWS: dict[str, tuple[dict[str, Any], str | None, Any]] = {
    "gsm8k": (
        {"question": "1+1?", "answer": "It is 2.\n#### 2"},
        "Question: 1+1?\nAnswer:", "It is 2.\n#### 2",
    ),
    "word_problems": (
        {"question": "1+1?", "answer": "It is 2.\n#### 2"},
        "Question: 1+1?\nAnswer:", "It is 2.\n#### 2",
    ),
    "math": (
        {"problem": "$1+1$?", "level": "Level 1", "type": "Algebra", "solution": r"\boxed{2}"},
        "Question: $1+1$?\nAnswer:", r"\boxed{2}",
    ),
    "metamathqa": (
        {"type": "GSM_Rephrased", "query": "1+1?", "original_question": "x", "response": "The answer is: 2"},
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\n1+1?\n\n### Response:", "The answer is: 2",
    ),
    "code_feedback": ({"id": 0, "messages": TURNS}, None, "A"),
    "code_alpaca": (
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n"
        "1, 2\n\n### Response:", "3",
    ),
    "alpaca": (
        {"instruction": "Hi.", "input": "", "output": "Hello.", "text": "all of it"},
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nHi.\n\n### Response:", "Hello.",
    ),
    "squad_v2": (
        {"id": "a", "title": "T", "context": "C.", "question": "Q?",
         "answers": {"text": ["C"], "answer_start": [0]}},
        "C.\nQuestion: Q?\nAnswer:", {"text": ["C"], "answer_start": [0]},
    ),
    "code_to_text": (
        {"id": 1, "repo": "r", "code": "def f(): pass", "docstring": "Nothing.", "language": "python"},
        "def f(): pass\nDescription:", "Nothing.",
    ),
    "text_to_code": (
        {"id": 1, "nl": "nothing", "code": "void f() {}"},
        "### Task:\nnothing\n\n### Code:\n", "void f() {}",
    ),
    "cnn_dailymail": ({"article": "Long.", "highlights": "S.", "id": "a"}, "Long.\nSummary:", "S."),
    "xsum": ({"document": "Long.", "summary": "S.", "id": "1"}, "Long.\nSummary:", "S."),
    "dialogsum": (
        {"id": "a", "dialogue": "#P1#: Hi.", "summary": "S.", "topic": "t"},
        "#P1#: Hi.\nSummary:", "S.",
    ),
    "mbpp": (
        {"task_id": 1, "text": "Add.", "code": "def f(): pass", "test_list": ["assert f()", "assert 1"],
         "test_setup_code": "", "challenge_test_list": []},
        "### Task:\nAdd.\nIt should pass tests such as:\nassert f()\n\n### Code:\n",
        {"test_list": ["assert f()", "assert 1"], "test_setup_code": ""},
    ),
    "humaneval": (
        {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "    pass\n",
         "test": "def check(f): f()", "entry_point": "f"},
        "def f():\n", {"prompt": "def f():\n", "test": "def check(f): f()", "entry_point": "f"},
    ),
}
# fmt: on


def entry(name: str, **over: Any) -> tuple[Any, Any]:
    """Return the module of an entry's kind and its section, laid under what is given."""
    found = {k: v for k, v in catalogue()[name].items() if k not in ("about", "aliases")}
    module = registry.find("tasks", found.pop("kind"))
    return module, module.Config.model_validate({**found, "name": name, **over})


def write(folder: Path, **splits: list[dict[str, Any]]) -> None:
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def test_each_entry_has_a_row_here() -> None:
    kinds = {name: read_yaml(path)["kind"] for name, path in registry.catalogue("tasks").items()}
    assert sorted(name for name, kind in kinds.items() if kind == "generation") == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_the_row_of_the_hub_becomes_a_prompt_and_a_reference(name: str, tmp_path: Path) -> None:
    row, prompt, reference = ROWS[name]
    write(tmp_path, test=[row])
    module, config = entry(name, data_dir=tmp_path)
    data = module.read(config, Paths(cache=tmp_path / "cache"), 0)
    assert not data.splits["train"]
    (found,) = data.splits["test"]
    assert found["label"] == reference
    if prompt is None:
        assert found["messages"] == TURNS
        return
    form = config.filled
    used = form.without if form.optional and form.optional not in found["fields"] else form.prompt
    assert templates.fill(used, found["fields"]) == prompt


@pytest.mark.quick("alpaca")
@pytest.mark.parametrize("name", ROWS)
def test_real_rows_are_read(name: str, tmp_path: Path) -> None:
    folder = SHARED / SHARED_NAMES.get(name, name)
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    module, config = entry(name, data_dir=folder, max_train_samples=20, max_test_samples=20)
    data = module.read(config, Paths(cache=tmp_path / "cache"), 0)
    assert len(data.splits["test"]) == (20 if name != "code_feedback" else 0)
    assert not any(row["label"] is None for row in data.splits["test"])


def test_a_set_for_evaluation_alone_says_so_before_a_run(tmp_path: Path) -> None:
    module, config = entry("humaneval")
    (fault,) = module.check(config)
    assert (fault.kind, fault.place.key) == ("missing", ("hub", "train"))
    write(tmp_path, test=[ROWS["humaneval"][0]])
    module, config = entry("humaneval", data_dir=tmp_path)
    (fault,) = module.check(config)
    assert (fault.kind, fault.place.key) == ("missing", ("data_dir",))
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match="holds: nothing"):
        module.read(config, Paths(cache=tmp_path / "cache"), 0)
