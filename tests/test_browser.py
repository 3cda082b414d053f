"""A folder of runs in a browser: who may ask, what is shown and escaped, stop and resume."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from urllib.parse import quote

import pytest
from test_overview import FAILED, LOG, result, write

from graftlab.browser import control, server
from graftlab.browser.folder import Folder
from graftlab.errors import ConfigError
from graftlab.rundir.run import Run

TOKEN, PORT = "t" * 32, 8123
HOST = f"127.0.0.1:{PORT}"
COOKIE = f"graftlab-{PORT}={TOKEN}"
HOSTILE = "<script>alert(1)<script>"


def ask(app, path, method="GET", body=b"", **headers):
    """Return status, headers and text of what an application answers."""
    given = {"host": HOST, "cookie": COOKIE, **{k.replace("_", "-"): v for k, v in headers.items()}}
    where, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": where, "raw_path": where.encode(), "root_path": "",
        "query_string": query.encode(), "scheme": "http", "http_version": "1.1",
        "server": ("127.0.0.1", PORT),
        "headers": [(k.encode(), v.encode()) for k, v in given.items() if v is not None],
    }  # fmt: skip
    said = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        said.append(message)

    asyncio.run(app(scope, receive, send))
    found = {k.decode(): v.decode() for k, v in said[0]["headers"]}
    return said[0]["status"], found, b"".join(m.get("body", b"") for m in said[1:]).decode()


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "best", done=result("best", 0.9), rate=1e-3)
    write(tmp_path, "good", done=result("good", 0.8, "head"), method="head")
    write(tmp_path, "bad", log=LOG + FAILED)
    return tmp_path


@pytest.fixture
def app(folder):
    return server.app(folder, TOKEN, PORT)


def names(text):
    return re.findall(r'name="run" value="([^"]*)"', text)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": f"localhost:{PORT}"}, 200),
        ({"cookie": 'theme={"a":1}; ' + COOKIE}, 200),  # of another program, and no cookie
        ({"cookie": None}, 403),
        ({"cookie": f"graftlab-{PORT}={'u' * 32}"}, 403),
        ({"cookie": f"graftlab-{PORT}=\u00e9"}, 403),
        ({"host": f"evil.example:{PORT}"}, 421),
        ({"host": "127.0.0.1:80"}, 421),
    ],
)
def test_pages_are_for_who_has_the_token_under_the_servers_own_name(app, headers, status):
    assert ask(app, "/", **headers)[0] == status


def test_the_token_moves_from_the_address_into_a_cookie_that_no_script_reads(app):
    status, headers, _ = ask(app, f"/run?at=a%26b&token={TOKEN}", cookie=None)
    assert (status, headers["location"]) == (303, "/run?at=a%26b")
    assert {"HttpOnly", "SameSite=strict"} <= set(headers["set-cookie"].split("; "))


def test_the_way_on_stays_on_this_server(app):
    _, headers, _ = ask(app, f"//evil.example/?token={TOKEN}")
    assert headers["location"] == "/evil.example/"


def test_a_wrong_token_is_no_way_in(app):
    assert ask(app, f"/?token={TOKEN}x", cookie=None)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": f"http://127.0.0.1:{PORT + 1}"},
        {"origin": f"https://{HOST}"},
        {"origin": f"http://{HOST}", "sec_fetch_site": "cross-site"},
        {"origin": f"http://{HOST}", "cookie": None},
    ],
)
@pytest.mark.parametrize("path", ["/stop", "/resume"])
def test_a_foreign_page_changes_nothing(app, path, headers):
    assert ask(app, path, "POST", b"run=bad", **headers)[0] == 403


def test_what_changes_something_is_no_get(app):
    assert ask(app, "/stop?run=bad")[0] == 405


def test_every_answer_allows_nothing_from_elsewhere(app):
    for path in ("/", "/run?at=best", "/style.css", "/nothing"):
        policy = ask(app, path)[1]["content-security-policy"]
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    "at", ["..", "best/../..", "/etc", "nothing", "best\0", "best/config.yaml"]
)
@pytest.mark.parametrize("page", ["/", "/run"])
def test_nothing_outside_the_folder_is_shown(app, page, at):
    assert ask(app, f"{page}?at={quote(at, safe='')}")[0] == 404


def test_filters_are_words_states_and_keys_of_the_config(app):
    assert set(names(ask(app, "/")[2])) == {"best", "good", "bad"}
    assert names(ask(app, "/?words=LORA+best")[2]) == ["best"]
    assert names(ask(app, "/?state=failed")[2]) == ["bad"]
    assert names(ask(app, "/?where=training.learning_rate%3D1e-3")[2]) == ["best"]
    assert names(ask(app, "/?sort=-score&state=finished")[2]) == ["best", "good"]
    assert ask(app, "/?where=nothing%3D1")[0] == 400


def test_a_long_folder_comes_in_pages_that_hold_every_run_once(tmp_path):
    for number in range(230):
        write(tmp_path, f"r{number:03}", done=result("r"))
    own = server.app(tmp_path, TOKEN, PORT)
    pages = [names(ask(own, f"/?page={page}")[2]) for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [100, 100, 30]
    assert len({name for page in pages for name in page}) == 230


def test_an_empty_folder_is_a_page(tmp_path):
    assert ask(server.app(tmp_path, TOKEN, PORT), "/")[0] == 200


def test_hostile_text_is_shown_and_not_run(tmp_path):
    path = write(tmp_path, f"{HOSTILE}", log=LOG + HOSTILE, method=HOSTILE, done=result(HOSTILE))
    (path / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "loss": 1.0, f"validation/{HOSTILE}": 0.5}) + "\n"
    )
    write(tmp_path, "other", done=result("b"))
    own = server.app(tmp_path, TOKEN, PORT)
    at = quote(HOSTILE, safe="")
    for page in (
        "/",
        f"/run?at={at}",
        f"/pair?run={at}&run=other",
        f"/?words={at}",
        f"/run?at={at}x",
    ):
        text = ask(own, page)[2]
        assert "&lt;script&gt;alert(1)" in text
        assert "<script>alert" not in text


def test_secrets_of_the_environment_are_not_on_a_page(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-mine")
    write(tmp_path, "a", log=LOG + "a-secret-of-mine\n")
    assert "a-secret-of-mine" not in ask(server.app(tmp_path, TOKEN, PORT), "/run?at=a")[2]


def test_two_runs_stand_side_by_side_with_what_differs_in_their_configs_first(app):
    status, _, text = ask(app, "/pair?run=best&run=good")
    assert status == 200
    assert text.index("training.learning_rate") < text.index("test accuracy")
    assert ask(app, "/pair?run=best")[0] == 400


def test_a_page_that_has_not_changed_is_not_sent_again(app, folder):
    _, headers, _ = ask(app, "/run?at=bad")
    assert ask(app, "/run?at=bad", if_none_match=headers["etag"])[0] == 304
    (folder / "bad" / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert ask(app, "/run?at=bad", if_none_match=headers["etag"])[0] == 200


def test_a_row_is_read_again_when_its_run_has_changed(folder):
    seen = Folder(folder)
    assert {e.at: e.row.status for e in seen.entries()}["bad"] == "failed"
    (folder / "bad" / "result.json").write_text(json.dumps(result("bad", 0.7)))
    assert {e.at: e.row.score for e in seen.entries()}["bad"] == 0.7


def test_curves_grow_and_are_cut_back_with_their_file(folder):
    run, seen = Run(folder / "bad"), Folder(folder)
    run.metrics.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "lo')
    assert [line["step"] for line in seen.metrics(run)] == [1]
    run.metrics.write_text(
        '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\nnonsense\n{"step": 3, "loss": 1.0}\n'
    )
    assert [line["step"] for line in seen.metrics(run)] == [1, 2, 3]
    run.metrics.write_text('{"step": 1, "loss": 3.0}\n')
    assert [line["step"] for line in seen.metrics(run)] == [1]


def test_the_runs_of_a_study_are_a_page_and_its_waiting_ones_have_none_of_their_own(tmp_path):
    write(tmp_path / "study" / "runs", "a", done=result("a"))
    waiting = {"run": "b", "method": "lora", "task": "t", "backbone": "b", "seed": 0}
    (tmp_path / "study" / "plan.json").write_text(json.dumps([waiting]))
    text = ask(server.app(tmp_path, TOKEN, PORT), "/?at=study")[2]
    assert names(text) == ["study/runs/a"]
    assert "waiting" in text


def test_stop_asks_the_process_that_holds_the_run_and_no_other(folder):
    code = (
        "import sys, pathlib, time; from graftlab.rundir.run import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "bad")], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    own = server.app(folder, TOKEN, PORT)
    assert Run(folder / "bad").holder().process == process.pid
    assert ask(own, "/resume", "POST", b"run=bad", origin=f"http://{HOST}")[0] == 400
    assert ask(own, "/stop", "POST", b"run=bad", origin=f"http://{HOST}")[0] == 303
    assert process.wait(timeout=300) == -15
    assert Run(folder / "bad").holder() is None
    assert ask(own, "/stop", "POST", b"run=bad", origin=f"http://{HOST}")[0] == 400


@pytest.mark.parametrize(
    "body", [b"", b"run=", b"run=..", b"run=a&run=b", b"run=best", b"run=" + b"a" * 20_000]
)
def test_resume_of_what_cannot_be_gone_on_with_is_refused(app, body):
    assert ask(app, "/resume", "POST", body, origin=f"http://{HOST}")[0] in (400, 404)


@pytest.mark.slow
def test_a_resume_that_fails_says_why_on_the_runs_page(folder):
    (folder / "bad" / "config.yaml").write_text("method: {name: nothing}\n")
    resumed = control.Resumed()
    resumed.resume(Run(folder / "bad"))
    with pytest.raises(ConfigError):
        resumed.resume(Run(folder / "bad"))
    while resumed.starting(Run(folder / "bad")):
        time.sleep(0.1)
    assert "nothing" in resumed.complaint(Run(folder / "bad"))


def gone_on_with(run, path, monkeypatch, script):
    """Return what has been gone on with by a command that does no more than this script, and has ended."""
    command = path / "command"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setattr(control.sys, "executable", str(command))
    resumed = control.Resumed()
    resumed.resume(run)
    while resumed.starting(run):
        time.sleep(0.01)
    return resumed


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo graftlab: saved >&2; exit 143", None),
        ("echo graftlab: saved >&2; exit 130", None),
        ("kill -TERM $$", None),
        ("echo graftlab: damaged >&2; exit 7", "graftlab: damaged"),
    ],
)
def test_a_run_that_was_stopped_after_a_resume_is_no_complaint(
    folder, tmp_path, monkeypatch, script, complaint
):
    run = Run(folder / "bad")
    assert gone_on_with(run, tmp_path, monkeypatch, script).complaint(run) == complaint


def test_there_is_no_complaint_of_a_run_that_is_at_work_by_now(folder, tmp_path, monkeypatch):
    run = Run(folder / "bad")
    resumed = gone_on_with(run, tmp_path, monkeypatch, "echo graftlab: in use >&2; exit 2")
    ready, held = os.pipe()
    if (child := os.fork()) == 0:  # a lock of this process would not be seen by it
        with run.lock():
            os.write(held, b"held")
            time.sleep(600)
    os.read(ready, 4)
    try:
        assert resumed.complaint(run) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert resumed.complaint(run) == "graftlab: in use"


def test_a_port_that_is_taken_is_refused():
    with server.listen(0) as taken, pytest.raises(ConfigError) as refused:
        server.listen(taken.getsockname()[1])
    assert refused.value.problems[0].kind == "taken"


def test_a_search_is_shown_as_a_search_and_its_trials_as_rows(folder, app):
    out = folder / "rates"
    write(out / "runs", "trial-1", done=result("trial-1", 0.7, split="validation"), rate=3e-3)
    (out / "search.json").write_text(json.dumps({"space": {"training.learning_rate": {}}}))
    _, _, text = ask(app, "/")
    assert '<a href="/?at=rates">rates/</a>' in text
    _, _, text = ask(app, "/?at=rates")
    assert names(text) == ["rates/runs/trial-1"]
    assert "training.learning_rate=0.003" in text
    assert 'href="/report?at=rates"' in text
