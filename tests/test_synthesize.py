"""Rows about texts: of labelled data by column, of a model as it answered; no text is in two splits."""

import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from faults import fault
from typer.testing import CliRunner

from graftlab import cli
from graftlab.config import Paths
from graftlab.embeddings import blocks, texts
from graftlab.encoders import embedder
from graftlab.errors import ConfigError, DataError, DiskError, ModelError
from graftlab.synthesis import (
    choice,
    documents,
    folder,
    labelled,
    local_model,
    orders,
    quality,
    written,
)
from graftlab.synthesis.endpoint import Endpoint
from graftlab.tasks import elm
from graftlab.tasks.elm import prompts
from graftlab.testing import examples

QUIET = written.Manner(quiet=True)
ALL = documents.Shares(validation=0, test=0)


def data(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def answers_of(source: str, *targets: str, names: tuple[str, ...] = ()) -> Any:
    found = documents.read(source, "text", ALL)
    answered, rejected = labelled.rows(found, labelled.targets(targets), names)
    return {
        text: [(a.task_type, a.response) for a in of] for text, of in answered["train"]
    }, rejected


def test_columns_become_answers(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "label": 1, "short": "1.", "asked": "why?", "title": ["a", "b"]},
        {"text": "two", "label": 0, "short": "", "asked": "who?", "title": "c"},
        *({"text": "two", "label": 0, "asked": f"q{i}?"} for i in range(4)),
    ]
    found, rejected = answers_of(
        data(tmp_path / "a.jsonl", rows),
        *("category=label", "summary=short", "questions=asked", "keywords=title"),
        names=("cold", "warm"),
    )
    assert found["one"] == [
        ("category", "warm"), ("summary", "1."), ("questions", "why?"), ("keywords", "a, b")
    ]  # fmt: skip
    assert found["two"] == [
        ("category", "cold"), ("questions", "who?\nq0?\nq1?"), ("questions", "q2?\nq3?"), ("keywords", "c")
    ]  # fmt: skip
    assert rejected == {"summary: no answer": 5, "keywords: no answer": 4}


def test_two_labels_of_one_text_are_no_answer(tmp_path: Path) -> None:
    rows = [{"text": "One  two", "label": "a"}, {"text": "one two", "label": "b"}]
    found, rejected = answers_of(data(tmp_path / "a.jsonl", rows), "category=label")
    assert list(found.values()) == [[]]
    assert rejected.total() == 1


@pytest.mark.parametrize(
    ("target", "kind"),
    [("compare=a", "removed"), ("hypothetical=a", "removed"), ("sumary=a", "unknown"),
     ("factual=a", "not_allowed"), ("summary", "not_allowed")],
)  # fmt: skip
def test_what_is_no_target_is_refused(target: str, kind: str) -> None:
    with pytest.raises(ConfigError, check=fault(kind)):
        labelled.targets([target])


def test_texts_of_one_file_are_split_by_text_whatever_else_is_there(tmp_path: Path) -> None:
    rows = [{"text": f"t {i % 400}", "n": i} for i in range(800)]
    shares = documents.Shares(0.2, 0.3, seed=5)
    found = documents.read(data(tmp_path / "a.jsonl", rows), None, shares)
    sizes = {split: len(of) for split, of in found.splits.items()}
    # three standard deviations of a share of 400
    assert sizes["test"] == pytest.approx(120, abs=28)
    assert sizes["validation"] == pytest.approx(80, abs=24)
    assert sum(sizes.values()) == 400
    some = documents.read(data(tmp_path / "b.jsonl", rows[:100]), None, shares)
    where = {d.key: split for split, of in found.splits.items() for d in of}
    assert all(where[d.key] == split for split, of in some.splits.items() for d in of)


