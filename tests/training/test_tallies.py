"""What each task of a mixture adds to a step, held against gradients that autograd gives for it alone."""

import math

import pytest
import torch

from graftlab.training import tallies
from graftlab.training.tallies import Tally

PARTS = [0, 0, 2, 2, 2]  # of five micro-batches; the second task has none
NAMES = ("a", "b", "c")


def losses(weights, row):
    """Return the loss of one micro-batch: another square of each weight."""
    return sum((weight * (row + 1 + place)).square().sum() for place, weight in enumerate(weights))


def passed(watched, parts=PARTS, unused=(), keep=False):
    """Return a tally after the backward passes of a step, and the weights."""
    weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.ones(3))]
    named = {str(place): weight for place, weight in enumerate([*unused, *weights])}
    tally = Tally(NAMES, parts, named if watched else {}, keep)
    for number in range(len(PARTS)):
        loss = losses(weights, number)
        loss.backward()
        tally.add(number, loss.detach(), number + 1)
    return tally, weights


def test_losses_and_counts_are_summed_by_task():
    tally, weights = passed(watched=False)
    with torch.no_grad():
        each = [losses(weights, number).item() for number in range(5)]
    assert tally.sums() == {"a": (sum(each[:2]), 1 + 2), "c": (sum(each[2:]), 3 + 4 + 5)}
    assert tally.norms() == {}


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_tasks_norm_is_of_the_gradient_of_its_micro_batches_alone(scale):
    never = torch.nn.Parameter(torch.ones(2))  # no loss reaches it
    tally, weights = passed(watched=True, unused=[never])
    expected = {}
    for name, rows in (("a", (0, 1)), ("c", (2, 3, 4))):
        found = torch.autograd.grad(sum(losses(weights, row) for row in rows), weights)
        expected[f"{name}/gradient_norm"] = torch.cat(found).norm().item() / scale
    assert tally.norms(scale) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_kept_gradients_are_those_of_each_task_alone_and_of_one_that_is_not_seen_zero(scale):
    never = torch.nn.Parameter(torch.ones(2))
    tally, weights = passed(watched=True, unused=[never], keep=True)
    assert tally.norms(scale) == passed(watched=True, unused=[never])[0].norms(scale)
    added = []
    found = tally.gradients(scale, add=lambda tensors: added.append(len(tensors)))
    assert added == [3, 3, 3]  # every process adds up those of every task, in one order
    for name, rows in (("a", (0, 1)), ("b", ()), ("c", (2, 3, 4))):
        loss = sum(
            (losses(weights, row) for row in rows), start=torch.zeros((), requires_grad=True)
        )
        own = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        for place, expected in enumerate((torch.zeros(2), *own)):
            torch.testing.assert_close(found[name][str(place)], expected / scale)
    assert passed(watched=True)[0].gradients() == {}


def test_looking_leaves_the_gradient_as_it_is():
    (_, seen), (_, unseen) = passed(watched=True), passed(watched=False)
    for one, other in zip(seen, unseen, strict=True):
        assert torch.equal(one.grad, other.grad)


def test_without_several_tasks_and_without_a_finite_gradient_there_is_nothing_to_say():
    tally, _ = passed(watched=True, parts=[])
    assert (tally.sums(), tally.norms()) == ({}, {})
    weight = torch.nn.Parameter(torch.ones(1))
    tally = Tally(("a", "b"), [0, 1], {"weight": weight})
    for number, factor in enumerate((math.inf, 1.0)):
        loss = (weight * factor).sum()
        loss.backward()
        tally.add(number, loss.detach(), 1)
    assert tally.norms() == {}
    assert set(tally.sums()) == {"a", "b"}


def test_sums_of_all_processes_and_steps_are_added_by_name_and_divided_once():
    several = [{"a": (1.5, 2)}, {"b": (4.0, 1), "a": (0.5, 2)}, {}]
    assert tallies.joined(several) == {"a": (2.0, 4), "b": (4.0, 1)}
    kept = {"a": [1.0, 2]}
    tallies.add(kept, {"a": (3.0, 6), "b": (5.0, 4)})
    assert kept == {"a": [4.0, 8], "b": [5.0, 4]}
    assert tallies.means({**kept, "c": [7.0, 0]}) == {"a": 0.5, "b": 1.25}
