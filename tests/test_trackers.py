"""Trackers get what was logged; one that fails, hangs or is missing never touches the run."""

import json
import logging
import textwrap
import threading
import time
from pathlib import Path

import pytest

from graftlab.training import trackers
from graftlab.training.trackers import Config, Start, Trackers, check

FACTS = {
    "config": {"seed": 1, "method": {"rank": 8}},
    "model": "Model(\n  head\n)",
    "trainer_hash": "abc123",
}


@pytest.fixture
def folder(tmp_path):
    run = tmp_path / "sst2-lora"
    run.mkdir()
    return run


class Remembering:
    """A tracker that keeps what it is given; it fails at the call named `fails_at`."""

    def __init__(self, fails_at=""):
        self.fails_at, self.calls = fails_at, []

    def open(self, start, config):
        self._call("open", start)
        return self

    def log(self, step, scalars):
        self._call("log", step, scalars)

    def close(self, result):
        self._call("close", result)

    def _call(self, name, *what):
        self.calls.append((name, *what))
        if name == self.fails_at:
            raise ConnectionError("no network.")


def send(config, folder, patience_s=30.0, facts=FACTS):
    with Trackers(config, folder, patience_s) as sent:
        sent.start(facts)
        sent.log(1, {"loss": 0.5, "gap": None}, 16)
        sent.log(2, {"loss": 0.25})
        sent.finish({"test": {"accuracy": {"value": 0.75, "reason": None}}, "finished": "yes"})


def test_no_tracker_is_the_default(folder):
    before = threading.active_count()
    with Trackers(Config(), folder) as sent:
        sent.start(FACTS)
        assert threading.active_count() == before
    assert list(folder.iterdir()) == []


def test_what_was_never_started_and_what_has_ended_says_nothing(folder, monkeypatch):
    sink = Remembering()
    monkeypatch.setitem(trackers.OPENERS, "wandb", sink.open)
    with Trackers(Config(to=("wandb",)), folder) as sent:
        sent.log(1, {"loss": 0.5})
    assert sink.calls == []
    sent.start(FACTS)
    sent.finish({})
    sent.log(1, {"loss": 0.5})
    sent.finish({"late": 1.0})
    assert [call[0] for call in sink.calls] == ["open", "close"]


def test_a_tracker_gets_everything_in_order(folder, monkeypatch):
    sink = Remembering()
    monkeypatch.setitem(trackers.OPENERS, "wandb", sink.open)
    send(Config(to=("wandb", "wandb")), folder)
    assert sink.calls == [
        ("open", Start(folder, FACTS["config"], FACTS["model"], {"trainer_hash": "abc123"})),
        ("log", 1, {"loss": 0.5, "examples": 16.0}),
        ("log", 2, {"loss": 0.25}),
        ("close", {"test/accuracy/value": 0.75}),
    ]


@pytest.mark.parametrize("fails_at", ["open", "log", "close"])
def test_a_tracker_that_raises_is_warned_of_once_and_the_others_go_on(
    folder, monkeypatch, caplog, fails_at
):
    bad, good = Remembering(fails_at), Remembering()
    monkeypatch.setitem(trackers.OPENERS, "wandb", bad.open)
    monkeypatch.setitem(trackers.OPENERS, "trackio", good.open)
    with caplog.at_level(logging.WARNING, "graftlab"):
        send(Config(to=("wandb", "trackio")), folder)
    (warning,) = caplog.records
    *said, remedy = warning.args
    assert said == ["wandb", "ConnectionError: no network"]
    assert "WANDB_API_KEY" in remedy
    assert [call[0] for call in good.calls] == ["open", "log", "log", "close"]


def test_a_tracker_that_hangs_holds_up_the_end_by_no_more_than_the_patience(
    folder, monkeypatch, caplog
):
    release = threading.Event()

    def hang(start, config):
        release.wait(60)
        raise ConnectionError("too late to be told of")

    monkeypatch.setitem(trackers.OPENERS, "wandb", hang)
    send(Config(to=("wandb",)), folder, patience_s=0.05)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "tracker-wandb"]
    assert thread.daemon  # it does not keep the program from ending
    release.set()
    thread.join()
    (warning,) = caplog.messages
    assert "after 0.05" in warning


def test_a_tracker_that_falls_far_behind_is_left_out(folder, monkeypatch, caplog):
    release = threading.Event()
    monkeypatch.setattr(trackers, "MAX_WAITING", 1)
    monkeypatch.setitem(trackers.OPENERS, "wandb", lambda *_: release.wait(60))
    send(Config(to=("wandb",)), folder, patience_s=0.05)
    assert len(caplog.messages) == 1
    assert "1 records behind" in caplog.text
    release.set()


def test_trackers_are_closed_when_the_run_fails(folder, monkeypatch):
    sink = Remembering()
    monkeypatch.setitem(trackers.OPENERS, "wandb", sink.open)

    def fail():
        with Trackers(Config(to=("wandb",)), folder) as sent:
            sent.start(FACTS)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sink.calls[-1] == ("close", {})


def test_a_missing_package_is_found_before_the_run_and_its_extra_named(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "trackio" else name)
    (problem,) = check(Config(to=("tensorboard", "trackio")))
    assert (problem.kind, problem.place.key) == ("not_installed", ("to",))
    assert all(part in problem.words() for part in ("graftlab[trackio]", "tracking.to: trackio"))
    assert "None" not in problem.words()
    assert check(Config()) == []


