"""Progress never stops a run and never floods a file; the log holds tracebacks and no tokens."""

import contextlib
import io
import logging
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading

import pytest

from graftlab.terminal import redact
from graftlab.training import progress
from graftlab.training.progress import Progress, log_to, peak_memory


@pytest.fixture
def terminal(monkeypatch):
    """Return a stream on a terminal of 40 columns, and a function that closes it and reads what was shown."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    reader, writer = pty.openpty()
    stream = os.fdopen(writer, "w", encoding="utf-8")

    def shown():
        stream.close()
        pieces = []
        with contextlib.suppress(OSError):  # what a terminal that is closed answers at its end
            while piece := os.read(reader, 100_000):  # the system hands it over in pieces
                pieces.append(piece)
        return b"".join(pieces).decode()

    yield stream, shown
    stream.close()
    os.close(reader)


def test_lines_off_a_terminal_show_the_figures():
    stream = io.StringIO()
    with Progress(10, 0, stream=stream) as bar:
        bar.update(5, {"loss": 0.25, "learning_rate": 5e-4, "other": 1.0}, 160)
    (line,) = stream.getvalue().splitlines()
    for part in ("step 5/10", "loss 0.2500", "lr 5.0e-04", "examples/s", "GiB", "0:00:00 left"):
        assert part in line


def test_many_steps_are_few_lines_and_the_last_is_among_them():
    stream = io.StringIO()
    with Progress(1000, 0, stream=stream) as bar:
        for step in range(1, 1001):
            bar.update(step, {"loss": 1.0}, 8 * step)
        bar.update(1000, {"validation/accuracy": 0.5}, 8000)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/1000", "1000/1000"]


def test_a_skipped_step_has_no_loss():
    stream = io.StringIO()
    with Progress(10, 0, stream=stream) as bar:
        bar.update(5, {"loss": None, "skipped": 1.0}, 160)
    assert "loss -" in stream.getvalue()


@pytest.fixture
def now(monkeypatch):
    """Return the time as a list of one number, which a test may change; 1.5 GiB are held."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "peak_memory", lambda: 3 * 2**29)
    return now


def test_speed_and_time_left_are_of_this_process_alone(now):
    stream = io.StringIO()
    bar = Progress(40, 20, stream=stream)
    now[0] += 50
    bar.update(30, {"loss": 0.25, "learning_rate": 5e-4}, 300)  # 10 steps of 10 examples in 50 s
    said = "loss 0.2500 lr 5.0e-04 2.0 examples/s 1.50 GiB 0:00:50 left"
    assert stream.getvalue() == f"step 30/40 {said}\n"


@pytest.mark.parametrize(
    ("seconds", "examples", "speed", "left"),
    [
        (1.0, 99, "99.0", "0:00:01"),
        (1.0, 100, "100", "0:00:01"),
        (4000.0, 100, "0.0", "1:06:40"),
        (59.6, 596, "10.0", "0:01:00"),
    ],
)
def test_speeds_and_times_of_any_size_are_short(now, seconds, examples, speed, left):
    stream = io.StringIO()
    bar = Progress(2, 0, stream=stream)
    now[0] += seconds
    bar.update(1, {}, examples)
    said = f"step 1/2 loss - {speed} examples/s 1.50 GiB {left} left\n"
    assert stream.getvalue() == said


def test_a_line_every_ten_seconds_and_the_last_values_of_what_a_step_did_not_log(now):
    stream = io.StringIO()
    with Progress(9, 2, stream=stream) as bar:
        bar.update(2, {"loss": 9.0}, 2)  # where it begins, nothing has been trained
        for step, after in ((3, 0.0), (4, 9.9), (5, 10.0), (6, 19.9), (7, 20.0), (8, 21.0)):
            now[0] = 100.0 + after
            bar.update(step, {"loss": float(step)} if step != 7 else {"other": 1.0}, step)
    lines = [line.split()[1:4] for line in stream.getvalue().splitlines()]
    assert lines == [
        ["3/9", "loss", "3.0000"],
        ["5/9", "loss", "5.0000"],
        ["7/9", "loss", "6.0000"],
        ["8/9", "loss", "8.0000"],
    ]


