"""Rows become the tokens that were written by hand, whatever stands in them, with one end, and nothing is cut
that may not be."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AddedToken

from graftlab.backbones import tiny
from graftlab.config import Paths
from graftlab.contracts import Data, Problem
from graftlab.errors import ConfigError, DataError
from graftlab.tasks import generation
from graftlab.tasks.generation import templates
from graftlab.tasks.generation.fields import Config, Generation

TOKENS = Problem("tokens")
BOS, EOS, PAD = 2, 3, 0  # of the tiny backbone, in which any other token is a byte
LONG = "la " * 700
SPELLED = "[SEP] </s>"


def tokenizer() -> Any:
    return tiny.load(tiny.Config(), TOKENS, 0).processor


def row_of(config: Config, **columns: Any) -> dict[str, Any]:
    """Return a row as `read` makes it of these columns."""
    from graftlab.tasks.generation.rows import Reader

    made = Reader(config)(columns)
    del made["key"]
    return {"index": 0, **made}


def bound(config: Config, rows: list[dict[str, Any]], max_length: int = 4000) -> Any:
    rows = [{**row, "index": i} for i, row in enumerate(rows)]
    data = Data({"train": rows, "validation": [], "test": []}, TOKENS)
    backbone = tiny.load(tiny.Config(max_length=max_length, width=8, layers=1), TOKENS, 0)
    return generation.bind(data, backbone, config, 0)


def shown(task: Any, index: int = 0, split: str = "train") -> tuple[str, str]:
    """Return an example's text, and what is trained of it: special tokens as `<` and `>`, bytes as UTF-8."""
    [ids], [labels] = (
        task.batch(split, [index], 0)[name].tolist() for name in ("input_ids", "labels")
    )
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    return spelled(ids), spelled([label for label in labels if label != -100])


def spelled(ids: list[int]) -> str:
    decoder = tokenizer()
    pieces = {BOS: "<", EOS: ">", PAD: "_"}
    text, run = "", list[int]()
    for token in [*ids, BOS]:
        if token in pieces:
            text, run = text + decoder.decode(run) + pieces[token], []
        else:
            run.append(token)
    return text[:-1]


# What stands in a row's two columns -> what the two become, by hand: `|` is where the answer begins.
AWKWARD = {
    "plain": ("Why?", "Because."),
    "unicode": ("Wie heißt 山 auf Deutsch? 👩‍👧", "Bérg — é"),
    "empty answer": ("Why?", ""),
    "braces": ("What is {x} in {{y}}?", "{answer} {} {0!r:>9}"),
    "spaces at the end": ("Why?  ", "so  "),
    "a line break alone": ("\n", "\n"),
    "the end spelled out": (f"What is {SPELLED}?", f"It ends {SPELLED}"),
    "right to left": ("שלום؟", "مرحبا"),
    "many lines": ("a\n\nb\r\n\tc", "1.\n2.\n\n```py\nx = {}\n```"),
    "a long context": ("Why?", "Because."),
}
ALPACA = (
    "Below is an instruction that describes a task{}. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n"
)
PAIRED = ALPACA.format(", paired with an input that provides further context")
FORMS = {  # template: (columns, prompt, completion), with the question as {q}, the answer as {a}
    "alpaca": (("instruction", "output"), ALPACA.format("") + "{q}\n\n### Response:", "{a}"),
    "question_answer": (("question", "answer"), "Question: {q}\nAnswer:", " {a}"),
    "summarise": (("document", "summary"), "{q}\nSummary:", " {a}"),
    "code": (("text", "code"), "### Task:\n{q}\n\n### Code:\n", "{a}"),
}
CONTEXT = {  # the column that is cut, and the prompt with what is left of it
    "alpaca": ("input", PAIRED + "Why?\n\n### Input:\n{c}\n\n### Response:"),
    "question_answer": ("context", "{c}\nQuestion: Why?\nAnswer:"),
    "summarise": ("document", "{c}\nSummary:"),
}


@pytest.mark.quick("question_answer-*")
@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("template", FORMS)
def test_an_awkward_row_becomes_the_tokens_written_by_hand(template: Any, name: str) -> None:
    config = Config(source="x:y", template=template, max_length=400)
    (asked, answered), prompt, completion = FORMS[template]
    question, answer = AWKWARD[name]
    columns = {asked: question, answered: answer}
    prompt = prompt.replace("{q}", question)
    completion = completion.replace("{a}", answer)
    if name == "a long context" and template in CONTEXT:
        column, prompt = CONTEXT[template]
        columns[column] = LONG
        room = 400 - len("<" + prompt.replace("{c}", "") + completion + ">")
        prompt = prompt.replace("{c}", LONG[:room])
    task = bound(config, [row_of(config, **columns)])
    assert shown(task) == (f"<{prompt}{completion}>", f"{completion}>")
    ids = task.batch("train", [0], 0)["input_ids"]
    assert (ids == EOS).sum() == 1, "one end"


