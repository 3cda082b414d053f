"""Hooks of a run file: refused at their place, kept in config.yaml, exact in resume; what each computes."""

import math
import re

import pytest
import tiny_runs
from faults import fault
from safetensors.torch import load_file

from graftlab import config, inference, runfile
from graftlab.errors import ConfigError, Place
from graftlab.rundir.run import Run
from graftlab.runs import attachment, material, session
from graftlab.testing import hooks as promises
from graftlab.testing import resume
from graftlab.testing.hooks import *  # noqa: F403
from graftlab.training.parallel.processes import Processes

for promise in (
    promises.test_killed_and_resumed_equals_never_killed,
    promises.test_a_hook_that_observes_leaves_all_but_its_own_scalars_the_same,
):
    pytest.mark.quick("norms")(promise)

KEPT = {"keep_checkpoints": 99, "save_every": 1, "clip_norm": 0.01}


def finished(folder, *hooks, **training):
    changes = {"hooks": list(hooks), "training": {**KEPT, **training}}
    return session.run(tiny_runs.run_file(folder, changes), options=tiny_runs.quiet())


def weights(run, step):
    return load_file(run.checkpoints / f"step-{step:06d}" / "trainable.safetensors")


def norm(tensors):
    return math.sqrt(sum(float((t.double() ** 2).sum()) for t in tensors.values()))


def moved(run, before, after):
    first, last = weights(run, before), weights(run, after)
    return {name: last[name] - first[name] for name in last}


def logged(run, key):
    return {line["step"]: line[key] for line in run.read_metrics() if key in line}


def test_norms_are_those_of_the_weights_in_the_checkpoints(tmp_path):
    of = ["gradient", "weight", "update", "distance"]
    run = finished(tmp_path, {"name": "norms", "by": "all", "every": 5, "of": of})
    found = {quantity: logged(run, f"norms/{quantity}/all") for quantity in of}
    assert all(list(steps) == [5, 10, 12] for steps in found.values())
    for step in (5, 10, 12):
        assert found["weight"][step] == pytest.approx(norm(weights(run, step)), rel=1e-5)
        update = norm(moved(run, step - 1, step))
        assert found["update"][step] == pytest.approx(update, rel=1e-5)
        distance = norm(moved(run, 0, step))
        assert found["distance"][step] == pytest.approx(distance, rel=1e-5)
        clipped = logged(run, "gradient_norm")[step]  # torch's, and before clipping
        assert found["gradient"][step] == pytest.approx(clipped, rel=1e-5)


@pytest.mark.quick("block*")
@pytest.mark.parametrize(
    ("by", "group"),
    [
        ("block", lambda name: re.match(r"bert.encoder.layer.0|bert.pooler|classifier", name)[0]),
        ("kind", lambda name: re.sub(r"\.\d+\.", ".*.", name)),
        ("tensor", lambda name: name),
    ],
)
def test_norms_of_groups_add_up_to_those_of_their_tensors(tmp_path, by, group):
    run = finished(tmp_path, {"name": "norms", "by": by, "every": 12, "of": ["weight"]})
    groups = {}
    for name, tensor in weights(run, 12).items():
        plain = name.removeprefix("base_model.model.")
        plain = plain.replace(".modules_to_save", "").replace(".default", "")
        groups.setdefault(group(plain), {})[name] = tensor
    prefix = "norms/weight/"
    [line] = [line for line in run.read_metrics() if any(key.startswith(prefix) for key in line)]
    expected = {f"{prefix}{name}": norm(tensors) for name, tensors in groups.items()}
    assert line == pytest.approx({"step": 12, **expected}, rel=1e-5)
    assert len(expected) > 1


def test_the_anchor_pulls_by_half_the_square_of_the_way_from_the_start(tmp_path):
    run = finished(tmp_path, {"name": "anchor", "strength": 3.0})
    for step, value in logged(run, "anchor/loss").items():
        expected = 1.5 * norm(moved(run, 0, step - 1)) ** 2
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert len(logged(run, "anchor/loss")) == 12


@pytest.mark.slow
def test_the_anchor_holds_what_it_names_and_nothing_else(tmp_path):
    free = finished(tmp_path / "free")
    held = finished(tmp_path / "held", {"name": "anchor", "strength": 1e6, "weights": "lora_A"})
    for name in ("lora_A", "lora_B"):
        ways = [
            norm({n: t for n, t in moved(run, 0, 12).items() if name in n}) for run in (free, held)
        ]
        assert (ways[1] < 0.7 * ways[0]) == (name == "lora_A"), ways


