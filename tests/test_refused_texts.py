"""What is no row: a text that is refused, an endpoint that sends on, thoughts, and labels that are none."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from faults import fault

from graftlab.errors import DataError, ModelError
from graftlab.synthesis import choice, documents, labelled, orders, quality, written
from graftlab.synthesis.endpoint import Endpoint
from graftlab.tasks.elm import prompts

QUIET = written.Manner(quiet=True)
GOOD = " ".join(f"word{i}" for i in range(130))
Reply = tuple[int, dict[str, str], Any]


class Server:
    """An endpoint of this test, which answers as `reply` says and keeps what it was sent."""

    def __init__(self, reply: Callable[[str], Reply]) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """Command, message and headers."""
        mine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                message = json.loads(body)["messages"][0]["content"] if body else ""
                mine.asked.append((self.command, message, dict(self.headers)))
                code, headers, value = reply(message)
                data = json.dumps(value).encode()
                self.send_response(code)
                for name, text in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made: list[Server] = []

    def start(reply: Callable[[str], Reply]) -> Server:
        made.append(Server(reply))
        return made[-1]

    yield start
    for server in made:
        server.http.shutdown()
        server.http.server_close()


def said(content: str | None, reason: str = "stop") -> Reply:
    return 200, {}, {"choices": [{"message": {"content": content}, "finish_reason": reason}]}


def texts(folder: Path, *of: str) -> documents.Documents:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in of))
    return documents.read(str(path), None, documents.Shares(validation=0, test=0))


def asked(server: Server, found: documents.Documents, types: tuple[str, ...], out: Path) -> Any:
    endpoint = Endpoint(server.url, "mine", pause_s=0.001, attempts=2)
    return written.rows(found, endpoint, types, out, QUIET)


def refusing(*parts: str) -> Callable[[str], Reply]:
    """Refuse each message that has one of these in it."""

    def reply(message: str) -> Reply:
        return (400, {}, {}) if any(part in message for part in parts) else said(GOOD)

    return reply


@pytest.mark.parametrize("place", [0, 2])
def test_one_text_that_is_refused_at_all_its_task_types_does_not_stop_the_others(
    serve: Any, tmp_path: Path, place: int
) -> None:
    names = [f"text {i} of these" for i in range(4)]
    types = choice.chosen(sorted({kind.group for kind in prompts.task_types().values()}))
    server = serve(refusing(names[place]))
    found = asked(server, texts(tmp_path, *names), types, tmp_path / "out")
    assert len(types) == 13 > written.REFUSALS
    counts = {text: len(answers) for text, answers in found.answered["train"]}
    assert counts == {name: 0 if i == place else 13 for i, name in enumerate(names)}
    assert found.rejected.total() == 13


def test_many_texts_that_are_refused_in_a_row_stop_it_however_many_task_types(
    serve: Any, tmp_path: Path
) -> None:
    names = [f"text {i} of these" for i in range(9)]
    server = serve(refusing(*names[1:]))
    types = ("describe", "summary")
    with pytest.raises(ModelError, check=fault("endpoint")):
        asked(server, texts(tmp_path, *names), types, tmp_path / "out")
    assert len(server.asked) == 2 * (1 + written.REFUSALS) + 1


@pytest.mark.parametrize("count", [1, 2])
def test_where_no_text_is_answered_its_error_is_told_and_all_are_asked_again(
    serve: Any, tmp_path: Path, count: int
) -> None:
    found = texts(tmp_path, *(f"text {i}" for i in range(count)))
    with pytest.raises(ModelError, check=fault("endpoint")):
        asked(serve(refusing("text")), found, ("describe", "summary"), tmp_path / "out")
    answers = written.journal(tmp_path / "out") / written.ANSWERS
    assert answers.read_bytes() == b""


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_neither_key_nor_text_goes_where_an_endpoint_sends_on_to(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    other = serve(lambda _: said(GOOD))
    first = serve(lambda _: (code, {"Location": f"{other.url}/chat/completions"}, {}))
    with pytest.raises(ModelError, check=fault("redirected", given=first.url)) as caught:
        asked(first, texts(tmp_path, "one"), ("describe",), tmp_path / "out")
    [problem] = caught.value.problems
    [remedy] = problem.remedies
    assert other.url in [getattr(part, "value", None) for part in remedy]
    assert not other.asked
    [(command, _, headers)] = first.asked
    assert (command, headers["Authorization"]) == ("POST", "Bearer sk-secret")


THOUGHTS = "<think>\nThe user wants a summary. Sure!\n</think>\n\n"


@pytest.mark.parametrize(
    ("content", "reason", "kept", "rejected"),
    [
        (f"{THOUGHTS}{GOOD}", "stop", GOOD, None),
        (f"{THOUGHTS.removeprefix('<think>')}{GOOD}", "stop", GOOD, None),  # begun in the prompt
        (f"<think></think>{GOOD}", "stop", GOOD, None),
        (THOUGHTS, "stop", None, "empty"),
        (f"<think>{GOOD}", "stop", None, "thinks aloud"),
        (f"<think>{GOOD}", "length", None, "thinks aloud"),
        (f"{GOOD} {THOUGHTS}", "stop", None, "thinks aloud"),
        (f"{THOUGHTS}{THOUGHTS}{GOOD}", "stop", None, "thinks aloud"),
        (None, "length", None, "cut off"),  # a server that puts thoughts elsewhere
    ],
)
def test_thoughts_are_no_part_of_a_row(
    serve: Any, tmp_path: Path, content: Any, reason: str, kept: Any, rejected: Any
) -> None:
    server = serve(lambda _: said(content, reason))
    found = asked(server, texts(tmp_path, "one"), ("describe",), tmp_path / "out")
    [(_, answers)] = found.answered["train"]
    assert [answer.response for answer in answers] == ([kept] if kept else [])
    assert dict(found.rejected) == ({f"describe: {rejected}": 1} if rejected else {})


def test_words_that_only_name_a_thought_are_left() -> None:
    order = orders.Order("train", 0, "describe", None, "a b c", 0.5, 0.9, 1)
    assert quality.without_thoughts(GOOD) == GOOD
    assert quality.fault(order, f"I think that {GOOD}", cut=False) is None


def labels(folder: Path, values: list[Any], *names: str) -> tuple[dict[str, list[str]], int]:
    path = folder / "l.jsonl"
    rows = [{"text": f"text {i}", "label": value} for i, value in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = documents.read(str(path), "text", documents.Shares(validation=0, test=0))
    answered, rejected = labelled.rows(found, {"category": "label"}, names)
    given = {text: [answer.response for answer in of] for text, of in answered["train"]}
    return given, rejected["category: no answer"]


@pytest.mark.parametrize("none", [-1, -1.0, "-1"])
@pytest.mark.parametrize("names", [(), ("neg", "pos")])
def test_a_label_of_minus_one_is_no_answer_and_counted(
    tmp_path: Path, none: Any, names: tuple[str, ...]
) -> None:
    found, counted = labels(tmp_path, [1, none], *names)
    assert found == {"text 0": [names[1] if names else "1"], "text 1": []}
    assert counted == 1


@pytest.mark.parametrize("odd", [-2, 2, "-7", 9.0])
def test_a_label_that_has_no_name_is_refused(tmp_path: Path, odd: Any) -> None:
    with pytest.raises(DataError, check=fault("not_allowed", given=str(int(float(odd))))):
        labels(tmp_path, [1, odd], "neg", "pos")