@pytest.mark.parametrize("name", AWKWARD)
def test_a_plain_text_is_trained_whole_and_ends_once(name: str) -> None:
    text = "".join(AWKWARD[name])
    config = Config(source="x:y", template="text", max_length=400)
    if name == "a long context":
        assert shown(bound(config, [row_of(config, text=LONG)])) == (
            "<" + LONG[:398],
            LONG[:398],
        )
    else:
        assert shown(bound(config, [row_of(config, text=text)])) == (f"<{text}>", f"{text}>")


CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ '[' + m.content + ']' }}"
    "{% elif m.role == 'user' %}{{ 'U:' + m.content | trim + '\n' }}"
    "{% else %}{{ 'A:' + m.content + eos_token + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)
MARKED = CHAT.replace(
    "{{ 'A:' + m.content + eos_token + '\n' }}",
    "A:{% generation %}{{ m.content + eos_token }}{% endgeneration %}{{ '\n' }}",
)


def chat(folder: Path, template: str = CHAT, **fields: Any) -> Config:
    file = folder / "chat.jinja"
    file.write_text(template)
    fields = {"source": "x:y", "template": "chat", "max_length": 400, **fields}
    return Config(chat_template_file=file, **fields)


def turns(*said: str, role: str = "role", content: str = "content") -> list[dict[str, str]]:
    names = {"role": ("user", "assistant"), "from": ("human", "gpt")}[role]
    return [{role: names[i % 2], content: text} for i, text in enumerate(said)]


@pytest.mark.quick("*-messages-rendered")
@pytest.mark.parametrize("template", [CHAT, MARKED], ids=["rendered", "generation"])
@pytest.mark.parametrize("layout", ["messages", "ShareGPT"])
@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_chat_trains_every_answer_and_no_question(
    name: str, layout: str, template: str, tmp_path: Path
) -> None:
    question, answer = AWKWARD[name]
    keys = {"role": "from", "content": "value"} if layout == "ShareGPT" else {}
    config = chat(tmp_path, template, system="Be brief.")
    row = row_of(config, messages=turns(question, answer, "And?", "No.", **keys))
    text, trained = shown(bound(config, [row]))
    assert text == f"<[Be brief.]U:{question.strip()}\nA:{answer}>\nU:And?\nA:No.>"
    assert trained == f"{answer}>No.>"


def test_prompt_and_completion_go_through_a_chat_template_as_two_turns(tmp_path: Path) -> None:
    file = chat(tmp_path).chat_template_file
    fields = {"template": "question_answer", "chat_template": True, "chat_template_file": file}
    config = Config(source="x:y", **fields)
    task = bound(config, [row_of(config, question="Why?", answer="So.")])
    assert shown(task) == ("<U:Question: Why?\nAnswer:\nA: So.>", " So.>")


def test_a_chat_template_without_an_end_of_turn_gets_one_end_at_its_end(tmp_path: Path) -> None:
    config = chat(tmp_path, CHAT.replace("+ eos_token ", ""))
    task = bound(config, [row_of(config, messages=turns("a", "b", "c", "d"))])
    assert shown(task) == ("<U:a\nA:b\nU:c\nA:d\n>", "b\nd\n>")


def test_the_prompt_may_be_trained_too() -> None:
    config = Config(source="x:y", template="question_answer", loss_on="all")
    task = bound(config, [row_of(config, question="Why?", answer="So.")])
    assert shown(task) == ("<Question: Why?\nAnswer: So.>", "Question: Why?\nAnswer: So.>")


def test_special_tokens_of_a_template_are_tokens_and_those_of_a_row_are_text() -> None:
    config = Config(source="x:y", prompt="{q}[MASK]", completion="{a}[SEP]")
    task = bound(config, [row_of(config, q="[SEP]?", a="[MASK]")])
    [ids] = task.batch("train", [0], 0)["input_ids"].tolist()
    assert spelled(ids) == "<[SEP]?[MASK][MASK]>"
    assert (ids.count(4), ids.count(EOS)) == (1, 1)


def test_spaces_between_prompt_and_answer_belong_to_the_answer() -> None:
    config = Config(source="x:y", prompt="Q: {q} A: ", completion="{a}")
    task = bound(config, [row_of(config, q="x", a="y")])
    assert shown(task) == ("<Q: x A: y>", " y>")


