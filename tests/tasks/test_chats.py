"""Of a conversation each answer is trained as the template writes it, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from graftlab.backbones import tiny
from graftlab.config import Paths
from graftlab.contracts import Data, Problem, read_notes
from graftlab.errors import DataError
from graftlab.tasks import generation
from graftlab.tasks.generation.fields import Config
from graftlab.tasks.generation.rows import Reader

TOKENS = Problem("tokens")
CHAT = (
    "{{ bos_token }}{% if tools %}[{% for t in tools %}{{ t.function.name }};{% endfor %}]{% endif %}"
    "{% for m in messages %}{{ m.role[0] | upper }}:{{ m.content | trim }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)
MARKED = CHAT.replace(
    "{{ m.content | trim }}",
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content | trim }}{% endif %}",
).replace("{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}", "")


def turns(*said: Any) -> list[dict[str, Any]]:
    """Return turns from texts `U:...`, `A:...`, `S:...`, or turns as they are."""
    roles = {"U": "user", "A": "assistant", "S": "system", "T": "tool"}
    return [
        {"role": roles[turn[0]], "content": turn[2:]} if isinstance(turn, str) else turn
        for turn in said
    ]


def config(folder: Path, template: str = CHAT, **fields: Any) -> Config:
    (folder / "chat.jinja").write_text(template)
    file = folder / "chat.jinja"
    return Config(source="x:y", template="chat", chat_template_file=file, max_length=400, **fields)


def bound(section: Config, *rows: dict[str, Any]) -> Any:
    parsed = [{"index": i, **Reader(section)(row)} for i, row in enumerate(rows)]
    data = Data({"train": parsed, "validation": [], "test": []}, TOKENS)
    backbone = tiny.load(tiny.Config(max_length=4000, width=8, layers=1), TOKENS, 0)
    return generation.bind(data, backbone, section, 0)


def trained(task: Any, index: int = 0) -> str:
    """Return what is trained of an example, its special tokens as `>`."""
    [labels] = task.batch("train", [index], 0)["labels"].tolist()
    tokenizer = tiny.load(tiny.Config(), TOKENS, 0).processor
    text, run = "", list[int]()
    for token in [*(label for label in labels if label != -100), 3]:
        if token == 3:
            text, run = text + tokenizer.decode(run) + ">", []
        else:
            run.append(token)
    return text[:-1]


@pytest.mark.parametrize("template", [CHAT, MARKED])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("U:a", "A:one", "U:b", "A:two"), "one>two>"),
        (("U:a", "A:one", "U:b"), "one>"),
        (("U:a", "A:one", "U:b", "A:two", "U:c", "U:d"), "one>two>"),
        (("A:hello", "U:a", "A:one"), "hello>one>"),
        (("A:hello", "U:a"), "hello>"),
        (("A: spaced ", "U:a", "A:one"), "spaced>one>"),
        (("S:be brief", "A:hello", "U:a", "A:one"), "hello>one>"),
        (("U:A:", "A:A:x", "U:A:", "A:A:"), "A:x>A:>"),
    ],
)
def test_each_answer_is_trained_whoever_speaks_first_or_last(
    said: tuple[str, ...], expected: str, template: str, tmp_path: Path
) -> None:
    assert trained(bound(config(tmp_path, template), {"messages": turns(*said)})) == expected


def test_the_header_is_not_trained_where_a_system_text_is_set(tmp_path: Path) -> None:
    section = config(tmp_path, system="be brief")
    assert trained(bound(section, {"messages": turns("A:hello", "U:a", "A:one")})) == "hello>one>"


def test_a_template_without_a_beginning_of_answers_trains_the_words(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}"
    section = config(tmp_path, template)
    task = bound(section, {"messages": turns("A:hello", "U:a", "A:one")})
    assert trained(task) == "hello][one]>"[: len("hello]")] + "[one]>"


@pytest.mark.parametrize("template", [CHAT, MARKED])
@pytest.mark.parametrize("key", [{"weight": 0}, {"train": False}, {"weight": 0.0}])
def test_an_answer_that_is_not_to_be_trained_is_not(
    key: dict[str, Any], template: str, tmp_path: Path
) -> None:
    bad = {"role": "assistant", "content": "BAD", **key}
    good = {"role": "assistant", "content": "GOOD", "weight": 1, "train": True}
    section = config(tmp_path, template, max_left_out=0.5)
    task = bound(
        section,
        {"messages": turns("U:a", bad, "U:b", good)},
        {"messages": turns("U:a", good, "U:b", bad)},
        {"messages": turns("U:a", bad)},
    )
    assert [trained(task, i) for i in range(2)] == ["GOOD>", "GOOD>"]
    assert task.record["left_out"] == {"train": {"nothing to train on": 1}}


@pytest.mark.parametrize("key", [{"weight": 0.5}, {"weight": "x"}, {"train": "no"}])
def test_a_weight_between_is_refused(key: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    row = {"messages": turns("U:a", {"role": "assistant", "content": "b", **key})}
    path.write_text(json.dumps(row) + "\n")
    section = Config(files={"train": path}, template="chat")
    with pytest.raises(DataError, match=r"row 1: messages\[1\].*(neither|weight)"):
        generation.read(section, Paths(), 0)


def test_rows_that_all_end_with_the_user_train_their_answers(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    rows = [{"messages": turns(f"U:q{i}", f"A:a{i}", "U:thanks")} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = generation.read(Config(files={"train": path}, template="chat"), Paths(), 0)
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 8
    backbone = tiny.load(tiny.Config(max_length=400, width=8, layers=1), TOKENS, 0)
    task = generation.bind(data, backbone, config(tmp_path), 0)
    assert task.size("train") == len(data.splits["train"])
    assert trained(task)[0] == "a"


def test_rows_without_an_answer_are_told_and_not_divided_by(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 1"):
        bound(config(tmp_path), {"messages": turns("U:a")})


def test_parts_of_text_are_joined_and_others_refused(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    row = {"messages": turns("U:a", {"role": "assistant", "content": parts})}
    assert trained(bound(config(tmp_path), row)) == "one two>"
    parts.append({"type": "image_url", "image_url": {"url": "x"}})  # type: ignore[dict-item]
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"no text \(image_url\)"):
        generation.read(Config(files={"train": path}, template="chat"), Paths(), 0)


CALL = {"name": "add", "arguments": '{"a": 1, "b": "</s>"}'}
WROTE = 'add({"a": 1, "b": "</s>"})>'
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


@pytest.mark.parametrize(
    "turn",
    [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": CALL}],
        },
        {"role": "assistant", "content": None, "function_call": CALL},
        {"role": "assistant", "tool_calls": [{"function": CALL}]},
        {"from": "function_call", "value": json.dumps(CALL)},
    ],
)
@pytest.mark.parametrize("answer", ["tool", "function"])
@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
def test_calls_of_tools_are_trained_as_the_template_writes_them(
    turn: dict[str, Any], answer: str, tools: Any, tmp_path: Path
) -> None:
    result = {"role": answer, "content": "3", "name": "add", "tool_call_id": "1"}
    row = {"messages": turns("U:1+2?", turn, result, "A:three"), "tools": tools}
    task = bound(config(tmp_path), row)
    assert trained(task) == WROTE + "three>"
    [ids] = task.batch("train", [0], 0)["input_ids"].tolist()
    text = tiny.load(tiny.Config(), TOKENS, 0).processor.decode(ids)
    assert "[add;]U:1+2?" in text
    assert "T:3" in text


def test_calls_that_a_template_does_not_write_are_not_lost_in_silence(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role[0] + ':' + m.content + eos_token }}{% endfor %}"
    turn = {"role": "assistant", "content": None, "function_call": CALL}
    with pytest.raises(DataError, match="tool_calls"):
        bound(config(tmp_path, template), {"messages": turns("U:a", turn)})
    row = {"messages": turns("U:a", "A:b"), "tools": TOOLS}
    with pytest.raises(DataError, match="tools, which the chat template does not write"):
        bound(config(tmp_path, template), row)


def test_marks_that_are_no_tokens_are_said(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    row = {"messages": turns("U:a", "A:b")}
    [note] = read_notes(bound(config(tmp_path, template), row).record["notes"])
    assert (note.kind, note.fields["marks"]) == ("marks_unknown", ["<|im_start|>", "<|im_end|>"])
    assert bound(config(tmp_path), row).record["notes"] == []


def test_preferences_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    [fault] = generation.check(Config(files={"train": path}, template="chat"))
    assert "preferences" in fault.said