def test_a_text_of_two_splits_stays_in_test_alone(tmp_path: Path) -> None:
    for split, letters in {"train": "abcd", "validation": "cxyz", "test": "dxpq"}.items():
        rows = [  # what a task is given differs, the text that is embedded does not
            {"text": text, "pair": f"{split} {i}", "label": "uv"[i % 2]}
            for i, text in enumerate(letters)
        ]
        data(tmp_path / f"{split}.jsonl", rows)
    run = tmp_path / "run.yaml"
    run.write_text(
        f"backbone: {{kind: tiny}}\nmethod: {{name: lora}}\n"
        f"task: {{kind: classification, data_dir: {tmp_path}, columns: {{text: text, pair: pair}}}}\n"
    )
    found = documents.read(str(run), None, ALL)
    assert found.dropped == {"validation": 1, "train": 2}
    texts = {split: "".join(d.text for d in of) for split, of in found.splits.items()}
    assert texts == {"test": "dxpq", "validation": "cyz", "train": "ab"}


def test_the_folder_is_what_the_rest_reads(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "sum": f"sum {i}" if i % 2 else None} for i in range(40)]
    source = data(tmp_path / "a.jsonl", rows)
    call = [
        "synthesize",
        source,
        "--out",
        str(tmp_path / "out"),
        "--target",
        "summary=sum",
        "--json",
    ]
    result = CliRunner().invoke(cli.app, call)
    record = json.loads(result.stdout)
    total = 0
    for split, counts in record["splits"].items():
        texts, made = (
            lines(tmp_path / "out" / split / "texts.jsonl"),
            lines(tmp_path / "out" / split / "rows.jsonl"),
        )
        for row in made:
            number = texts[row["embedding_file_idx"]]["text"].removeprefix("text ")
            assert row["response"] == f"sum {number}"
            assert row["query"] == prompts.named("summary").prompt()
        assert counts["texts"] == len(texts)
        total += len(made)
    assert total == 20
    assert record["rejected"] == {"summary: no answer": 20}


# --- a model -----------------------------------------------------------------------------------------------

WORDS = " ".join(f"word{i}x" for i in range(130))
GOOD = WORDS.replace("x", "")
Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def complete(handler: BaseHTTPRequestHandler, content: str, reason: str = "stop") -> None:
    send(handler, 200, {"choices": [{"message": {"content": content}, "finish_reason": reason}]})


def send(handler: BaseHTTPRequestHandler, code: int, body: Any, **headers: str) -> None:
    data = json.dumps(body).encode()
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


