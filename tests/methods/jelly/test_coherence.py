"""When JELLY's dynamic mode switches: closed forms of an exponential average, and numpy."""

import json
import math

import numpy as np
import pytest
import torch

from graftlab.methods.jelly import Config
from graftlab.methods.jelly.coherence import Trigger, cosine
from graftlab.methods.jelly.plan import Plan


def fires_at(trigger, coherences):
    """Return the number of the first step, from 1, at which it fires; None if it never does."""
    return next((n for n, c in enumerate(coherences, 1) if trigger.update(c)), None)


def test_a_constant_direction_never_triggers():
    assert fires_at(Trigger(), [1.0] * 5000) is None


@pytest.mark.parametrize(("ema", "drop"), [(0.1, 0.2), (0.3, 0.2), (0.05, 0.5), (1.0, 0.2)])
def test_after_a_lost_direction_it_takes_the_averages_own_time(ema, drop):
    # e = (1 - a)^n after n zeros, so that n is the first whole number from ln(drop) / ln(1 - a) on
    steps = 1 if ema == 1 else math.ceil(math.log(drop) / math.log(1 - ema))
    trigger = Trigger(ema=ema, drop_ratio=drop)
    assert fires_at(trigger, [1.0] * 120 + [0.0] * 200) == 120 + steps


def test_random_directions_trigger_within_some_sixteen_steps():
    generator = torch.Generator().manual_seed(0)
    constant = torch.randn(20_000, generator=generator)
    directions = [constant] * 121 + [torch.randn(20_000, generator=generator) for _ in range(60)]
    pairs = zip(directions[1:], directions[:-1], strict=True)
    trigger = Trigger()
    step = fires_at(trigger, [cosine([now], [before]) for now, before in pairs])
    assert step is not None
    # ln 0.2 / ln 0.9 = 15.3; cosines of random directions here are below 0.03
    assert 15 <= step - 120 <= 18


def test_the_peak_counts_from_the_warm_up_on():
    # with ema 1 the average is the coherence itself
    settings = {"ema": 1.0, "warmup": 5, "minimum": 1}
    assert fires_at(Trigger(**settings), [0, 0, 0, 1.0, 0.3, 0.1]) is None  # 1.0 came too early
    assert fires_at(Trigger(**settings), [0, 0, 0, 0, 1.0, 0.3, 0.1]) == 7


def test_it_does_not_fire_before_the_minimum():
    for minimum, expected in ((3, 4), (4, 4), (5, 5), (9, 9)):
        trigger = Trigger(ema=1.0, warmup=1, minimum=minimum)
        assert fires_at(trigger, [1.0, 1.0, 1.0] + [0.0] * 20) == expected


def test_it_fires_at_the_drop_ratio_itself():
    assert Trigger(ema=1.0, drop_ratio=0.25, warmup=1, minimum=1).update(1.0) is False
    for low, expected in ((0.25, 2), (0.2500001, None)):
        trigger = Trigger(ema=1.0, drop_ratio=0.25, warmup=1, minimum=1)
        assert fires_at(trigger, [1.0, low]) == expected


def test_patience_wants_so_many_steps_in_a_row():
    low_twice, low_on = [1.0, 0.1, 0.1, 0.9, 0.1, 0.1, 0.9], [0.1] * 5
    settings = {"ema": 1.0, "warmup": 1, "minimum": 1}
    assert fires_at(Trigger(**settings, patience=1), low_twice) == 2
    assert fires_at(Trigger(**settings, patience=2), low_twice) == 3
    assert fires_at(Trigger(**settings, patience=3), low_twice + low_on) == 10


def test_steps_below_the_minimum_are_no_patience():
    trigger = Trigger(ema=1.0, warmup=1, minimum=5, patience=3)
    assert fires_at(trigger, [1.0] + [0.0] * 20) == 7


@pytest.mark.parametrize("coherence", [1.0, -1.0, 0.0, None])
def test_it_fires_at_the_latest_whatever_the_gradients_say(coherence):
    assert fires_at(Trigger(latest=40), [coherence] * 60) == 40


def test_without_a_positive_peak_there_is_nothing_to_fall_from():
    assert fires_at(Trigger(ema=1.0, warmup=1, minimum=1), [-0.1, -0.9, 0.0] * 50) is None


def test_an_undefined_coherence_counts_as_a_step_and_changes_nothing_else():
    trigger = Trigger(ema=0.5, warmup=1, minimum=1)
    trigger.update(1.0)
    before = trigger.state_dict()
    trigger.update(None)
    assert trigger.state_dict() == before | {"steps": 2}
    assert fires_at(Trigger(minimum=3, warmup=1, ema=1.0), [None, 1.0, None, 0.0]) == 4


