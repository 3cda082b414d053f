"""A run that writes texts is used on new inputs: its own template, only the completion, settings that win."""

import json

import pytest
import torch
from finished_runs import finish
from typer.testing import CliRunner
from written_runs import conversation, finish_writer

import graftlab
from graftlab import cli
from graftlab.backbones import tiny
from graftlab.errors import ConfigError, DataError
from graftlab.release.push import card, contents

QUESTIONS = ["how many?", "a", "what is the longest of these questions?", "why"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("writing")


@pytest.fixture(scope="module")
def run(folder):
    return finish_writer(folder, "questions")


@pytest.fixture(scope="module")
def adapted(run):
    return graftlab.load(run.path)


def completions(answers):
    return [answer["completion"] for answer in answers]


def plain(adapted, prompt, tokens=12, start=True):
    """Return what transformers' greedy `generate` writes after a prompt, on plain PEFT.

    The tokenizer puts its token for the start in front; a chat template has all that it needs.
    """
    tokenizer = adapted.backbone.processor
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=start)
    with torch.no_grad():
        ids = adapted.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def invoke(*arguments, stdin=None):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=stdin)


def test_an_answer_is_what_generate_writes_after_the_filled_template_and_no_more(adapted):
    answers = adapted.predict(QUESTIONS)
    expected = [plain(adapted, f"Q: {question}\nA:").removeprefix(" ") for question in QUESTIONS]
    assert [list(answer) for answer in answers] == [["index", "completion"]] * 4
    assert completions(answers) == expected
    assert any(expected)


def test_batches_padded_on_the_left_change_nothing(adapted):
    assert adapted.predict(QUESTIONS, batch_size=1) == adapted.predict(QUESTIONS, batch_size=4)


def test_all_forms_of_input_give_the_same_answers(adapted, tmp_path):
    expected = adapted.predict(QUESTIONS)
    rows = [{"question": question} for question in QUESTIONS]
    (tmp_path / "a.txt").write_text("\n".join(QUESTIONS) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.txt").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for inputs in (rows, *(tmp_path / name for name in ("a.txt", "a.jsonl", "b.txt"))):
        assert adapted.predict(inputs) == expected
    assert adapted.predict(QUESTIONS[0]) == expected[:1]


def test_raw_inputs_go_to_the_model_as_they_are(adapted):
    [answer] = adapted.predict("Once {upon} a time", raw=True)
    assert answer["completion"] == plain(adapted, "Once {upon} a time")
    [filled] = adapted.predict("Q: why\nA:", raw=True)
    assert filled["completion"].removeprefix(" ") == adapted.predict("why")[0]["completion"]


def test_settings_that_are_given_go_before_the_runs(adapted):
    [long] = completions(adapted.predict("why", max_new_tokens=12, raw=True))
    [short] = completions(adapted.predict("why", max_new_tokens=5, raw=True))
    assert short == plain(adapted, "why", 5)
    assert short != long
    stop = long[3:5]
    [stopped] = completions(adapted.predict("why", raw=True, stop=(stop,)))
    assert stopped == long.partition(stop)[0]


def test_what_is_drawn_comes_from_the_seed(adapted):
    def draw(seed, **more):
        return completions(adapted.predict(QUESTIONS, temperature=1.5, seed=seed, **more))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    samples = draw(1, samples=3)
    assert [len(texts) for texts in samples] == [3] * 4
    assert [texts[0] for texts in samples] == draw(1)
    assert len({text for texts in samples for text in texts}) > 4
    assert draw(1, top_k=1) == completions(adapted.predict(QUESTIONS))


def test_temperature_0_takes_what_is_for_drawing_with_it(folder):
    stored = {"temperature": 1.0, "top_p": 0.9, "top_k": 40, "samples": 2}
    adapted = graftlab.load(finish_writer(folder, "drawn", generation=stored).path)
    assert [len(texts) for texts in completions(adapted.predict(QUESTIONS))] == [2] * 4
    [greedy] = completions(adapted.predict("why", temperature=0.0))
    assert greedy == plain(adapted, "Q: why\nA:").removeprefix(" ")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"top_p": 0.5}, "temperature 0"),
        ({"temperature": 1.0, "top_p": 2}, "top_p:.*to 1"),
        ({"stop": ("",)}, "an empty text"),
        ({"max_new_tokens": 500}, "positions in all"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(adapted, changed, said):
    with pytest.raises(ConfigError, match=said):
        adapted.predict("why", **changed)


def test_a_classifier_takes_none_of_them(tmp_path):
    run = finish(tmp_path, {"name": "lora"})
    for options in (["--temperature", "1"], ["--raw"], ["--stop", "x"], ["--samples", "2"]):
        result = invoke("predict", run.path, "--input", "fine", *options)
        assert result.exit_code == 2
        assert "this run's kind is classification" in result.stderr
    assert invoke("chat", run.path, stdin="hello\n").exit_code == 2


def test_the_command_prints_completions_alone_and_takes_all_settings(run, adapted):
    expected = adapted.predict(QUESTIONS[:2])
    done = invoke("predict", run.path, "--input", "-", stdin="\n".join(QUESTIONS[:2]))
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    options = ["--max-new-tokens=4", "--temperature=1.5", "--top-p=0.9", "--top-k=50",
               "--repetition-penalty=1.1", r"--stop=\n", "--stop=zz", "--seed=3", "--samples=2"]  # fmt: skip
    done = invoke("predict", run.path, "--input", "why", *options, "--json")
    [answer] = json.loads(done.stdout)["predictions"]
    [same] = adapted.predict(
        "why", max_new_tokens=4, temperature=1.5, top_p=0.9, top_k=50, repetition_penalty=1.1,
        stop=("\n", "zz"), seed=3, samples=2,
    )  # fmt: skip
    assert answer == same


def share(run, folder):
    """Write what a push uploads into a folder, as a download would; return it by name."""
    shared = contents.read(run.path)
    found = {**contents.gather(shared), "README.md": card.write(shared, "me/it").encode()}
    folder.mkdir()
    for name, content in found.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        (folder / name).write_bytes(data)
    return found


def test_conversations_and_questions_to_a_chat_model(folder, tmp_path):
    run = finish_writer(folder, "chat", template="chat")
    adapted = graftlab.load(run.path)
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
        {"role": "user", "content": "so"},
    ]
    first, second, third = completions(adapted.predict(["hi", turns, {"messages": turns}]))
    whole = conversation(adapted, "hi", "ho", "so")
    assert second == third == plain(adapted, whole, start=False)
    assert first == plain(adapted, conversation(adapted, "hi"), start=False)
    share(run, tmp_path / "shared")
    assert adapted.file.task.config.chat_template_file.is_file()
    adapted.file.task.config.chat_template_file.unlink()
    again = graftlab.load(tmp_path / "shared")
    assert completions(again.predict([turns])) == [second]
    with pytest.raises(DataError, match="role"):
        adapted.predict([{"messages": [{"who": "me"}]}])


@pytest.mark.slow
def test_a_folder_as_it_is_on_the_hub_is_an_adapter_for_peft_and_a_run(run, adapted, tmp_path):
    from peft import PeftModel

    folder = tmp_path / "shared"
    found = share(run, folder)
    assert graftlab.load(folder).predict(QUESTIONS) == adapted.predict(QUESTIONS)
    base = tiny.load(adapted.file.backbone.config, adapted.problem, seed=0).model
    model = PeftModel.from_pretrained(base, folder).eval()
    inputs = adapted.backbone.processor("Q: why\nA:", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, adapted.model(**inputs).logits)
    assert "Q: {question}\nA:" in found["README.md"].decode()
