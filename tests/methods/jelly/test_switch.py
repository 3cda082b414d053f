"""JELLY's switch inside graftlab's own loop: what it does to the run, and that no crash shows.

Runs of 12 steps on the tiny backbone, whose layers are square (query, key, value, dense, pooler) and not
(intermediate, output), so that A's of another shape come at the switch too.

Slow: a fork for each step and each write at which a run may be killed.
"""

import csv
import logging
import os
import signal

import pytest
import torch
from faults import conflict, fault
from pydantic import ValidationError
from safetensors.torch import load_file

from graftlab import config, runfile
from graftlab.contracts import Training
from graftlab.errors import ConfigError
from graftlab.methods import jelly
from graftlab.methods.jelly import conversion
from graftlab.methods.jelly.hook import SwitchHook
from graftlab.methods.jelly.switch import Switch
from graftlab.methods.jelly.tuner import layers
from graftlab.rundir.lines import read_lines
from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.testing import resume, rig
from graftlab.training import checkpoint

METHODS = ("exact", "tip", "tip_preserve", "merge_reinit", "none")
FIXED = {"mode": "seq2par", "switch_step": 5}
STEPS = 12
QUIET = session.Options(quiet=True)


def run_file(folder, method=None, **sections):
    method = {"name": "jelly", "rank": 2, "alpha": 4.0, **(method or {})}
    if method.get("switch_method") == "none":
        method["nonsquare"] = "parallel"
    return resume.run_file(folder, {"method": method, **sections})


def run(folder, method=None, **sections):
    return session.run(run_file(folder, method, **sections), folder / "run", options=QUIET)


def result(run):
    return run.read_result()


def logged(run, name):
    return {row["step"]: row[name] for row in read_lines(run.metrics) if name in row}


# Killed


def die(when):
    """Let this process end itself: between two layers, after the switch, or two steps later."""
    real_layer, real_switch, real_observe = (
        conversion.switch, Switch.__call__, SwitchHook.before_optimizer_step
    )  # fmt: skip
    seen = []

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def layer(*given):
        seen.append(1)
        if when == "between layers" and len(seen) == 3:
            kill()
        return real_layer(*given)

    def switch(self, *given):
        done = real_switch(self, *given)
        if when == "after the switch":
            kill()
        return done

    def observe(self, step):
        at = self.switch.step
        if when == "two steps later" and at is not None and step == at + 2:
            kill()
        return real_observe(self, step)

    conversion.switch, Switch.__call__ = layer, switch
    SwitchHook.before_optimizer_step = observe


KILLED = [
    *(
        (mode, method, 1 + 2 * (mode == "seq2par"))
        for mode in ("seq2par", "dynamic")
        for method in METHODS
    ),
    ("seq2par", "exact", 1),
    ("dynamic", "exact", 3),
]


@pytest.mark.slow  # killed for good
@pytest.mark.parametrize(("mode", "method", "save_every"), KILLED)
def test_killed_before_in_and_after_the_switch_equals_never_killed(
    mode, method, save_every, tmp_path
):
    when = {"switch_step": 5} if mode == "seq2par" else {"warmup": 1, "minimum": 6, "latest": 6}
    file = run_file(
        tmp_path,
        {"mode": mode, "switch_method": method, "dropout": 0.1, **when},
        training={"save_every": save_every},
    )
    whole = session.run(file, tmp_path / "whole", options=QUIET)
    path = tmp_path / "killed"
    # when the gradients of two steps have been compared already
    assert resume.killed_after(5, lambda: session.run(file, path, options=QUIET))
    for moment in ("between layers", "after the switch", "two steps later"):
        ended = resume.in_child(lambda m=moment: (die(m), session.resume(path, QUIET)))
        assert ended == -signal.SIGKILL, moment
    assert resume.in_child(lambda: session.resume(path, QUIET)) == 0
    assert resume.outcome(Run(path)) == resume.outcome(whole)
    ours, theirs = result(Run(path)), result(whole)
    assert ours["exact"], ours["not_exact"]
    assert ours["facts"] == theirs["facts"]
    assert ours["facts"]["switch_step"] == (5 if mode == "seq2par" else 6)


FAILING = ["exact", *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS[1:])]