@pytest.mark.slow
def test_weights_of_another_shape_in_the_place_of_others_begin_anew(tmp_path):
    """JELLY's switch widens a factor where a layer's input and output differ."""
    of = ["gradient", "weight", "update", "distance"]
    hooks = [{"name": "norms", "every": 1, "of": of}, {"name": "anchor", "strength": 0.1}]
    method = {"name": "jelly", "rank": 2, "mode": "seq2par", "switch_step": 5, "nonsquare": "own_A"}
    tiny_runs.run_file(tmp_path, {"hooks": hooks, "training": KEPT})
    values = config.read_yaml(tmp_path / "run.yaml") | {"method": method}
    (tmp_path / "run.yaml").write_text(config.dump(values))
    file = runfile.resolve(config.read(tmp_path / "run.yaml"))
    run = session.run(file, options=tiny_runs.quiet())
    shapes = [{n: t.shape for n, t in weights(run, step).items()} for step in (1, 12)]
    assert any(shapes[0].get(n) not in (None, shape) for n, shape in shapes[1].items())
    assert len(logged(run, "anchor/loss")) == 12


def test_an_anchor_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no_such_weight"):
        finished(tmp_path, {"name": "anchor", "weights": "no_such_weight"})


@pytest.mark.slow
def test_what_is_measured_and_not_logged_yet_survives_a_kill(tmp_path):
    """A checkpoint is written between a measured step and its line."""
    hook = {"name": "norms", "every": 3, "of": ["weight", "distance"], "by": "all"}
    file = tiny_runs.run_file(tmp_path, {"hooks": [hook]})
    whole = session.run(file, tmp_path / "whole", options=tiny_runs.quiet())
    path = tmp_path / "killed"
    assert resume.killed_after(4, lambda: session.run(file, path, options=tiny_runs.quiet()))
    assert resume.in_child(lambda: session.resume(path, tiny_runs.quiet())) == 0
    assert resume.outcome(Run(path)) == resume.outcome(whole)
    assert list(logged(whole, "norms/weight/all")) == [3, 6, 9, 12]


def test_hooks_stand_in_the_config_in_their_order_and_old_runs_have_none(tmp_path):
    plain = tiny_runs.run_file(tmp_path)
    assert "hooks" not in plain.resolved
    both = tiny_runs.run_file(tmp_path, {"hooks": ["norms", {"name": "anchor", "strength": 2.0}]})
    again = runfile.resolve(config.given(both.resolved, Place("config.yaml")))
    assert [hook["name"] for hook in again.resolved["hooks"]] == ["norms", "anchor"]
    assert again.resolved["hooks"] == both.resolved["hooks"]
    assert again.hooks[1].config.strength == 2.0


@pytest.mark.slow
def test_a_run_is_not_gone_on_with_under_another_hook(tmp_path):
    file = tiny_runs.run_file(tmp_path, {"hooks": ["norms"]})
    path = tmp_path / "killed"
    assert resume.killed_after(5, lambda: session.run(file, path, options=tiny_runs.quiet()))
    values = config.read_yaml(path / "config.yaml")
    (path / "config.yaml").write_text(config.dump({**values, "hooks": []}))
    with pytest.raises(ConfigError, match="hooks"):
        session.resume(path, tiny_runs.quiet())


@pytest.mark.parametrize(
    ("hooks", "key", "kind"),
    [
        (["norm"], "hooks.0.name", "unknown"),
        ([{"name": "norms"}, {"name": "anchor", "strenght": 1.0}], "hooks.1.strenght", "unknown"),
        (["norms", {"name": "norms", "every": 2}], "hooks.1", "twice"),
        ([{"every": 2}], "hooks.0", "missing"),
        ([3], "hooks.0", "not_allowed"),
        ([{"name": "norms", "of": []}], "hooks.0.of", "refused"),
        ([{"name": "anchor", "weights": "("}], "hooks.0.weights", "refused"),
        ("norms", "hooks", "not_allowed"),
    ],
)
def test_what_is_wrong_with_a_hook_is_said_at_its_place(tmp_path, hooks, key, kind):
    with pytest.raises(ConfigError, check=fault(kind, key)):
        tiny_runs.run_file(tmp_path, {"hooks": hooks})


@pytest.mark.slow
def test_a_finished_run_opens_where_its_hook_is_not_installed(tmp_path):
    run = finished(tmp_path, "norms")
    values = config.read_yaml(run.config)
    values["hooks"] = [{"name": "of_another_machine", "field": 1}]
    run.config.write_text(config.dump(values))
    (run.path / "manifest.json").unlink()
    assert inference.load(run.path).predict("fine glad")
    with pytest.raises(ConfigError, match="of_another_machine"):
        runfile.resolve(config.read(run.config))


def test_hooks_of_the_method_come_first(tmp_path):
    tiny_runs.run_file(tmp_path)
    values = config.read_yaml(tmp_path / "run.yaml")
    values["method"] = {"name": "adalora", "initial_rank": 4, "target_rank": 2}
    file = runfile.resolve(config.given({**values, "hooks": ["norms"]}, Place("run.yaml")))
    loaded = material.load(file)
    attached = attachment.attach(file, loaded.backbone, loaded.task, None, Processes())
    assert [type(hook).__name__ for hook in attached.hooks] == ["Allocate", "Norms"]