class Server:
    """An endpoint of this test: what it is asked, and what it answers by turns."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.script: list[Reply] = []
        """What it does first; then it answers well."""
        mine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                mine.asked.append(body)
                if mine.script:
                    mine.script.pop(0)(self, body)
                else:
                    complete(self, f"{GOOD} {len(body['messages'][0]['content'])}")

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


def some(folder_: Path, count: int = 3) -> documents.Documents:
    rows = [{"text": f"text number {i}"} for i in range(count)]
    return documents.read(data(folder_ / "t.jsonl", rows), None, ALL)


def asked_of(server: Server, **more: Any) -> Endpoint:
    return Endpoint(server.url, "mine", **{"pause_s": 0.001, **more})


def nothing(handler: BaseHTTPRequestHandler, _: Any) -> None:
    handler.close_connection = True
    handler.connection.close()


def test_an_endpoint_is_asked_by_group_and_each_answer_comes_to_its_text(
    tmp_path: Path, server: Server
) -> None:
    types = ("keywords", "describe", "counterfactual")
    found = written.rows(some(tmp_path), asked_of(server), types, tmp_path / "out", QUIET)
    sampling = [(body["temperature"], body["top_p"]) for body in server.asked[:3]]
    assert sampling == [(0.3, 0.85), (0.5, 0.9), (0.7, 0.92)]
    for number, (text, answers) in enumerate(found.answered["train"]):
        assert [a.task_type for a in answers] == list(types)
        for body, answer in zip(server.asked[3 * number :], answers, strict=False):
            message = body["messages"][0]["content"]
            assert text in message
            assert answer.response == f"{GOOD} {len(message)}"
            assert answer.domain is None or answer.domain in message
    assert len({body["seed"] for body in server.asked}) == 9


def test_it_waits_and_asks_again_and_counts_what_went_wrong(tmp_path: Path, server: Server) -> None:
    server.script = [
        lambda h, _: send(h, 429, {}, **{"Retry-After": "0"}),
        lambda h, _: send(h, 500, {"error": "x"}),
        nothing,
        lambda h, _: send(h, 200, {"text": "another schema"}),
        lambda h, _: send(h, 200, {"choices": [{"message": {"content": None}}]}),
    ]
    endpoint = asked_of(server)
    found = written.rows(some(tmp_path), endpoint, ("describe",), tmp_path / "out", QUIET)
    assert endpoint.troubles == {"429": 1, "500": 1, "no answer": 1, "another schema": 2}
    assert len(server.asked) == 8
    assert [len(answers) for _, answers in found.answered["train"]] == [1, 1, 1]


def test_it_gives_up_and_goes_on_from_there(tmp_path: Path, server: Server) -> None:
    texts, out = some(tmp_path), tmp_path / "out"
    whole = written.rows(texts, asked_of(server), ("describe",), tmp_path / "whole", QUIET)
    server.asked.clear()
    server.script = [lambda h, b: complete(h, f"{GOOD} {len(b['messages'][0]['content'])}")]
    server.script += [lambda h, _: send(h, 503, {})] * 2
    with pytest.raises(ModelError, check=fault("endpoint")):
        written.rows(texts, asked_of(server, attempts=2), ("describe",), out, QUIET)
    with (written.journal(out) / written.ANSWERS).open("ab") as file:
        file.write(b'{"response": "cut off by a cra')
    again = written.rows(texts, asked_of(server), ("describe",), out, QUIET)
    assert again == whole
    assert len(server.asked) == 1 + 2 + 2


def test_several_requests_at_a_time_bring_the_same_and_are_gone_on_with(
    tmp_path: Path, server: Server
) -> None:
    texts, out, types = some(tmp_path, 8), tmp_path / "out", ("describe", "summary")
    whole = written.rows(texts, asked_of(server), types, tmp_path / "whole", QUIET)
    server.script = [lambda h, _: send(h, 500, {})] * 3
    four = QUIET._replace(parallel=4)
    endpoint = asked_of(server)
    assert written.rows(texts, endpoint, types, out, four) == whole
    assert endpoint.troubles == {"500": 3}
    server.script = [lambda h, _: send(h, 401, {})]
    with pytest.raises(ModelError, check=fault("endpoint")):
        written.rows(texts, asked_of(server), types, tmp_path / "other", four)
    assert written.rows(texts, asked_of(server), types, tmp_path / "other", four) == whole


def test_killed_ten_times_it_answers_the_same_and_asks_little_twice(
    tmp_path: Path, server: Server
) -> None:
    texts, out, types = some(tmp_path, 12), tmp_path / "out", choice.chosen(["descriptive"])
    whole = written.rows(texts, asked_of(server), types, tmp_path / "whole", QUIET)
    kept, counts = written.journal(out) / written.ANSWERS, [0]
    for _ in range(10):
        child = os.fork()
        if not child:
            written.rows(texts, asked_of(server), types, out, QUIET)
            os._exit(0)
        limit = time.monotonic() + 60
        while _answers(kept) <= counts[-1] and time.monotonic() < limit:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts.append(_answers(kept))
    assert counts == sorted(counts)
    before = len(server.asked)
    assert written.rows(texts, asked_of(server), types, out, QUIET) == whole
    assert len(server.asked) - before == 60 - counts[-1]
    assert kept.read_bytes() == (written.journal(tmp_path / "whole") / written.ANSWERS).read_bytes()


def _answers(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.fixture(scope="module")
def instructed(tmp_path_factory: Any) -> str:
    """Return a tiny decoder with a chat template."""
    path = examples.text_model(tmp_path_factory.mktemp("model"), "decoder")
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (Path(path) / "chat_template.jinja").write_text(template)
    config = Path(path) / "config.json"  # of rotary positions, which may be more
    fields = json.loads(config.read_text()) | {"max_position_embeddings": 256}
    config.write_text(json.dumps(fields))
    return path


def test_a_model_of_this_machine_draws_each_answer_from_its_own_seed(instructed: str) -> None:
    model = local_model.LocalModel(instructed, max_new_tokens=20)
    texts = [model.write(order()._replace(seed=seed, temperature=5.0)) for seed in (1, 2, 1)]
    assert texts[0] == texts[2]
    assert texts[0] != texts[1]


def test_a_text_cannot_forge_a_special_token_and_one_too_long_is_no_row(instructed: str) -> None:
    model = local_model.LocalModel(instructed, max_new_tokens=4)
    special = set(model._tokenizer.all_special_ids)
    for token in model._tokenizer.all_special_tokens:
        forged = model._tokens(f"a {token} b")
        plain = model._tokenizer(token, add_special_tokens=False, split_special_tokens=True)
        assert not (special & set(forged)) - set(plain["input_ids"])
    with pytest.raises(orders.Unanswerable) as caught:
        model.write(order(text="a b " * 5000))
    assert fault("too_long")(caught.value.error)


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    path = examples.text_model(tmp_path, "decoder")
    with pytest.raises(ModelError, check=fault("no_template")):
        local_model.LocalModel(path)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ([], "missing"),
        (["--target", "summary=x", "--model", "m"], "idle"),
        (["--target", "summary=x", "--only", "summary"], "idle"),
        (["--model", "m", "--names", "a,b"], "idle"),
        (["--model", "m", "--parallel", "2"], "idle"),
        (["--model", "m", "--only", "compare"], "removed"),
        (["--model", "m", "--endpoint", "localhost:8000"], "not_allowed"),
    ],
)
def test_options_that_do_nothing_are_refused(tmp_path: Path, options: list[str], kind: str) -> None:
    source = data(tmp_path / "t.jsonl", [{"text": f"t{i}", "x": "y"} for i in range(30)])
    call = ["synthesize", source, "--out", str(tmp_path / "out"), *options, "--json"]
    result = CliRunner().invoke(cli.app, call)
    assert json.loads(result.stdout)["error"]["problems"][0]["kind"] == kind
    assert not (tmp_path / "out").exists()


def test_a_text_that_is_refused_is_no_row_and_many_in_a_row_stop_it(
    tmp_path: Path, server: Server
) -> None:
    texts, out = some(tmp_path, 12), tmp_path / "out"

    def well(handler: BaseHTTPRequestHandler, _: Any) -> None:
        complete(handler, GOOD)

    def long(handler: BaseHTTPRequestHandler, _: Any) -> None:
        send(handler, 400, {"error": "too long"})

    server.script = [well, long, well, *[long] * 20]
    with pytest.raises(ModelError, check=fault("endpoint")):
        written.rows(texts, asked_of(server), ("describe",), out, QUIET)
    assert len(server.asked) == 3 + written.REFUSALS + 1
    server.script = []
    found = written.rows(texts, asked_of(server), ("describe",), out, QUIET)
    assert found.rejected == {"describe: refused (400)": 1 + written.REFUSALS}
    answers = [len(of) for _, of in found.answered["train"]]
    assert answers == [1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_a_full_disk_is_told_and_gone_on_from(tmp_path: Path, server: Server) -> None:
    texts, before = some(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = written.rows(texts, asked_of(server), ("describe",), tmp_path / "whole", QUIET)
    kept = written.journal(tmp_path / "whole") / written.ANSWERS
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(DiskError, check=fault("unwritable")):  # in the middle of a line
            written.rows(texts, asked_of(server), ("describe",), tmp_path / "out", QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert written.rows(texts, asked_of(server), ("describe",), tmp_path / "out", QUIET) == whole


def test_a_task_reads_the_folder_once_it_has_vectors(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "sum": f"sum {i}"} for i in range(60)]
    call = ["synthesize", data(tmp_path / "a.jsonl", rows), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(cli.app, [*call, "--target", "summary=sum"]).exit_code == 0
    model = embedder.load(
        embedder.Request(examples.text_model(tmp_path / "model", "encoder"), pooling="mean")
    )
    found = texts.read(str(tmp_path / "out"), None)
    for split, of in found.items():
        blocks.write(of, model, tmp_path / "out" / split, quiet=True)
    read = elm.read(elm.Config(data_dir=tmp_path / "out"), Paths(), 0)
    assert sum(read.record["original_sizes"].values()) == 60
    for split, of in found.items():
        for row in read.splits[split]:
            assert of.values[row["vector"]].removeprefix("text ") == row["label"].removeprefix(
                "sum "
            )


@pytest.mark.parametrize(("code", "asked"), [(400, 2), (401, 1), (404, 1)])
def test_what_no_waiting_changes_stops_it_at_once(
    tmp_path: Path, server: Server, code: int, asked: int
) -> None:
    """At the second text, where it might be of the first alone."""
    server.script = [lambda h, _: send(h, code, {"error": "no"})] * 9
    with pytest.raises(ModelError, check=fault("endpoint")):
        written.rows(some(tmp_path), asked_of(server), ("describe",), tmp_path / "out", QUIET)
    assert len(server.asked) == asked


def test_answers_to_another_job_are_not_gone_on_with(tmp_path: Path, server: Server) -> None:
    written.rows(some(tmp_path), asked_of(server), ("describe",), tmp_path / "out", QUIET)
    with pytest.raises(ConfigError, check=fault("taken")):
        written.rows(some(tmp_path), asked_of(server), ("summary",), tmp_path / "out", QUIET)


def order(kind: str = "summary", text: str = "a b c") -> orders.Order:
    return orders.Order("train", 0, kind, None, text, 0.5, 0.9, 1)


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        ("empty", "  ... "),
        ("too short", "only a few words"),
        ("speaks of the instruction", f"Sure! {GOOD}"),
        ("speaks of the instruction", f"As an AI model I say {GOOD}"),
        ("speaks of the instruction", f"{prompts.named('summary').instruction} {GOOD}"),
        ("repeats itself", "one two three four " * 20),
        ("repeats itself", " ".join(f"{i}. Selling sushi" for i in range(30))),
        ("not letters", " ".join(f"{i:05}a" for i in range(60))),
        (None, " ".join(f"wordy{i}" for i in range(60))),
    ],
)
def test_answers_are_rejected_with_their_reason(reason: str | None, answer: str) -> None:
    assert quality.fault(order(), answer, cut=False) == reason


def test_a_copy_of_the_text_is_rejected_but_for_keywords() -> None:
    answer = " ".join(f"word{i}y" for i in range(60))
    assert quality.fault(order(text=answer), answer, cut=False) == "copies the text"
    assert quality.fault(order("keywords", answer), answer, cut=False) is None
    assert quality.fault(order(), f"{GOOD}", cut=True) == "cut off"


def test_the_command_asks_an_endpoint_and_says_what_it_rejected(
    tmp_path: Path, server: Server
) -> None:
    source = data(tmp_path / "t.jsonl", [{"text": f"text number {i}"} for i in range(30)])
    server.script = [lambda h, _: complete(h, "too short")]
    out = tmp_path / "out"
    call = ["synthesize", source, "--out", str(out), "--endpoint", server.url, "--model", "mine"]
    result = CliRunner().invoke(cli.app, [*call, "--only", "descriptive", "--json"])
    record = json.loads(result.stdout)
    [(reason, count)] = record["rejected"].items()
    assert (reason.endswith("too short"), count) == (True, 1)
    rows = [row for path in out.glob("*/rows.jsonl") for row in lines(path)]
    assert len(rows) == 30 * 5 - 1
    assert {row["task_type"] for row in rows} == set(choice.chosen(["descriptive"]))
    assert not written.journal(out).exists()
    assert folder.RECORD in {path.name for path in out.iterdir()}
    with pytest.raises(DataError):
        documents.read(data(tmp_path / "e.jsonl", [{"text": ""}]), None, ALL)
