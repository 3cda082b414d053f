"""A conversation about a vector: it stands in the first turn that is read, and nowhere else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import fault
from finished_runs import finish
from typer.testing import CliRunner
from vector_runs import finish_reader, make_llm, opened
from written_runs import CHAT, finish_writer

import graftlab
from graftlab import cli
from graftlab.data.vectors.store import Vectors
from graftlab.errors import ConfigError, DataError
from graftlab.inference import conversation
from graftlab.inference.conversation import Conversation
from graftlab.inference.subject import About
from graftlab.rundir.run import Run
from graftlab.testing import examples

TOKENS = 2  # of a vector
Reader = tuple[Run, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    made: Path = tmp_path_factory.mktemp("talks")
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    llm = {"kind": "decoder", "model": make_llm(folder / "llm")}
    task = {"prompt_format": "chat", "num_tokens": TOKENS}
    return finish_reader(folder, "talker", backbone=llm, task=task)


@pytest.fixture(scope="module")
def adapted(run: Run) -> Any:
    return graftlab.load(run.path)


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return folder / "vectors" / "test" / "embeddings.safetensors"


def ignore(piece: str) -> None:
    """Show nothing."""


def talk(adapted: Any, vector: Any, **changed: Any) -> Conversation:
    return Conversation(adapted, {"max_new_tokens": 8, **changed}, vector=vector)


def by_hand(adapted: Any, vector: Any, said: list[str], system: str | None = None) -> str:
    """Return what the language model writes, greedily, after turns with the adapter's tokens in the first."""
    place, roles = "\N{SNOWMAN}", ("user", "assistant") * len(said)
    texts = [f"{place}\n{said[0]}", *said[1:]]
    turns = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    front = [{"role": "system", "content": system}] if system else []
    tokenizer, model = adapted.backbone.processor, adapted.model
    prompt = tokenizer.apply_chat_template(
        front + turns, chat_template=CHAT, add_generation_prompt=True, tokenize=False
    )
    before, after = (
        tokenizer(part, add_special_tokens=False, return_tensors="pt")["input_ids"].long()
        for part in prompt.split(place)
    )
    words = model.get_input_embeddings()
    with torch.no_grad():
        made = model.adapter(torch.from_numpy(vector)[None])
        tokens = torch.cat([words(before), made, words(after)], 1)
        ids = model.llm.generate(inputs_embeds=tokens, max_new_tokens=8, do_sample=False)
    text: str = tokenizer.decode(ids[0], skip_special_tokens=True)
    return text


def test_the_vector_stands_in_the_first_turn_and_all_turns_are_read(
    adapted: Any, file: Path
) -> None:
    vectors = Vectors(file).take(slice(None))
    answers = set()
    for vector in vectors:
        said = talk(adapted, vector)
        first, _ = said.ask("hi", ignore)
        assert first == by_hand(adapted, vector, ["hi"])
        second, _ = said.ask("so", ignore)
        assert second == by_hand(adapted, vector, ["hi", first, "so"])
        answers.add((first, second))
    assert len(answers) > 1
    named = talk(adapted, vectors[0])
    named.rename("be kind")
    assert named.ask("hi", ignore)[0] == by_hand(adapted, vectors[0], ["hi"], "be kind")


def test_a_first_question_in_the_words_of_a_task_type_is_answered_as_predict_does(
    adapted: Any, file: Path
) -> None:
    vector = Vectors(file).take([1])[0]
    said = talk(adapted, vector)
    answer, _ = said.ask(said.words_of("summary"), ignore)
    [expected] = adapted.predict([vector], task="summary", max_new_tokens=8)
    assert answer == expected["completion"]


def test_whole_conversations_are_gone_on_with_by_predict(adapted: Any, file: Path) -> None:
    vectors = Vectors(file).take(slice(None))
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "so"}]  # fmt: skip
    answers = adapted.predict([{"vector": v, "messages": said} for v in vectors], max_new_tokens=8)
    expected = [by_hand(adapted, vector, ["hi", "ho", "so"]) for vector in vectors]
    assert [answer["completion"] for answer in answers] == expected
    with pytest.raises(DataError, check=fault("unusable")):
        adapted.predict([{"vector": vectors[0], "messages": said}, vectors[1]], task="summary")


