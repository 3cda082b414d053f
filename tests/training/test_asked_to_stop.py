"""What a signal does to a process that trains, and who learns of it: without a run around it."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from graftlab.errors import Stopped
from graftlab.training.signals import Signals

STOPPING = (signal.SIGINT, signal.SIGTERM)
CAUGHT = (*STOPPING, signal.SIGHUP)


class Other:
    """The other process of two, and what it adds to a sum."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def add(self, *values):
        return [own + other for own, other in zip(values, self.numbers, strict=True)]


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_kept_until_it_is_asked_for_and_ends_as_a_shell_says(number, caplog):
    signals = Signals()
    signals.check()
    with signals.caught():
        signal.raise_signal(number)
    assert signals.received is number
    assert [(r.levelno, r.args) for r in caplog.records] == [(logging.WARNING, (number.name,))]
    with pytest.raises(Stopped, match=number.name) as caught:
        signals.check()
    assert caught.value.exit_code == 128 + number


def test_what_is_stopped_names_the_run_that_goes_on(tmp_path):
    signals = Signals(tmp_path / "a run")
    with signals.caught():
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped, match=re.escape(f"graftlab resume '{tmp_path / 'a run'}'")):
        signals.check()


def test_a_second_interrupt_is_at_once_and_a_second_sigterm_is_not():
    for first in STOPPING:
        signals = Signals()
        with signals.caught():
            signal.raise_signal(first)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert signals.received is signal.SIGTERM


def test_a_closed_terminal_is_said_and_stops_nothing(caplog):
    signals = Signals()
    with signals.caught(), signals.interruptible():
        signal.raise_signal(signal.SIGHUP)
    signals.check()
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "terminal" in caplog.text


@pytest.mark.parametrize("number", STOPPING)
def test_what_can_be_done_again_is_ended_at_once_and_what_is_saved_then_is_not(number):
    signals, begun, saved = Signals(), [], []

    def evaluate():
        with signals.interruptible():
            begun.append(True)
            try:
                signal.raise_signal(number)
            finally:  # a second one does not break off what cleans up
                signal.raise_signal(signal.SIGTERM)
                begun.append(True)
            raise AssertionError("it went on")

    with signals.caught():
        with pytest.raises(Stopped) as caught:
            evaluate()
        signal.raise_signal(signal.SIGTERM)
        saved.append(True)
        with pytest.raises(Stopped):  # it came before: nothing is begun
            evaluate()
    assert (caught.value.exit_code, len(begun), saved) == (128 + number, 2, [True])


@pytest.mark.parametrize("fails", [False, True])
def test_after_what_is_interruptible_a_signal_waits_for_the_step(fails):
    signals = Signals()
    with signals.caught():
        try:
            with signals.interruptible():
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert fails
        signal.raise_signal(signal.SIGTERM)
    assert signals.received is signal.SIGTERM


def test_the_former_handlers_come_back_also_after_an_error():
    signals, before = Signals(), [signal.getsignal(number) for number in CAUGHT]

    def fail():
        with signals.caught():
            assert [signal.getsignal(number) for number in CAUGHT] == [signals.handle] * 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [signal.getsignal(number) for number in CAUGHT] == before


def test_in_a_thread_nothing_is_handled():
    found = []

    def work():
        with Signals().caught():
            found.extend(signal.getsignal(number) for number in CAUGHT)

    before = [signal.getsignal(number) for number in CAUGHT]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == before


@pytest.mark.parametrize(
    ("own", "terminate", "interrupt", "becomes"),
    [
        (None, 0, 0, None),
        (None, 1, 0, signal.SIGTERM),
        (None, 0, 1, signal.SIGINT),
        (None, 1, 1, signal.SIGTERM),
        (signal.SIGINT, 0, 0, signal.SIGINT),
        (signal.SIGINT, 1, 0, signal.SIGINT),
        (signal.SIGTERM, 0, 1, signal.SIGTERM),
    ],
)
def test_a_signal_to_one_process_is_one_to_all(caplog, own, terminate, interrupt, becomes):
    signals = Signals()
    signals.received = own
    assert signals.agreed(Other(terminate, interrupt)) == (becomes is not None)
    assert signals.received is becomes
    told = [record.args for record in caplog.records]
    assert told == ([] if own or not becomes else [(becomes.name,)])


@pytest.mark.parametrize("own", [None, *STOPPING])
def test_the_others_are_told_which_signal_came(own):
    told = []

    class Asked(Other):
        def add(self, *values):
            told.append(values)
            return super().add(*values)

    signals = Signals()
    signals.received = own
    signals.agreed(Asked(0, 0))
    assert told == [(own is signal.SIGTERM, own is signal.SIGINT)]


@pytest.mark.slow
def test_a_study_asked_to_stop_before_its_first_step_says_how_to_go_on(tmp_path):
    """Slow: a process of its own, and the server of its runs, import all that runs need."""
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"t{i},{'xy'[i % 2]}\n" for i in range(40))
    )
    (tmp_path / "run.yaml").write_text(
        "backbone: {kind: tiny, width: 16, layers: 1}\nmethod: {name: head}\n"
        "task: {kind: classification, files: {train: rows.csv}}\n"
    )
    (tmp_path / "study.yaml").write_text("base: run.yaml\nmethods: [head]\n")
    study = subprocess.Popen(
        [sys.executable, "-m", "graftlab", "compare", "study.yaml"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert study.stderr is not None
    assert study.stderr.readline().startswith("[1/1]")
    time.sleep(0.5)  # the server is there, and imports
    os.killpg(study.pid, signal.SIGINT)  # as a terminal does
    said = study.stderr.read().splitlines()
    assert (study.wait(), len(said)) == (130, 1)
    assert said[0].endswith("graftlab compare study.yaml --out runs/study")
