"""What the `training:` section refuses by itself, at which key and of which kind; steps by arithmetic."""

import importlib.util

import pytest
import torch
from plain_loops import linear
from torch import nn

from graftlab.errors import ConfigError
from graftlab.training import memory, optimizer
from graftlab.training.config import Config, best_by, check, num_steps
from graftlab.training.patience import is_best
from graftlab.training.state import Position

PLATEAU = {"name": "plateau"}


@pytest.mark.parametrize(
    ("changes", "key", "kind"),
    [
        ({"evaluate_every": -1}, ("evaluate_every",), "not_allowed"),
        ({"save_every": -7}, ("save_every",), "not_allowed"),
        ({"batch_size": 4, "micro_batch_size": 5}, ("micro_batch_size",), "conflict"),
        ({"max_steps": 9, "schedule": {"warmup": 10}}, ("schedule", "warmup"), "conflict"),
        ({"evaluate_every": 0, "early_stopping": {"patience": 1}}, ("early_stopping",), "conflict"),
        ({"evaluate_every": 0, "schedule": PLATEAU}, ("schedule",), "conflict"),
    ],
)
def test_a_conflict_is_found_at_its_key(changes, key, kind):
    (fault,) = check(Config.model_validate(changes))
    assert (fault.place.key, fault.kind) == (key, kind)
    numbers = [str(value) for value in changes.values() if isinstance(value, int)]
    if kind == "conflict":
        assert all(number in fault.said for number in numbers)
    else:
        assert fault.given == changes[key[0]]
        assert fault.allowed in fault.said


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"evaluate_every": 0, "save_every": 0},
        {"evaluate_every": 1, "early_stopping": {"patience": 1}, "schedule": PLATEAU},
        {"batch_size": 4, "micro_batch_size": 4},
        {"max_steps": 9, "schedule": {"warmup": 9}},
        {"max_steps": 1, "schedule": {"warmup": 1}},
        {"max_steps": 0, "schedule": {"warmup": 10}},  # how long the run is, the data say
    ],
)
def test_what_goes_together_is_no_conflict(changes):
    assert check(Config.model_validate(changes)) == []


@pytest.mark.parametrize(("name", "found"), [("paged_adamw_8bit", False), ("adamw_8bit", True)])
def test_an_optimizer_of_eight_bits_needs_its_package(monkeypatch, name, found):
    asked, real = [], importlib.util.find_spec

    def find_spec(package):
        if package != "bitsandbytes":
            return real(package)
        asked.append(package)
        return package if found else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    problems = check(Config.model_validate({"optimizer": {"name": name}}))
    assert len(asked) == 1
    assert [(p.place.key, p.kind, p.given) for p in problems] == (
        [] if found else [(("optimizer", "name"), "not_installed", name)]
    )
    if problems:
        for part in (name, "'bitsandbytes'", "graftlab[quantized]"):
            assert part in problems[0].said
    assert check(Config()) == []
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("changes", "examples", "steps"),
    [
        ({"epochs": 3, "batch_size": 4}, 10, 9),
        ({"epochs": 0.5, "batch_size": 4}, 10, 2),
        ({"epochs": 3, "max_steps": 5, "batch_size": 10}, 10, 5),
        ({"max_steps": 5, "batch_size": 10, "schedule": {"warmup": 5}}, 10, 5),
    ],
)
def test_steps_are_epochs_times_batches_or_as_many_as_are_asked_for(changes, examples, steps):
    assert num_steps(Config.model_validate(changes), examples) == steps


@pytest.mark.parametrize(
    ("changes", "parts", "key", "allowed"),
    [
        ({"batch_size": 11}, ("training.batch_size", "11", "10"), ("batch_size",), 10),
        (
            {"batch_size": 5, "epochs": 1, "schedule": {"warmup": 3}},
            ("(3 steps)", "(2 steps)"),
            ("schedule", "warmup"),
            2,
        ),
    ],
)
def test_what_only_the_number_of_examples_shows_is_refused(changes, parts, key, allowed):
    with pytest.raises(ConfigError) as caught:
        num_steps(Config.model_validate(changes), 10)
    (fault,) = caught.value.problems
    found = (fault.place.key, fault.kind, fault.allowed)
    assert found == (("training", *key), "conflict", allowed)
    assert all(part in str(caught.value) for part in parts)