def test_tensorboard_is_written_and_reads_back(folder):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = {"at": Path("/data")}  # what JSON has no form for is its text
    given = {**FACTS, "config": FACTS["config"] | place, "data": place["at"]}
    send(Config(to=("tensorboard",), tags=("mine",)), folder, facts=given)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert events.Scalars("result/test/accuracy/value")[0].value == 0.75
    texts = {
        name: events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("config", "facts", "model")
    }
    expected = {
        "config": {"seed": 1, "method": {"rank": 8}, "at": str(Path("/data"))},
        "facts": {"trainer_hash": "abc123", "data": str(Path("/data")), "tags": ["mine"]},
    }
    for name, values in expected.items():  # four columns make it code in Markdown
        assert texts[name] == textwrap.indent(json.dumps(values, indent=2), "    ")
    assert texts["model"] == "    Model(\n      head\n    )"


def test_a_resumed_run_replaces_what_tensorboard_had_of_later_steps(folder):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def values(first_step, scalars):
        with Trackers(Config(to=("tensorboard",)), folder) as sent:
            sent.start(FACTS, first_step)
            for step, loss in scalars.items():
                sent.log(step, {"loss": loss})

    def there():
        time.sleep(1.1)  # event files are named and ordered by the second
        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        texts = [event.step for event in events.Tensors("model/text_summary")]
        return [(e.step, e.value) for e in events.Scalars("loss")], texts[-1]

    values(0, {1: 0.5, 2: 0.25, 3: 9.0})
    assert there() == ([(1, 0.5), (2, 0.25), (3, 9.0)], 0)
    values(2, {3: 0.125})
    assert there() == ([(1, 0.5), (2, 0.25), (3, 0.125)], 2)
    values(0, {1: 1.0})  # killed before the first checkpoint
    assert there() == ([(1, 1.0)], 0)


@pytest.mark.slow
def test_wandb_offline_stays_in_the_run_directory(folder, monkeypatch, caplog):
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(folder.parent / "elsewhere"))
    send(Config(to=("wandb",), project="p", name="n", tags=("t",), offline=True), folder)
    wandb.teardown()  # waits until its service has written what it was given
    (record,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content = record.read_bytes()
    for part in (b"loss", b"trainer_hash", b"test/accuracy/value", b"Model("):
        assert part in content
    assert caplog.messages == []


@pytest.mark.slow
def test_trackio_keeps_the_run_on_this_machine(folder):
    """In a process of its own: trackio reads its folder when it is imported."""
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    import os
    import subprocess
    import sys

    code = (
        "from pathlib import Path; import sys;"
        "from graftlab.training.trackers import Config, Trackers;"
        "t = Trackers(Config(to=('trackio',), project='p'), Path(sys.argv[1]));"
        "t.start({'config': {'seed': 1}, 'model': 'Model'});"
        "t.log(1, {'loss': 0.5}); t.log(2, {'loss': 0.25}); t.finish({'accuracy': 0.75});"
        "from trackio.sqlite_storage import SQLiteStorage;"
        "rows = SQLiteStorage.get_logs('p', Path(sys.argv[1]).name);"
        "print([(r['step'], r.get('loss'), r.get('result/accuracy')) for r in rows])"
    )
    env = os.environ | {"TRACKIO_DIR": str(folder / "trackio")}
    env.pop("TRACKIO_SPACE_ID", None)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=env
    )
    assert done.stdout.strip() == "[(1, 0.5, None), (2, 0.25, None), (3, None, 0.75)]", done.stderr


def test_an_unknown_tracker_is_refused():
    with pytest.raises(ValueError, match="tensorboard"):
        Config(to=("tensorbord",))


def test_a_table_and_its_pictures_reach_a_tracker_between_the_steps(folder, monkeypatch):
    sink = Remembering()
    sink.show = lambda shown: sink.calls.append(("show", shown))
    monkeypatch.setitem(trackers.OPENERS, "wandb", sink.open)
    rows = [(0, 0.2512345), (1, None)]
    shown = trackers.Shown("selection", ("layer", "score"), rows, ())
    with Trackers(Config(to=("wandb",)), folder) as sent:
        sent.start(FACTS)
        sent.show(shown)
        sent.log(1, {"loss": 0.5})
    assert [call[0] for call in sink.calls] == ["open", "show", "log", "close"]
    assert sink.calls[1][1] is shown
    assert shown.as_markdown() == "| layer | score |\n| --- | --- |\n| 0 | 0.2512 |\n| 1 |  |\n"


def test_tensorboard_keeps_the_table_as_text_and_the_pictures_as_images(folder):
    pytest.importorskip("tensorboard")
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("L", (4, 3), 128).save(folder / "heat.png")
    shown = trackers.Shown("selection", ("layer",), [(7,)], (folder / "heat.png",))
    with Trackers(Config(to=("tensorboard",)), folder) as sent:
        sent.start(FACTS)
        sent.show(shown)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    (picture,) = events.Images("selection/heat")
    assert (picture.width, picture.height) == (4, 3)
    assert "selection/text_summary" in events.Tags()["tensors"]