@pytest.mark.parametrize("kept", [0, 1, 5, 30, 59, 60, 99, 100, 140])
def test_what_is_saved_as_json_goes_on_with_the_same_decisions(kept):
    draw = np.random.default_rng(3)
    coherences = [None, *(0.6 + 0.3 * draw.standard_normal(110)), *draw.normal(0, 0.1, 90)]
    whole, first, second = (Trigger(patience=2) for _ in range(3))
    decisions = [whole.update(c) for c in coherences]
    assert True in decisions[100:]
    resumed = [first.update(c) for c in coherences[:kept]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    resumed += [second.update(c) for c in coherences[kept:]]
    assert resumed == decisions
    assert second == whole


# The cosine


def test_the_cosine_is_that_of_the_tensors_as_one_vector():
    draw = np.random.default_rng(0)
    first = [draw.standard_normal(shape) for shape in ((8, 5), (3, 40), (7,))]
    second = [a + draw.standard_normal(a.shape) for a in first]
    a, b = (np.concatenate([x.ravel() for x in tensors]) for tensors in (first, second))
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    found = cosine([torch.tensor(x) for x in first], [torch.tensor(x) for x in second])
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_cosine_of_a_vector_is_one_with_itself_and_minus_one_with_its_opposite():
    tensors = [torch.randn(4, 4), torch.randn(3)]
    assert cosine(tensors, [3 * t for t in tensors]) == pytest.approx(1)
    assert cosine(tensors, [-t for t in tensors]) == pytest.approx(-1)


def test_the_cosine_does_not_depend_on_the_size_of_the_gradients():
    # a float32 holds 1e-30 and 1e30, but not their squares
    first, second = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    for size in (1e-30, 1.0, 1e30):
        assert cosine([size * first], [size * second]) == pytest.approx(24 / 25)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_the_cosine_with_nothing_or_with_what_is_not_finite_is_undefined(value):
    good, bad = [torch.ones(3), torch.ones(2)], [torch.full((3,), value), torch.zeros(2)]
    assert cosine(good, bad) is None
    assert cosine(bad, good) is None
    assert cosine([], []) is None


# What a run's length makes of the settings


@pytest.mark.parametrize("num_steps", [1, 2, 3, 9, 10, 30, 99, 150, 499, 500, 501, 4242])
def test_unset_they_are_the_sources_steps_or_shares_of_the_run(num_steps):
    trigger = Plan().trigger(num_steps)
    assert trigger.warmup == max(1, min(50, num_steps // 10))
    assert trigger.minimum == max(1, min(100, num_steps // 5))
    assert trigger.latest == max(1, 2 * num_steps // 3)


def test_whole_numbers_are_steps_and_fractions_are_shares():
    trigger = Plan(warmup=7, minimum=0.5, latest=0.75).trigger(200)
    assert (trigger.warmup, trigger.minimum, trigger.latest) == (7, 100, 150)
    assert Plan(latest=1).trigger(200).latest == 1
    assert Plan(latest=1.0).trigger(200).latest == 200  # decided after the last step: never


@pytest.mark.parametrize("coherence", [1.0, 0.0, None])
def test_every_run_of_two_steps_or_more_switches_unless_told_otherwise(coherence):
    for num_steps in [*range(1, 200), 1000, 12345]:
        decided = fires_at(Plan().trigger(num_steps), [coherence] * num_steps)
        # what is decided in a step is done before the next one, which a run of one step lacks
        assert decided is not None
        assert (decided < num_steps) == (num_steps > 1)


def test_only_dynamic_has_a_trigger_and_only_seq2par_a_fixed_step():
    for mode in ("parallel", "sequential", "seq2par"):
        assert Plan(mode=mode).trigger(100) is None
    for mode in ("parallel", "sequential", "dynamic"):
        assert Plan(mode=mode).fixed_step(10) is None


@pytest.mark.parametrize(
    ("settings", "steps_per_epoch", "expected"),
    [
        ({}, 10, 10),
        ({"switch_epoch": 3.0}, 10, 30),
        ({"switch_epoch": 0.42}, 100, 42),
        ({"switch_epoch": 0.25}, 10, 3),  # the first step at which so much of an epoch is done
        ({"switch_epoch": 0.01}, 10, 1),
        ({"switch_epoch": 0.7}, 10, 7),
        ({"switch_epoch": 0.0}, 10, 0),
        ({"switch_epoch": -1.0}, 10, 0),
        ({"switch_step": 17}, 10, 17),
    ],
)
def test_seq2par_switches_once_so_many_epochs_are_done(settings, steps_per_epoch, expected):
    assert Plan(mode="seq2par", **settings).fixed_step(steps_per_epoch) == expected


def test_hundredths_of_an_epoch_are_not_rounded_up_for_the_sake_of_a_last_bit():
    for hundredth in range(101):
        plan = Plan(mode="seq2par", switch_epoch=hundredth / 100)
        assert plan.fixed_step(100) == hundredth


def test_the_run_file_says_what_the_plan_holds():
    settings = {
        "mode": "dynamic", "switch_method": "tip", "reset_optimizer": False, "rewarmup_steps": 3,
        "criterion": "halves", "ema": 0.3, "drop_ratio": 0.4, "patience": 2, "warmup": 3,
        "minimum": 0.25, "latest": 0.5,
    }  # fmt: skip
    assert Config(**settings).plan(seed=9) == Plan(**settings, seed=9)