def test_the_last_line_stands_once_though_it_is_told_again_after_an_evaluation(now):
    stream = io.StringIO()
    with Progress(2, 0, stream=stream) as bar:
        for step in (1, 2, 2):
            now[0] += 20.0
            bar.update(step, {"loss": 1.0}, step)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/2", "2/2"]


def test_after_the_end_nothing_is_shown(now):
    stream = io.StringIO()
    bar = Progress(9, 0, stream=stream)
    bar.close()
    bar.update(1, {"loss": 1.0}, 1)
    bar.note("a note")
    bar.close()
    assert stream.getvalue() == ""


def test_quiet_shows_nothing():
    stream = io.StringIO()
    with Progress(10, 0, quiet=True, stream=stream) as bar:
        bar.update(5, {"loss": 0.25}, 160)
        bar.note("a note")
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_fits_into_40_columns(terminal):
    stream, shown = terminal
    with Progress(10, 0, stream=stream) as bar:
        bar.update(5, {"loss": 0.25}, 160)
        bar.note("[bold]a note[/bold]")
        bar.update(10, {"loss": 0.125}, 320)
    text = shown()
    assert "\x1b[2K" in text  # a line drawn over itself
    assert "10/10" in text
    assert "[bold]a note[/bold]" in text
    plain = text.replace("\r", "\n")
    for code in ("\x1b[2K", "\x1b[1A", "\x1b[?25l", "\x1b[?25h"):
        plain = plain.replace(code, "")
    colourless = re.sub(r"\x1b\[[0-9;]*m", "", plain)
    assert max(map(len, colourless.splitlines())) <= 40


