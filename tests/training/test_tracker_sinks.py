"""What Weights & Biases and trackio are asked for, by the names that their own documentation gives.

Neither is installed here, so a stand-in takes the place of each: it has the functions that are used, with
the parameters that theirs have, and keeps what it is given.
"""

import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from graftlab.training.tracker_sinks import OPENERS, PATIENCE_S, Config, Shown, Start

CONFIG, FACTS = {"seed": 1}, {"trainer_hash": "abc"}
SHOWN = Shown("selection", ("layer", "score"), [(0, 0.25), (1, None)], (Path("/there/heat.png"),))


class Kept:
    """A run there: what it was opened with, what was logged, and whether it has ended."""

    def __init__(self, asked):
        self.asked, self.logged, self.summary, self.finished = asked, [], {}, False

    def log(self, values, step=None, commit=None):
        print("sent")  # as trackio does
        self.logged.append((values, step, commit))

    def finish(self):
        self.finished = True


@pytest.fixture
def start(tmp_path):
    (tmp_path / "sst2-lora").mkdir()
    return Start(tmp_path / "sst2-lora", CONFIG, "Model()", FACTS)


def stand_in(monkeypatch, name, init):
    """Put a module in the place of a tracker's package."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.Table = lambda columns, data: ("table", columns, data)
    module.Image = lambda path: ("image", path)
    module.init = init
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def wandb(monkeypatch):
    def init(*, project, name, tags, dir, id, resume, mode, config, settings):
        return Kept(locals())

    module = stand_in(monkeypatch, "wandb", init)
    module.settings = types.SimpleNamespace(mode="online")
    module.setup = lambda: types.SimpleNamespace(settings=module.settings)
    module.key = True
    module.login = lambda *, prompt: prompt is False and module.key
    module.Settings = dict
    return module


@pytest.fixture
def trackio(monkeypatch):
    def init(*, project, name, config, resume, embed, auto_log_cpu, auto_log_gpu):
        print("* Trackio project initialized")
        return Kept(locals())

    return stand_in(monkeypatch, "trackio", init)


def test_wandb_opens_the_run_under_its_directorys_name_and_goes_on_with_it(wandb, start):
    first = OPENERS["wandb"](start, Config(project="p", tags=("t",))).run
    kept = first.asked.pop("id")
    assert first.asked == {
        "project": "p",
        "name": "sst2-lora",
        "tags": ("t",),
        "dir": start.folder,
        "resume": "allow",
        "mode": None,
        "config": CONFIG | FACTS,
        "settings": {
            "console": "off", "silent": True, "disable_git": True, "finish_timeout": PATIENCE_S,
        },
    }  # fmt: skip
    assert first.summary == {"model": "Model()"}
    assert len(bytes.fromhex(kept)) == 4
    assert (start.folder / "wandb" / "id.txt").read_text() == kept
    again = OPENERS["wandb"](start, Config(name="mine")).run
    assert (again.asked["id"], again.asked["name"]) == (kept, "mine")


def test_wandb_without_a_key_is_refused_but_offline_it_needs_none(wandb, start):
    wandb.key = False
    with pytest.raises(RuntimeError, match="no key"):
        OPENERS["wandb"](start, Config())
    offline = OPENERS["wandb"](start, Config(offline=True)).run
    assert (offline.asked["mode"], offline.asked["resume"]) == ("offline", None)
    wandb.settings.mode = "offline"  # WANDB_MODE
    chosen = OPENERS["wandb"](start, Config()).run
    assert (chosen.asked["mode"], chosen.asked["resume"]) == (None, None)


def test_wandb_gets_scalars_by_step_a_table_with_the_next_and_the_result_as_summary(wandb, start):
    sink = OPENERS["wandb"](start, Config())
    sink.log(3, {"loss": 0.5})
    sink.show(SHOWN)
    table = ("table", ["layer", "score"], [[0, 0.25], [1, None]])
    shown = {"selection": table, "selection/heat": ("image", "/there/heat.png")}
    assert sink.run.logged == [({"loss": 0.5}, 3, None), (shown, None, False)]
    sink.close({"test/accuracy": 0.75})
    assert sink.run.summary == {"model": "Model()", "test/accuracy": 0.75}
    assert sink.run.finished


@pytest.mark.parametrize(("given", "name"), [(None, "sst2-lora"), ("mine", "mine")])
def test_trackio_opens_the_run_with_all_that_is_known_of_it_in_its_config(
    trackio, start, capsys, given, name
):
    run = OPENERS["trackio"](start, Config(project="p", tags=("t",), name=given)).run
    assert run.asked == {
        "project": "p",
        "name": name,
        "config": CONFIG | FACTS | {"tags": ("t",), "model": "Model()"},
        "resume": "allow",
        "embed": False,
        "auto_log_cpu": False,
        "auto_log_gpu": False,
    }
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)  # stdout is for the run's result


def test_trackio_gets_scalars_by_step_a_table_and_the_result(trackio, start, capsys):
    sink = OPENERS["trackio"](start, Config())
    sink.log(3, {"loss": 0.5})
    capsys.readouterr()
    sink.show(SHOWN)
    sink.close({"test/accuracy": 0.75})
    table = ("table", ["layer", "score"], [[0, 0.25], [1, None]])
    assert sink.run.logged == [
        ({"loss": 0.5}, 3, None),
        ({"selection": table, "selection/heat": ("image", "/there/heat.png")}, None, None),
        ({"result/test/accuracy": 0.75}, None, None),
    ]
    assert sink.run.finished
    assert capsys.readouterr() == ("", "sent\nsent\n")