@pytest.mark.slow
@pytest.mark.parametrize("method", FAILING)
def test_a_run_whose_switch_fails_between_two_layers_can_be_resumed(method, tmp_path, monkeypatch):
    file = run_file(tmp_path, {**FIXED, "switch_method": method}, training={"save_every": 1})
    whole = session.run(file, tmp_path / "whole", options=QUIET)
    real, seen = conversion.switch, []

    def failing(*given):
        seen.append(1)
        if len(seen) == 3:
            raise OSError("the disk, or whatever else")
        return real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "switch", failing)
        with pytest.raises(OSError, match="whatever"):
            session.run(file, tmp_path / "broken", options=QUIET)
    resumed = session.resume(tmp_path / "broken", QUIET)
    assert resume.outcome(resumed) == resume.outcome(whole)
    assert result(resumed)["facts"] == result(whole)["facts"]


MODES = [
    {"mode": "parallel"},
    {"mode": "sequential", "nonsquare": "parallel"},
    {"mode": "seq2par", "switch_epoch": 0.5, "rewarmup_steps": 2},
    {"mode": "dynamic", "latest": 1.0, "warmup": 3, "criterion": "halves"},
]


@pytest.mark.parametrize("method", MODES, ids=lambda m: m["mode"])
def test_a_runs_own_config_is_the_same_run_again(method, tmp_path):
    file = run_file(tmp_path, method)
    path = tmp_path / "config.yaml"
    path.write_text(config.dump(dict(file.resolved)), encoding="utf-8")
    again = runfile.resolve(config.read(path))
    assert again.method.config == file.method.config
    assert again.resolved == file.resolved


# The best checkpoint

FIRST_IS_BEST = {"select": "best", "early_stopping": {"min_improvement": 1e9}, "evaluate_every": 4}
LEVEL = {"schedule": {"name": "constant", "warmup": 0}}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["exact", "merge_reinit"])
def test_the_best_checkpoint_may_lie_before_the_switch(method, tmp_path):
    best = run(
        tmp_path / "best", {**FIXED, "switch_method": method}, training=FIRST_IS_BEST | LEVEL
    )
    short = run(tmp_path / "short", {"mode": "sequential"}, training={"max_steps": 4, **LEVEL})
    ours, theirs = (load_file(r.adapter / "adapter_model.safetensors") for r in (best, short))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for file in ("predictions/test.jsonl", "predictions/validation.jsonl"):
        assert (best.path / file).read_bytes() == (short.path / file).read_bytes()
    # what is said is what the run did, whichever moment of it was chosen
    found = result(best)
    assert found["selected_step"] == 4
    assert found["facts"]["switched"] is True
    assert found["facts"]["switch_step"] == 5
    session.resume(best.path, QUIET)
    assert result(best)["facts"] == found["facts"]


@pytest.mark.slow
def test_the_best_checkpoint_may_lie_after_the_switch(tmp_path):
    late = run(tmp_path, {"mode": "seq2par", "switch_step": 2}, training=FIRST_IS_BEST)
    assert result(late)["selected_step"] == 4
    weights = load_file(late.adapter / "adapter_model.safetensors")
    forms = [code.tolist() for name, code in weights.items() if "jelly_form" in name]
    assert forms == [[0, 2, 0]] * 7  # parallel, after step 2, exact


# The optimizer


def moments(run, step):
    """Return Adam's count of steps for each parameter, from a checkpoint."""
    saved = checkpoint.load(run.checkpoints / checkpoint.name(step))
    states = checkpoint.unpack(saved.state["optimizer"], saved.tensors["optimizer"])
    return {name: int(state["step"]) for name, state in states.items()}


@pytest.mark.quick("exact-True")
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_moments_of_a_start_anew_and_those_of_b_unless_exact_keeps_its_gradient(
    method, reset, tmp_path
):
    found = moments(
        run(tmp_path, {**FIXED, "switch_method": method, "reset_optimizer": reset}), STEPS
    )
    not_square = ("intermediate.dense", "layer.0.output.dense")
    for name, steps in found.items():
        new_shape = any(part in name for part in not_square) and method != "none"
        always_parallel = any(part in name for part in not_square) and method == "none"
        if ".jelly_A." in name and not always_parallel:
            expected = STEPS - 5 if reset or new_shape else STEPS
        elif ".jelly_B." in name and not always_parallel:
            expected = STEPS - 5 if reset and method != "exact" else STEPS
        else:
            expected = STEPS  # the head's, and those of layers that do not switch
        assert steps == expected, name
    assert sum(".jelly_A." in name for name in found) == 7
    assert any("classifier" in name for name in found)


def attached(family="encoder", **settings):
    fitted = rig.FAMILIES[family]
    done = jelly.attach(rig.backbone(fitted), jelly.Config(**settings), rig.setting(fitted))
    return done.model, done.hooks[0], fitted


def start(model, hook, optimizer=None, **told):
    optimizer = optimizer or torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    hook.on_train_start(Training(model, optimizer, STEPS, 5, lambda: None, **told))
    return optimizer