def test_an_end_that_pads_too_is_trained_where_it_is_an_end() -> None:
    config = Config(source="x:y", prompt="{q}", completion="{a}")
    rows = [row_of(config, q="x", a="y"), row_of(config, q="xxxx", a="y")]
    data = Data({"train": rows}, TOKENS)
    backbone = tiny.load(tiny.Config(), TOKENS, 0)
    backbone.processor.pad_token = backbone.processor.eos_token
    batch = generation.bind(data, backbone, config, 0).batch("train", [0, 1], 0)
    assert (batch["input_ids"][0] == EOS).tolist() == [False] * 3 + [True] * 4
    assert (batch["labels"][0] == EOS).tolist() == [False] * 3 + [True] + [False] * 3


def test_lists_of_answers_train_the_first_and_none_is_said_so() -> None:
    config = Config(source="x:y", template="question_answer", completion=" {answers}",
                    columns={"reference": "answers"})  # fmt: skip
    given = {"text": ["in Rome", "Rome"], "answer_start": [1, 4]}
    rows = [row_of(config, question="q", answers=found) for found in (given, {**given, "text": []})]
    task = bound(config, rows)
    assert [shown(task, i)[1] for i in range(2)] == [" in Rome>", " unanswerable>"]
    assert rows[0]["label"] == given