def test_the_best_is_named_by_the_first_metric_another_or_the_loss():
    metrics = ("accuracy", "macro_f1")
    assert best_by(Config(), metrics) == "accuracy"
    for name in ("macro_f1", "loss"):
        assert best_by(Config(best_by=name), metrics) == name
    with pytest.raises(ConfigError) as caught:
        best_by(Config(best_by="macro_f"), metrics)
    (fault,) = caught.value.problems
    assert (fault.place.key, fault.kind) == (("training", "best_by"), "unknown")
    assert (fault.given, fault.allowed) == ("macro_f", ["accuracy", "macro_f1", "loss"])
    assert all(
        part in str(caught.value) for part in ("training.best_by", "macro_f1", "task.metrics")
    )


def test_patience_counts_evaluations_in_a_row_and_a_tie_is_no_improvement():
    position, stopping = Position(), Config(early_stopping={"patience": 2}).early_stopping
    values = [None, 0.5, 0.5, 0.6, None, 0.6, 0.9]
    seen = []
    for step, value in enumerate(values, start=1):
        position.step = step
        best = is_best(position, value, True, stopping)
        seen.append((best, position.best_step, position.waited, position.ended))
    assert seen == [
        (False, 0, 1, False), (True, 2, 0, False), (False, 2, 1, False), (True, 4, 0, False),
        (False, 4, 1, False), (False, 4, 2, True), (True, 7, 0, True),
    ]  # fmt: skip


@pytest.mark.parametrize("higher", [True, False])
def test_an_improvement_is_more_than_the_least_and_never_is_no_patience(higher):
    stopping = Config(early_stopping={"min_improvement": 0.25}).early_stopping
    sign, position = 1 if higher else -1, Position()
    found = [is_best(position, sign * value, higher, stopping) for value in (1.0, 1.25, 1.5, 0.0)]
    assert found == [True, False, True, False]
    assert not position.ended


def test_what_takes_the_memory_is_said_in_mebibytes_largest_first():
    sizes = {"small": 1, "large": 8, "middle": 4, "least": 0.5}  # MiB in float32
    model = nn.ParameterDict(
        {n: nn.Parameter(torch.empty(int(s * 2**18))) for n, s in sizes.items()}
    )
    error = memory.no_room(
        model, [model["small"], model["middle"]], "CUDA: full\nmore", "in step 7"
    )
    said = str(error)
    assert "large (8 MiB), middle (4 MiB), small (1 MiB)." in said
    assert "least (" not in said
    for part in ("in step 7", "(CUDA: full)", f"{13.5:.0f} MiB", f"{3 * 5} MiB"):
        assert part in said
    assert "more" not in said
    assert error.exit_code == 5


def optimizing(model):
    return optimizer.build(
        optimizer.groups(dict(model.named_parameters()), optimizer.Config(), {}), optimizer.Config()
    )


def test_other_groups_keep_the_state_of_what_is_in_both_and_forget_the_rest():
    model, other = linear(), nn.Parameter(torch.ones(3))
    made = optimizing(model)
    model(torch.ones(2)).sum().backward()
    made.step()
    kept = made.state[model.weight]
    groups = optimizer.groups({"weight": model.weight, "other": other}, optimizer.Config(), {})
    optimizer.replace_groups(made, groups)
    assert list(made.state) == [model.weight]
    assert made.state[model.weight] is kept
    assert [(group["names"], group["rate"]) for group in made.param_groups] == [
        (["weight", "other"], 1.0)
    ]
    assert set(optimizer.state(made)) == {"weight"}


def test_a_state_goes_to_its_parameters_and_counters_stay_where_they_are():
    model = linear()
    made, placed = optimizing(model), []

    def place(parameter, value):
        placed.append(tuple(value.shape))
        return value.to(parameter.device) + 1

    saved = {
        "weight": {"step": torch.tensor(3.0), "exp_avg": torch.zeros(1, 2), "kind": "text"},
        "of another": {"step": torch.tensor(3.0)},
    }
    optimizer.load_state(made, saved, place)
    assert placed == [(1, 2)]
    assert set(made.state) == {model.weight}
    found = made.state[model.weight]
    assert (found["step"].item(), found["exp_avg"].tolist(), found["kind"]) == (
        3.0,
        [[1.0, 1.0]],
        "text",
    )


def test_arguments_of_the_run_file_reach_the_optimizer():
    settings = optimizer.Config(name="adam", arguments={"betas": [0.5, 0.75], "eps": 0.25})
    made = optimizer.build([{"params": [nn.Parameter(torch.ones(1))]}], settings)
    assert type(made) is torch.optim.Adam
    assert (made.defaults["betas"], made.defaults["eps"]) == ((0.5, 0.75), 0.25)
    assert made.param_groups[0]["lr"] < 1e-6  # until the loop says which