def test_the_switch_touches_no_other_state_of_the_optimizer_and_leaves_no_gradient():
    model, hook, fitted = attached(**FIXED, targets=("query", "value"))
    optimizer = start(model, hook)
    for _ in range(3):
        rig.loss(model, fitted).backward()
        optimizer.step()
    adapter = [p for n, p in model.named_parameters() if ".jelly_A." in n]
    others = [p for p in optimizer.state if not any(p is a for a in adapter)]
    before = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in others}
    stale = [p for n, p in model.named_parameters() if "jelly_" in n]
    assert all(p.grad is not None for p in stale)
    hook.switch(5, optimizer)
    assert all(p.grad is None for p in stale)
    assert set(optimizer.state) == set(others)  # those of A are gone
    for parameter, state in before.items():
        for key, value in state.items():
            assert torch.equal(optimizer.state[parameter][key], value)


def test_a_parameter_of_another_shape_takes_the_place_of_the_old_one():
    model, hook, _ = attached(**FIXED, targets=("intermediate.dense",))
    optimizer = start(model, hook)
    count = len(optimizer.param_groups[0]["params"])
    hook.switch(5, optimizer)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trained
    assert len(trained) == count


def rates(run_it, monkeypatch):
    """Return the learning rates that the optimizer was given, step by step."""
    real, used = torch.optim.AdamW.step, []

    def step(self, *given):
        used.append({group["lr"] for group in self.param_groups})
        return real(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", step)
        run_it()
    assert all(len(rate) == 1 for rate in used)
    return [rate.pop() for rate in used]


LINEAR = {"learning_rate": 0.012, "schedule": {"name": "linear", "warmup": 0}}


@pytest.mark.quick("3")
@pytest.mark.parametrize("ramp", [0, 3])
def test_the_learning_rate_goes_on_along_its_schedule_or_rises_to_it_again(
    ramp, tmp_path, monkeypatch
):
    method = {**FIXED, "rewarmup_steps": ramp}
    used = rates(lambda: run(tmp_path, method, training=LINEAR), monkeypatch)
    factors = [1, 1, 1, 1, 1, 1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1] if ramp else [1] * STEPS
    expected = [0.012 * (1 - done / STEPS) * factors[done] for done in range(STEPS)]
    assert used == pytest.approx(expected)
    assert list(logged(Run(tmp_path / "run"), "learning_rate").values()) == pytest.approx(expected)


@pytest.mark.slow
def test_the_rate_of_lora_plus_stays_with_b_where_a_parameter_is_replaced(tmp_path, monkeypatch):
    real, used = torch.optim.AdamW.step, {}

    def step(self, *given):
        used.clear()  # the last step's are kept
        used.update({name: g["lr"] for g in self.param_groups for name in g["names"]})
        return real(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run(tmp_path, {**FIXED, "lora_plus_ratio": 16.0}, training=LEVEL)
    assert {rate for name, rate in used.items() if ".jelly_B." in name} == {16 * 0.01}
    assert {rate for name, rate in used.items() if ".jelly_B." not in name} == {0.01}
    assert sum(".jelly_A." in name for name in used) == 7


# When it switches

STILL = {"backbone": {"dropout": 0.0}}


@pytest.mark.slow
def test_accumulation_changes_neither_what_is_observed_nor_the_decision(tmp_path):
    method = {"mode": "dynamic", "ema": 1.0, "warmup": 2, "minimum": 3}
    runs = {
        size: run(tmp_path / str(size), method, training={"micro_batch_size": size}, **STILL)
        for size in (8, 4, 3)
    }
    observed = {size: logged(done, "jelly/coherence") for size, done in runs.items()}
    steps = {size: result(done)["facts"]["switch_step"] for size, done in runs.items()}
    assert len(set(steps.values())) == 1
    assert 4 < steps[8] < 8  # decided by the gradients, before the latest
    # the first step's rate is zero, so that B moves in step 2: A has gradients from step 3 on
    assert list(observed[8]) == list(range(4, int(steps[8]) + 1))
    for size in (4, 3):
        assert observed[size] == pytest.approx(observed[8], abs=1e-4)  # float32, in another order


@pytest.mark.slow
def test_the_logged_average_is_the_exponential_one(tmp_path):
    done = run(tmp_path, {"mode": "dynamic", "ema": 0.3, "latest": 9, "drop_ratio": 0.0})
    raw, average = (logged(done, f"jelly/{n}") for n in ("coherence", "coherence_average"))
    expected = None
    for step, value in raw.items():
        expected = value if expected is None else 0.3 * value + 0.7 * expected
        assert average[step] == pytest.approx(expected)


@pytest.mark.slow
def test_a_switch_comes_between_the_step_that_decides_and_the_next(tmp_path):
    for number, (method, expected) in enumerate([
        (FIXED, 5),
        ({"mode": "seq2par"}, 5),  # one epoch: 40 rows in batches of 8
        ({"mode": "seq2par", "switch_epoch": 0.5}, 3),
        ({"mode": "dynamic", "latest": 7, "minimum": 12}, 7),
        ({"mode": "dynamic", "latest": 0.25, "minimum": 12}, 3),
        ({"mode": "dynamic", "minimum": 12}, 8),  # two thirds of 12
    ]):  # fmt: skip
        done = run(tmp_path / str(number), method)
        facts = result(done)["facts"]
        assert facts["switched"] is True
        assert facts["switch_step"] == expected
        assert list(logged(done, "jelly/switch_step")) == [expected]
        observed = logged(done, "jelly/coherence")
        assert max(observed, default=0) <= expected


def test_halves_compares_the_two_halves_of_one_batch():
    model, hook, fitted = attached(mode="dynamic", criterion="halves")
    start(model, hook, micro_batches=lambda _: 4)
    for layer in layers(model).values():
        torch.nn.init.normal_(layer.jelly_B["default"], std=0.1)
    gradients = []
    for half in ((0, 1), (2, 3)):
        model.zero_grad()
        for seed in half:
            rig.loss(model, fitted, seed).backward()
        gradients.append(
            torch.cat([m.jelly_A["default"].grad.flatten() for m in layers(model).values()])
        )
    expected = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
    model.zero_grad()
    hook.on_step_start(1)
    for seed in range(4):
        rig.loss(model, fitted, seed).backward()
        hook.after_backward(1, seed)
    assert hook.before_optimizer_step(1)["jelly/coherence"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_halves_takes_a_short_last_batch_that_goes_through_in_one(tmp_path):
    # 40 rows in batches of 12: every fourth has 4
    method = {
        "mode": "dynamic",
        "criterion": "halves",
        "latest": 10,
        "drop_ratio": 0.0,
        "patience": 12,
    }
    sizes = {"batch_size": 12, "micro_batch_size": 6, "group_by_length": False}
    observed = logged(run(tmp_path, method, training=sizes), "jelly/coherence")
    assert list(observed) == [3, 5, 6, 7, 9, 10]  # and none while B is zero
    assert all(-1 <= value <= 1 for value in observed.values())


def test_a_gradient_that_is_zero_or_not_finite_is_not_compared_with():
    model, hook, _ = attached(mode="dynamic", latest=1.0)
    start(model, hook)
    parameters = [layer.jelly_A["default"] for layer in layers(model).values()]

    def observe(value):
        for p in parameters:
            p.grad = torch.full_like(p, value)
        return hook.before_optimizer_step(1).get("jelly/coherence")

    assert [observe(v) for v in (0.0, 2.0, float("nan"), 0.0, -1.0, float("inf"))] == [
        None, None, None, None, pytest.approx(-1), None
    ]  # fmt: skip
    assert hook.switch.trigger.steps == 6


@pytest.mark.slow
def test_a_run_that_never_switched_says_so(tmp_path, caplog):
    method = {"mode": "dynamic", "latest": 1.0, "minimum": 12}
    with caplog.at_level(logging.WARNING, logger="graftlab"):
        done = run(tmp_path, method)
    assert result(done)["facts"] == {"switched": False}
    assert sum("never switched" in message for message in caplog.messages) == 1
    forms = [c.tolist() for n, c in load_file(done.adapter / "adapter_model.safetensors").items()
             if "jelly_form" in n]  # fmt: skip
    assert forms == [[1, -1, -1]] * 7


# What is known of it


@pytest.mark.quick("exact")
@pytest.mark.parametrize("method", METHODS)
def test_the_result_tells_what_the_switch_did(method, tmp_path):
    done = run(tmp_path, {**FIXED, "switch_method": method})
    facts = result(done)["facts"]
    assert facts["switched_layers"] == (5 if method == "none" else 7)
    change = {"exact": 0, "tip_preserve": 0, "merge_reinit": 0, "tip": 1}
    if method in change:
        assert facts["relative_change"] == pytest.approx(change[method], abs=1e-5)
        kept = facts["probe_loss_after"] == pytest.approx(facts["probe_loss_before"], abs=1e-5)
        assert kept == (method != "tip")
    else:
        assert facts["relative_change"] > 0.1
    ratio = {"exact": 1, "none": 1, "tip": 0, "merge_reinit": 0}
    if method in ratio:
        assert facts["largest_norm_ratio"] == ratio[method]
    assert 1 <= facts["effective_rank_after"] <= 2
    if method in ("tip", "tip_preserve", "none"):  # which keep A's singular values
        assert facts["effective_rank_after"] == pytest.approx(facts["effective_rank_before"], 1e-5)
    (line,) = (row for row in read_lines(done.metrics) if "jelly/switch_step" in row)
    assert line == {"step": 5, **{f"jelly/{k}": v for k, v in facts.items() if k != "switched"}}


@pytest.mark.slow
def test_the_probe_is_the_loss_of_training_examples_as_anyone_would_compute_it(tmp_path):
    whole_split = {"batch_size": 40, "micro_batch_size": 0, **LEVEL}
    switched = run(tmp_path / "switched", FIXED, training=whole_split)
    # up to the switch this is the same run
    before = run(
        tmp_path / "before", {"mode": "sequential"},
        training={**whole_split, "max_steps": 5, "select": "last"},
    )  # fmt: skip
    file = runfile.resolve(config.read(before.path / "config.yaml"))
    data = file.task.module.read(file.task.config, file.paths, file.seed)
    backbone = file.backbone.module.load(file.backbone.config, data.problem, 0)
    model = jelly.load(backbone, file.method.config, before.adapter)
    with (tmp_path / "before" / "train.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    inputs = backbone.processor([r["text"] for r in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([data.problem.labels.index(row["label"]) for row in rows])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(**inputs).logits, labels).item()
    facts = result(switched)["facts"]
    assert facts["probe_loss_before"] == pytest.approx(expected, abs=1e-6)
    assert facts["probe_loss_after"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_probe_leaves_mode_and_randomness_as_they_are(tmp_path, monkeypatch):
    seen, real = [], SwitchHook.on_step_start

    def on_step_start(self, step):
        torch.manual_seed(step)
        state, model = torch.get_rng_state(), self.training.model
        for training in (True, False):
            model.train(training)
            loss = self.training.probe()
            assert loss == self.training.probe()
            assert torch.equal(torch.get_rng_state(), state)
            assert all(m.training == training for m in model.modules())
        assert all(p.grad is None for p in model.parameters())
        model.train()
        seen.append(loss)
        real(self, step)

    file = run_file(tmp_path, FIXED)
    expected = session.run(file, tmp_path / "plain", options=QUIET)
    monkeypatch.setattr(SwitchHook, "on_step_start", on_step_start)
    probed = session.run(file, tmp_path / "probed", options=QUIET)
    assert len(set(seen)) > 5
    assert resume.outcome(probed) == resume.outcome(expected)


# Settings


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"mode": "dynamic", "switch_epoch": 2.0}, "switch_epoch"),
        ({"mode": "parallel", "switch_step": 2}, "switch_step"),
        (
            {"mode": "seq2par", "ema": 0.2, "latest": 9},
            "ema",
        ),
        ({"mode": "sequential", "switch_method": "tip"}, "switch_method"),
        (
            {"mode": "parallel", "rewarmup_steps": 2},
            "rewarmup_steps",
        ),
        ({"mode": "seq2par", "switch_epoch": 1.0, "switch_step": 2}, "switch_epoch"),
        ({"latest": 1.5}, "latest"),
        (
            {"mode": "seq2par", "switch_epoch": 0.0, "switch_method": "tip"},
            "switch_method",
        ),
        (
            {"mode": "parallel", "nonsquare": "parallel"},
            "nonsquare",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, key):
    with pytest.raises(ValidationError, check=conflict(key)):
        jelly.Config(**settings)


@pytest.mark.parametrize(
    ("method", "training", "message"),
    [
        ({"mode": "seq2par", "switch_step": 12}, {}, "method.switch_step"),
        ({"mode": "seq2par", "switch_epoch": 2.4}, {}, "step 12.*has 12.*.5"),
        (
            {"mode": "dynamic", "criterion": "halves"}, {"micro_batch_size": 8},
            "training.micro_batch_size",
        ),
        ({"mode": "dynamic", "nonsquare": "error"}, {}, "is not square .* and nonsquare is error"),
        (
            {"mode": "dynamic", "nonsquare": "parallel", "targets": ["intermediate.dense"]}, {},
            "1 targets",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_switched_is_refused_before_the_first_step(
    method, training, message, tmp_path
):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, method, training=training)
    assert not Run(tmp_path / "run").metrics.exists() or not read_lines(
        tmp_path / "run/metrics.jsonl"
    )


def test_an_a_of_its_own_cannot_be_kept_as_it_is():
    with pytest.raises(ConfigError, check=fault("not_square")):
        attached(**FIXED, switch_method="none")
