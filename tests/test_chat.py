"""A conversation in the terminal: answers appear as they are written, and are those that `predict` gives."""

import json
import signal

import pytest
import torch
from faults import fault
from typer.testing import CliRunner
from written_runs import conversation, finish_writer

import graftlab
from graftlab import cli
from graftlab.commands import chat
from graftlab.errors import ConfigError
from graftlab.inference.conversation import Conversation, Streamer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chats")


@pytest.fixture(scope="module")
def runs(folder):
    return {
        "chat": finish_writer(folder, "chat", template="chat", system="be kind"),
        "prompt": finish_writer(folder, "prompt", chat_template=True),
        "plain": finish_writer(folder, "plain"),
    }


@pytest.fixture(scope="module")
def loaded(runs):
    return {name: graftlab.load(run.path) for name, run in runs.items()}


def talk(loaded, name, **changed):
    return Conversation(loaded[name], {"max_new_tokens": 8, **changed})


def ignore(piece):
    """Show nothing."""


def invoke(run, *options, stdin):
    return CliRunner().invoke(cli.app, ["chat", str(run.path), *options], input=stdin)


def greedy(adapted, *said, system=None):
    """Return what transformers writes after turns that are given whole."""
    prompt = conversation(adapted, *said, system=system)
    tokenizer = adapted.backbone.processor
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        ids = adapted.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_pieces_make_the_answer_that_predict_gives(loaded):
    adapted = loaded["plain"]
    for seed in range(4):
        pieces = []
        settings = {"temperature": 1.5, "seed": seed, "max_new_tokens": 20}
        answer, _ = talk(loaded, "plain", **settings).ask("how?", pieces.append)
        [expected] = adapted.predict("how?", **settings)
        assert answer == expected["completion"]
        assert "".join(pieces) == answer.lstrip()
        assert len(pieces) > 1


def test_the_model_reads_all_turns_where_there_is_a_chat_template(loaded):
    adapted, chat = loaded["chat"], talk(loaded, "chat")
    first, _ = chat.ask("hi", ignore)
    assert first == greedy(adapted, "hi", system="be kind")
    second, _ = chat.ask("so", ignore)
    assert second == greedy(adapted, "hi", first, "so", system="be kind")
    chat.forget()
    assert chat.ask("hi", ignore)[0] == first
    chat.system = None
    chat.forget()
    assert chat.ask("hi", ignore)[0] == greedy(adapted, "hi")


def test_a_prompt_stands_in_the_turns_of_a_run_that_has_one(loaded):
    adapted, chat = loaded["prompt"], talk(loaded, "prompt")
    first, _ = chat.ask("hi", ignore)
    assert first == greedy(adapted, "Q: hi\nA:")
    assert first == adapted.predict("hi", max_new_tokens=8)[0]["completion"]
    second, _ = chat.ask("so", ignore)
    assert second == greedy(adapted, "Q: hi\nA:", first, "Q: so\nA:")


def test_without_a_chat_template_each_question_is_answered_for_itself(loaded):
    kept = talk(loaded, "plain")
    first, _ = kept.ask("hi", ignore)
    kept.ask("so", ignore)
    assert kept.ask("hi", ignore)[0] == first
    assert kept.turns == []


def test_the_oldest_turns_are_forgotten_where_all_do_not_fit(loaded):
    kept = talk(loaded, "chat", max_new_tokens=10)
    lost = [kept.ask(f"question number {i} {'x' * 20}", ignore)[1] for i in range(4)]
    assert lost[0] == 0
    assert lost[-1] >= 2
    assert kept.turns[-2]["content"].startswith("question number 3")
    assert kept.turns[0]["role"] == "user"


def test_the_base_answers_without_the_adapter_and_leaves_the_conversation(loaded):
    kept = talk(loaded, "chat")
    with loaded["chat"].model.disable_adapter():
        expected = greedy(loaded["chat"], "hi", system="be kind")
    assert kept.answer_of_base("hi", ignore) == expected
    assert kept.turns == []