def test_a_usual_terminal_shows_a_bar_with_all_the_figures(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream, shown = terminal
    with Progress(1000, 0, stream=stream) as bar:
        bar.update(500, {"loss": 0.25, "learning_rate": 5e-4}, 160)
    text = shown()
    assert "\u2501" in text
    for part in ("500/1000", "loss 0.2500", "lr 5.0e-04", "examples/s", "GiB", "left"):
        assert part in text


class Terminal(io.StringIO):
    """A terminal in memory."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("columns", "bar"), [(76, False), (77, True)])
def test_a_bar_is_drawn_at_once_by_the_run_itself_where_it_has_five_columns(
    monkeypatch, columns, bar
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream, threads = Terminal(), threading.active_count()
    with Progress(10, 2, stream=stream) as shown:
        assert threading.active_count() == threads
        assert "2/10" in stream.getvalue()
        shown.update(5, {"loss": 0.25}, 160)
        assert "5/10 loss 0.2500" in stream.getvalue()
        before = len(stream.getvalue())
        shown.update(6, {"loss": 0.25}, 160)  # sooner than anybody could read it
        assert len(stream.getvalue()) == before
    assert "6/10" in stream.getvalue()
    assert "None" not in stream.getvalue()
    assert ("\u2501" * 3 in stream.getvalue()) == bar


def test_what_is_printed_goes_to_a_pipe_and_not_above_the_bar(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(10, 0, stream=stream) as bar:
        bar.update(5, {"loss": 0.25}, 160)
        print("the result")
    assert capsys.readouterr().out == "the result\n"
    assert "the result" not in stream.getvalue()


class Broken:
    """A stream that nobody reads any more, and that is no file."""

    encoding, calls = "utf-8", 0

    def write(self, text):
        self.calls += 1
        raise BrokenPipeError

    flush = write

    def fileno(self):
        raise OSError

    def isatty(self):
        return False


def test_a_broken_stream_is_written_to_once():
    stream = Broken()
    with Progress(10, 0, stream=stream) as bar:
        bar.note("a note")
        bar.note("another")
    assert stream.calls == 1


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream, shown = terminal
    with Progress(10, 0, stream=stream) as bar:
        bar.update(5, {"loss": 0.25}, 160)
    text = shown()
    assert text.startswith("step 5/10")
    assert "\x1b" not in text


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_closed_terminal_stops_nothing(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    reader, writer = pty.openpty()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    with Progress(10, 0, stream=stream) as bar:
        os.close(reader)
        for step in range(1, 11):
            bar.note(f"note {step}")
            bar.update(step, {"loss": 0.25}, 160)
    stream.close()


def test_a_closed_stream_stops_nothing():
    stream = io.StringIO()
    bar = Progress(10, 0, stream=stream)
    stream.close()
    bar.update(1, {}, 1)
    bar.note("a note")
    bar.close()


def test_a_broken_pipe_stops_nothing_and_leaves_exit_code_0():
    code = """
        import os, sys
        from graftlab.training.progress import Progress
        with Progress(10, 0, stream=sys.stdout) as bar:
            bar.note("started")
            sys.stdin.readline()  # by now the reader has gone
            for step in range(1, 11):
                bar.note(f"note {step}")
                bar.update(step, {"loss": 0.25}, step)
        print("the end, for nobody")
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "started\n"
    child.stdout.close()
    _, errors = child.communicate("go on\n", timeout=60)
    assert (child.returncode, errors) == (0, "")


def test_a_stream_of_another_encoding_gets_what_it_can_hold():
    raw = io.BytesIO()
    with Progress(10, 0, stream=io.TextIOWrapper(raw, encoding="ascii")) as bar:
        bar.note("caf\u00e9 \u2713")
        bar.note("on it goes")
        assert raw.getvalue() == b"caf\\xe9 \\u2713\non it goes\n"


def test_the_log_holds_tracebacks_and_goes_on_where_it_was(tmp_path):
    path = tmp_path / "run.log"
    for attempt in (1, 2):
        with log_to(path):
            try:
                raise ValueError(f"attempt {attempt}")
            except ValueError:
                logging.getLogger("graftlab.training").exception("it failed")
    logging.getLogger("graftlab").warning("nobody logs this any more")
    text = path.read_text(encoding="utf-8")
    assert text.count("Traceback (most recent call last)") == 2
    assert "ValueError: attempt 1" in text
    assert "graftlab.training:" in text
    assert "any more" not in text


def test_tokens_reach_neither_the_log_nor_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijk")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    stream = io.StringIO()
    with log_to(tmp_path / "run.log"), Progress(1, 0, stream=stream) as bar:
        bar.note("got hf_abcdefghijk")
        try:
            raise ValueError("key 0123456789abcdef refused")
        except ValueError:
            logging.getLogger("graftlab").exception("with %s", "hf_abcdefghijk")
    text = (tmp_path / "run.log").read_text(encoding="utf-8")
    for secret in ("hf_abcdefghijk", "0123456789abcdef"):
        assert secret not in text + stream.getvalue()
    assert "key <WANDB_API_KEY> refused" in text
    assert redact("with hf_abcdefghijk") == "with <HF_TOKEN>"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"])
def test_a_token_of_eight_characters_is_none_of_the_ordinary_words(monkeypatch, name):
    for token, redacted in (("", False), ("as it w", False), ("as it wa", True)):
        monkeypatch.setenv(name, token)
        assert redact("as it was") == (f"<{name}>s" if redacted else "as it was")


def test_peak_memory_is_that_of_the_process(monkeypatch):
    held = bytearray(64 * 2**20)
    held[::4096] = b"x" * len(held[::4096])  # touched, or it would not count
    assert len(held) < peak_memory() < 2**40
    assert peak_memory() % 1024 == 0
    monkeypatch.setattr(sys, "platform", "darwin")  # where it is counted in bytes
    assert len(held) / 1024 < peak_memory() < 2**30
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak_memory() == 0


def test_peak_memory_is_that_of_the_fullest_gpu_where_one_is_in_use(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda index: (5, 9, 7)[index])
    assert peak_memory() == 9