def test_a_vector_outlives_the_turns_that_are_forgotten(adapted: Any, file: Path) -> None:
    vector = Vectors(file).take([2])[0]
    said = talk(adapted, vector)
    lost = [said.ask(f"number {i} {'x' * 40}", ignore)[1] for i in range(5)]
    assert lost[0] == 0
    assert lost[-1] >= 2
    left = [turn["content"] for turn in said.turns]
    assert left[-1] == by_hand(adapted, vector, left[:-1])
    turns = list(said.turns)
    with pytest.raises(DataError):
        said.ask("x" * 300, ignore)
    assert said.turns == turns


def test_no_word_of_a_user_makes_another_place_of_a_vector(adapted: Any, file: Path) -> None:
    from graftlab.tasks.generation.chat import VECTOR

    said = talk(adapted, Vectors(file).take([0])[0])
    answer, _ = said.ask(f"a {VECTOR} b", ignore)
    assert isinstance(answer, str)


@pytest.mark.slow
def test_without_a_chat_template_each_question_is_about_the_vector_alone(
    folder: Path, file: Path
) -> None:
    adapted = graftlab.load(finish_reader(folder, "plain").path)
    vector = Vectors(file).take([1])[0]
    said = talk(adapted, vector)
    first, _ = said.ask("And so?", ignore)
    said.ask("hi", ignore)
    assert said.ask("And so?", ignore)[0] == first
    [expected] = adapted.predict([{"vector": vector, "query": "And so?"}], max_new_tokens=8)
    assert first == expected["completion"]


@pytest.mark.slow
def test_the_command_takes_a_row_of_a_file_or_a_text(
    run: Run, adapted: Any, file: Path, folder: Path
) -> None:
    options = ("--max-new-tokens=8", "--json")
    lines = "hi\n/task summary\n/task sumary\n/reset\nhi\n"
    asked = ["chat", str(run.path), "--embedding", str(file), "--row", "1", *options]
    done = CliRunner().invoke(cli.app, asked, input=lines)
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    vector = Vectors(file).take([1])[0]
    expected = by_hand(adapted, vector, ["hi"])
    assert [answer["answer"] for answer in answers][::2] == [expected, expected]
    assert len(answers) == 3
    assert "'summary'" in done.stderr
    done = CliRunner().invoke(
        cli.app, ["chat", str(run.path), "--text", "a b c", *options], input="hi\n"
    )
    vector = opened(folder / "embedder").encode(["a b c"], 1)[0]
    assert json.loads(done.stdout)["answer"] == by_hand(adapted, vector, ["hi"])


def test_a_language_model_without_a_chat_template_is_refused_before_it_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    llm = examples.text_model(tmp_path, "decoder")
    task = {"prompt_format": "chat"}
    with pytest.raises(ConfigError, check=fault("no_template", "task.prompt_format")):
        finish_reader(folder, "silent", backbone={"kind": "decoder", "model": llm}, task=task)


@pytest.mark.slow
def test_what_a_conversation_is_about_is_said_once_and_by_runs_that_read_vectors(
    run: Run, file: Path, folder: Path, tmp_path: Path
) -> None:
    cases = [
        (None, "missing"),
        (About(file, text="a"), "conflict"),
        (About(file), "missing"),
        (About(file, 3), "not_allowed"),
        (About(text="a", row=1), "idle"),
    ]
    for about, kind in cases:
        with pytest.raises(ConfigError, check=fault(kind)):
            conversation.begin(run.path, {}, None, about)
    with pytest.raises(ConfigError, check=fault("conflict")):
        conversation.begin(run.path, {}, None, About(file, 1), base=True)
    bad = Vectors(file).take(slice(None))
    bad[1] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    np.save(tmp_path / "narrow.npy", bad[:1, 1:])
    for name, row, kind in (("bad.npy", 1, "not_finite"), ("narrow.npy", 0, "other_width")):
        with pytest.raises(DataError, check=fault(kind)):
            conversation.begin(run.path, {}, None, About(tmp_path / name, row))
    writer = finish_writer(folder, "writer")
    for about in (About(file, 1), About(text="a")):
        with pytest.raises(ConfigError, check=fault("conflict")):
            conversation.begin(writer.path, {}, None, about)
    with pytest.raises(ConfigError):
        conversation.begin(finish(tmp_path, {"name": "lora"}).path, {}, None, About(text="a"))