@pytest.fixture
def interruptible():
    """SIGINT as a terminal has it: started in the background, a process ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_answer_that_is_stopped_stays_as_far_as_it_went(loaded, interruptible):
    kept, pieces = talk(loaded, "chat", temperature=1.5, max_new_tokens=20), []

    def stop(piece):
        pieces.append(piece)
        if len(pieces) == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        kept.ask("hi", stop)
    assert kept.turns[-1] == {"role": "assistant", "content": "".join(pieces)}
    assert "generate" not in vars(loaded["chat"].model)
    assert kept.ask("hi", ignore)[1] == 0


def test_more_new_tokens_than_the_model_has_positions_are_refused(loaded):
    with pytest.raises(ConfigError, check=fault("no_room")):
        talk(loaded, "chat", max_new_tokens=96)


class Bytes:
    """A tokenizer with a token a byte."""

    def decode(self, ids, **options):
        return bytes(ids).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("a naïve 模型 😀", (), ["a", " ", "n", "a", "ï", "v", "e", " ", "模", "型", " ", "😀"]),
        ("  ab", (), ["a", "b"]),
        ("ab##cd", ("##",), ["a", "b"]),
        ("ab#cd", ("##",), ["a", "b", "#c", "d"]),
        ("abEN.END.", ("END",), ["a", "b", "EN."]),
    ],
)
def test_a_piece_is_shown_when_it_cannot_change_any_more(text, stop, expected):
    shown = []
    streamer = Streamer(Bytes(), stop, shown.append)
    streamer.put(torch.tensor([[1, 2, 3]]))  # the prompt
    for byte in text.encode():
        streamer.put(torch.tensor([byte]))
    answer = text
    for end in stop:
        answer = answer.partition(end)[0]
    streamer.finish(answer)
    assert shown == expected


def test_questions_come_through_a_pipe_and_commands_are_no_questions(runs, loaded):
    first, second = (talk(loaded, "chat").ask("hi", ignore)[0] for _ in range(2))
    assert first == second
    lines = "hi\n\n/reset\nhi\n/what\n/system\nhi\n/exit\nnever read\n"
    done = invoke(runs["chat"], "--max-new-tokens=8", "--json", stdin=lines)
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["hi"] * 3
    assert [answer["answer"] for answer in answers[:2]] == [first] * 2
    assert answers[2]["answer"] == greedy(loaded["chat"], "hi")
    assert "unknown command /what" in done.stderr


def test_only_answers_are_on_standard_output(runs, loaded):
    done = invoke(runs["plain"], "--max-new-tokens=8", "--base", stdin="hi\n")
    answer, _ = talk(loaded, "plain").ask("hi", ignore)
    base = talk(loaded, "plain").answer_of_base("hi", ignore)
    safe = ["".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in a.lstrip())
            for a in (base, answer)]  # fmt: skip
    assert done.stdout == f"base: {safe[0]}\nadapter: {safe[1]}\n"
    assert "each question is answered for itself" in done.stderr


def test_ctrl_c_ends_the_answer_and_not_the_program(runs, monkeypatch, interruptible):
    shown, real = [], Conversation.ask

    def ask(self, text, show):
        def interrupt(piece):
            shown.append(piece)
            if len(shown) == 2:
                signal.raise_signal(signal.SIGINT)

        return real(self, text, interrupt)

    monkeypatch.setattr(Conversation, "ask", ask)
    options = ("--temperature=1.5", "--max-new-tokens=20")
    done = invoke(runs["chat"], *options, stdin="hi\nso\n")
    assert done.exit_code == 0, done.output
    assert "(stopped)" in done.stderr
    assert len(shown) > 2


@pytest.mark.slow
def test_a_question_that_the_template_does_not_take_is_said_and_the_next_one_answered(folder):
    two = {"prompt": "{question} {answer}:", "completion": " {answer}"}
    run = finish_writer(folder, "two", **two)
    done = invoke(run, stdin='hi\n{"question": "a", "answer": "b"}\n')
    assert "has 2" in done.stderr
    assert (done.exit_code, bool(done.stdout.strip())) == (0, True)


def test_a_system_turn_needs_a_chat_template(runs):
    done = invoke(runs["plain"], "--system", "be kind", stdin="hi\n")
    assert (done.exit_code, "has no chat template" in done.stderr) == (2, True)


def test_what_a_model_writes_does_not_steer_the_terminal(capsys):
    chat._show("a\x1b[31m\u202eb\n")
    assert capsys.readouterr().out == "a\\x1b[31m\\u202eb\n"