def spacing() -> Any:
    """Return a tokenizer that puts a space before every text, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    symbols = ["</s>", "\u2581", *"abcdefghijklmnopqrstuvwxyz:?\n"]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="</s>")


@pytest.mark.parametrize(
    ("completion", "expected"), [(" {a}", "▁ c d"), ("{a}", "c d"), ("\n{a}", "\n c d")]
)
def test_a_tokenizer_that_puts_a_space_in_front_puts_none_between(
    completion: str, expected: str
) -> None:
    config = Config(source="x:y", prompt="{q}:", completion=completion)
    owner = tiny.load(tiny.Config(width=8, layers=1), TOKENS, 0)
    owner = dataclasses.replace(owner, processor=spacing())
    rows = [row_of(config, q="ab", a="cd")]
    task = generation.bind(Data({"train": rows}, TOKENS), owner, config, 0)
    [ids] = task.batch("train", [0], 0)["input_ids"].tolist()
    found = [spacing().convert_ids_to_tokens(token) for token in ids]
    assert found == ["\u2581", "a", "b", ":", *expected.split(" "), "</s>"]


def test_an_empty_prompt_is_one_token_where_the_tokenizer_adds_none() -> None:
    config = Config(source="x:y", template="text", generation=Generation(max_new_tokens=2))
    owner = tiny.load(tiny.Config(width=8, layers=1), TOKENS, 0)
    owner = dataclasses.replace(owner, processor=spacing())
    rows = generation.read_inputs(config, ["", "a"])
    task = generation.bind(Data({"input": rows}, TOKENS), owner, config, 0)
    assert list(task.lengths("input")) == [1, 2]
    assert task.predict(owner.model, task.batch("input", [0, 1], None))[0]["count"] == 0
    assert len(task.complete(owner.model, "input", [0, 1])) == 2


def test_an_end_of_turn_without_a_name_is_the_one_end(tmp_path: Path) -> None:
    config = chat(tmp_path, CHAT.replace("eos_token", "'<|eot|>'"), max_length=100)
    owner = tiny.load(tiny.Config(width=8, layers=1), TOKENS, 0)
    owner.processor.add_tokens([AddedToken("<|eot|>", special=True)])
    assert "<|eot|>" not in owner.processor.all_special_tokens
    rows = [row_of(config, messages=turns("a", "<|eot|>", "c", "d"))]
    task = generation.bind(Data({"train": rows}, TOKENS), owner, config, 0)
    [ids], [labels] = (task.batch("train", [0], 0)[n].tolist() for n in ("input_ids", "labels"))
    end = owner.processor.convert_tokens_to_ids("<|eot|>")
    assert (ids.count(end), ids.count(EOS), ids[-1]) == (2, 0, end)
    assert (
        owner.processor.decode([label for label in labels if label != -100])
        == "<|eot|><|eot|>d<|eot|>"
    )
    assert task.template["end_tokens"] == [EOS, end]


# What is too long


def cut(**fields: Any) -> Config:
    return Config(source="x:y", prompt="{c}|{d}|{q}", completion="{a}", max_length=20, **fields)


def test_columns_are_cut_in_their_order_and_the_question_and_the_answer_stay() -> None:
    config = cut(cut=["c", "d"])
    rows = [row_of(config, c="c" * n, d="d" * m, q="why?", a="so.") for n, m in
            ((4, 5), (5, 5), (40, 5), (40, 30))]  # fmt: skip
    task = bound(config, rows)
    texts = [shown(task, i)[0] for i in range(4)]
    assert texts[0] == "<cccc|ddddd|why?so.>"
    assert texts[1:3] == ["<cccc|ddddd|why?so.>"] * 2
    assert texts[3] == "<|ddddddddd|why?so.>"
    assert task.record["truncated"] == {"train": 3}


def test_a_row_that_is_too_long_all_the_same_is_left_out_of_training_and_counted() -> None:
    config = cut(cut=["c"], max_left_out=0.5)
    rows = [row_of(config, c="c", d="d", q="q", a=a) for a in ("a", "b" * 30, "c")]
    task = bound(config, rows)
    assert task.size("train") == 2
    assert [shown(task, i)[1] for i in range(2)] == ["a>", "c>"]
    assert task.record["left_out"] == {"train": {"too long": 1}}
    with pytest.raises(DataError, match=r"1 of 3.*on \(1:.*long\)"):
        bound(cut(cut=["c"]), rows)


def test_rows_to_be_scored_are_never_left_out_and_keep_their_answer() -> None:
    config = cut(max_left_out=0.5)
    long = row_of(config, c="c" * 30, d="d", q="why?", a="so.")
    rows = {"train": [row_of(config, c="c", d="d", q="q", a="a")], "test": [long]}
    backbone = tiny.load(tiny.Config(max_length=100, width=8, layers=1), TOKENS, 0)
    task = generation.bind(Data(rows, TOKENS), backbone, config, 0)
    assert shown(task, 0, "test") == ("ccccccccc|d|why?so.>", "so.>")
    assert task.record["too_long"] == {"test": 1}


def test_a_chat_that_is_too_long_loses_its_last_turns(tmp_path: Path) -> None:
    config = chat(tmp_path, max_length=20, max_left_out=0.5)
    rows = [row_of(config, messages=turns(*said)) for said in
            (("a", "b", "c" * 30, "d"), ("a", "b", "c", "d" * 30, "e", "f"), ("a", "b" * 30))]  # fmt: skip
    task = bound(config, rows)
    assert [shown(task, i)[0] for i in range(2)] == ["<U:a\nA:b>"] * 2
    assert task.record["truncated"] == {"train": 2}
    assert task.record["left_out"] == {"train": {"too long": 1}}


def test_rows_with_nothing_to_train_on_are_counted_and_too_many_refused(tmp_path: Path) -> None:
    config = chat(tmp_path, max_left_out=0.4)
    rows = [row_of(config, messages=turns("a", "b")) for _ in range(3)]
    silent = {**rows[0], "messages": turns("a"), "label": "b"}
    task = bound(config, [*rows, silent])
    assert task.record["left_out"] == {"train": {"no turn is the assistant's": 1}}
    with pytest.raises(DataError, match="2 of 4"):
        bound(config, [*rows[:2], silent, silent])


# What cannot be done is refused


def test_a_template_that_changes_what_came_before_is_refused(tmp_path: Path) -> None:
    last = CHAT.replace("'A:' + m.content", "'A:' + ('thinks ' if loop.last else '') + m.content")
    config = chat(tmp_path, last)
    assert shown(bound(config, [row_of(config, messages=turns("a", "b"))]))[1] == "thinks b>"
    with pytest.raises(DataError, match=r"turn 2.*'thinks"):
        bound(config, [row_of(config, messages=turns("a", "b", "c", "d"))])


def test_a_chat_template_that_is_none_and_one_that_refuses_a_row_are_named(tmp_path: Path) -> None:
    config = chat(tmp_path, "{% for m in messages %}")
    rows = [row_of(config, messages=turns("a", "b"))]
    with pytest.raises(ConfigError, match="line 1:"):
        bound(config, rows)
    config = chat(
        tmp_path, "{{ raise_exception('two turns only') if messages | length > 2 }}" + CHAT
    )
    rows.append(row_of(config, messages=turns("a", "b", "c", "d")))
    with pytest.raises(DataError, match="1: the chat template refuses it: two turns only"):
        bound(config, rows)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give a template, or a prompt and a completion"),
        ({"prompt": "{q}"}, "give a template, or a prompt and a completion"),
        ({"prompt": "{q", "completion": "{a}"}, "expected '}'"),
        ({"prompt": "{q[0]}", "completion": "{a}"}, "braces"),
        ({"prompt": "{q!r}", "completion": "{a}"}, "braces"),
        ({"prompt": "{}", "completion": "{a}"}, "braces"),
        ({"template": "chat", "prompt": "{q}"}, "has no prompt"),
        ({"template": "text", "chat_template": True}, "a plain text has no turns"),
        ({"template": "text", "loss_on": "completion"}, "a plain text has no completion"),
        ({"template": "code", "system": "x"}, "need chat_template: true"),
        ({"template": "code", "cut": ["code"]}, "'code'"),
        ({"template": "code", "labels": ["a"]}, "generation has none"),
        (
            {"template": "code", "generation": {"samples": 2}},
            "temperature 0",
        ),
        (
            {"template": "code", "generation": {"stop": [""]}},
            "an empty text would end every answer",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(source="x:y", **fields)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"question": "a", "answer": "b"}] * 2)
    config = Config(data_dir=tmp_path, prompt="{qestion}", completion="{answer}")
    [found] = generation.check(config)
    assert (found.kind, found.given, found.allowed) == (
        "no_column",
        "qestion",
        ["question", "answer"],
    )
    with pytest.raises(DataError, match="'question'"):
        generation.read(config, Paths(), 0)


BAD = {
    "no_list": ("x", "not a list of turns"),
    "no_turn": (["x"], r"messages\[0\] is 'x', not a turn"),
    "no_content": ([{"role": "user"}], r"messages\[0\] has no 'content'"),
    "no_from": ([{"value": "hi"}], r"messages\[0\] has no 'from'"),
    "role": (
        [{"role": "usr", "content": "x"}],
        "the role 'usr' is none of system, user, assistant",
    ),
    "null": ([{"role": "user", "content": None}], "is None, not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_conversation_that_is_none_is_named(name: str, tmp_path: Path) -> None:
    value, message = BAD[name]
    write(tmp_path / "train.jsonl", [{"messages": turns("a", "b")}, {"messages": value}])
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        generation.read(chat(tmp_path, data_dir=tmp_path, source=None), Paths(), 0)


def test_a_backbone_without_a_chat_template_is_refused() -> None:
    config = Config(source="x:y", template="chat")
    with pytest.raises(ConfigError, match=r"template\..*task.chat_template_file"):
        bound(config, [row_of(config, messages=turns("a", "b"))])


def test_prompts_that_stand_in_two_splits_are_dropped_from_train(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": "same"} for i in range(6)]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [{"question": "Q 1", "answer": "other"}])
    config = Config(data_dir=tmp_path, template="question_answer")
    data = generation.read(config, Paths(), 0)
    assert sorted(row["index"] for s in ("train", "validation") for row in data.splits[s]) == [
        0,
        2,
        3,
        4,
        5,
    ]
    assert [row["label"] for row in data.splits["test"]] == ["other"]


def test_new_inputs_come_as_texts_objects_chats_and_files(tmp_path: Path) -> None:
    config = Config(source="x:y", template="question_answer")
    (tmp_path / "a.txt").write_text("why?\nhow?\n")
    for source in ("why?", ["why?"], [{"question": "why?"}], '{"question": "why?"}',
                   write(tmp_path / "a.jsonl", [{"question": "why?"}])):  # fmt: skip
        [row] = generation.read_inputs(config, source)
        assert row == {"index": 0, "fields": {"question": "why?"}, "label": None}
    assert len(generation.read_inputs(config, tmp_path / "a.txt")) == 2
    assert generation.read_inputs(config, '{"x": 1}')[0]["fields"] == {"question": '{"x": 1}'}
    talk = Config(source="x:y", template="chat")
    for source in ("why?", [turns("why?")], [{"messages": turns("why?", "answered")}]):
        [row] = generation.read_inputs(talk, source)
        assert row["messages"] == [{"role": "user", "content": "why?"}]
    two = Config(source="x:y", prompt="{a} {b}", completion="{c}")
    with pytest.raises(DataError, match=r"give a JSON object: .*\"a\": .*\"b\": "):
        generation.read_inputs(two, "why?")


def test_a_template_is_filled_as_python_would_but_for_what_stands_in_the_columns() -> None:
    fields = {"a": "{b} {{", "b": "x"}
    assert templates.fill("{{{a}}} {b}", fields) == "{" + "{b} {{" + "} x"
    assert templates.columns_of("{a}{{c}}{b}{a}") == ("a", "b")
    assert templates.around("x{{ {a}, {b}. ") == ("x{ ", ". ")


def test_settings_of_generation_have_names_and_bounds() -> None:
    assert Generation(temperature=0.7, top_p=0.9, samples=3).samples == 3
    for fields in ({"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}, {"splits": ["train"]}):
        with pytest.raises(ValueError, match="1 validation error"):
            Generation(**fields)
