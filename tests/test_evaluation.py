"""Predictions of a split: complete, in order, and without a trace on the model or its randomness."""

import json
import logging
import math
import random

import numpy as np
import pytest
import torch
from finished_runs import finish
from torch import nn
from typer.testing import CliRunner

from graftlab import cli
from graftlab.errors import DataError, OutOfMemory
from graftlab.rundir.run import Run
from graftlab.runs import prediction
from graftlab.runs.evaluation import mean_loss, score
from graftlab.runs.evaluator import Evaluator
from graftlab.seeds import mix

LENGTHS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("run"), {"name": "lora", "rank": 2})


class Parity(nn.Module):
    """Tells odd from even inputs, with a random error and a part that is frozen in eval mode."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(1).eval()

    def forward(self, numbers_N):
        torch.rand(3)  # a model may draw even in eval mode
        return self.dropout(self.weight * numbers_N)


class Counting:
    """A task whose example i is the number i; `room` examples fit into memory."""

    def __init__(self, room=100):
        self.room = room
        self.batches = []

    def lengths(self, split):
        return LENGTHS if split == "test" else []

    def batch(self, split, indices, epoch):
        assert epoch is None
        self.batches.append(list(indices))
        return {"numbers": torch.tensor(indices, dtype=torch.float32)}

    def predict(self, model, batch):
        assert not model.training
        outputs_N = model(batch["numbers"])
        assert not outputs_N.requires_grad
        if len(outputs_N) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.14 GiB.")
        return [
            {"label": int(x) % 2, "prediction": 1, "probabilities": [0.0, 1.0], "loss": x / 2}
            for x in outputs_N.tolist()
        ]


def test_every_example_is_predicted_once_and_in_the_order_of_the_split():
    predictions = prediction.predict(Parity(), Counting(), "test", 4)
    assert [row["index"] for row in predictions] == list(range(len(LENGTHS)))
    assert [row["loss"] for row in predictions] == [i / 2 for i in range(len(LENGTHS))]
    assert list(predictions[0]) == ["index", "label", "prediction", "probabilities", "loss"]


def test_batches_hold_examples_of_like_length():
    task = Counting()
    prediction.predict(Parity(), task, "test", 4)
    lengths = [[LENGTHS[i] for i in batch] for batch in task.batches]
    assert lengths == [[9, 6, 5, 5], [5, 4, 3, 3], [2, 1, 1]]


def test_num_rows_takes_the_first_rows():
    predictions = prediction.predict(Parity(), Counting(), "test", 4, only=range(3))
    assert [row["index"] for row in predictions] == [0, 1, 2]


def test_an_empty_split_has_no_predictions():
    assert prediction.predict(Parity(), Counting(), "validation", 4) == []


def test_what_takes_long_is_told_unless_it_is_to_be_quiet(monkeypatch, capsys):
    monkeypatch.setattr("graftlab.terminal.Pace.EVERY_S", 10.0)
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    prediction.predict(Parity(), Counting(), "test", 4)
    assert capsys.readouterr() == ("", "")
    prediction.predict(Parity(), Counting(), "test", 4, quiet=False)
    out, told = capsys.readouterr()
    assert out == ""
    assert [line.partition(",")[0] for line in told.splitlines()] == [
        "8 of 11 examples of test", "11 of 11 examples of test",
    ]  # fmt: skip


def test_what_is_short_is_not_told(capsys):
    prediction.predict(Parity(), Counting(), "test", 4, quiet=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words",
    [["evaluate"], ["predict", "--input", "a text"], ["evaluate", "--forgetting", "general"]],
)
def test_commands_tell_how_far_they_are_with_predictions(words, finished, monkeypatch):
    monkeypatch.setattr("graftlab.terminal.Pace.EVERY_S", 0.0)
    said = CliRunner().invoke(cli.app, [words[0], str(finished.path), *words[1:]])
    assert said.exit_code == 0, said.output
    assert "second," in said.stderr.split()
    assert "second," not in said.stdout.split()


def test_a_run_tells_how_far_it_is_with_predictions(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("graftlab.terminal.Pace.EVERY_S", 0.0)
    finish(tmp_path, {"name": "lora", "rank": 2})
    told = capsys.readouterr().err
    assert {"validation,", "test,"} <= set(told.split())


def test_every_module_is_back_in_the_mode_it_had():
    model = Parity().train()
    model.frozen.eval()
    prediction.predict(model, Counting(), "test", 4)
    assert [m.training for m in (model, model.dropout, model.frozen)] == [True, True, False]


def test_the_mode_is_back_after_an_error_too():
    model = Parity()
    with pytest.raises(IndexError):
        prediction.predict(model, Failing(), "test", 4)
    assert model.training


class Failing(Counting):
    def predict(self, model, batch):
        raise IndexError


def test_randomness_goes_on_as_if_nothing_had_been_evaluated():
    def draws(evaluate):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        if evaluate:
            prediction.predict(Parity(), Counting(), "test", 4)
        return torch.rand(2).tolist(), random.random(), np.random.rand()

    assert draws(evaluate=True) == draws(evaluate=False)


def test_the_model_can_still_be_trained_on_what_it_cached_in_evaluation():
    class Caching(Parity):
        def forward(self, numbers_N):
            if not hasattr(self, "table"):
                self.table = torch.ones(1)
            return self.weight * self.table * numbers_N

    model = Caching()
    prediction.predict(model, Counting(), "test", 4)
    model(torch.ones(1)).sum().backward()
    assert model.weight.grad == 1


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_and_loses_no_example(caplog):
    task = Counting(room=3)
    with caplog.at_level(logging.WARNING, "graftlab"):
        predictions = prediction.predict(Parity(), task, "test", 8)
    assert [row["index"] for row in predictions] == list(range(len(LENGTHS)))
    assert [len(batch) for batch in task.batches] == [8, 4, 2, 2, 2, 2, 2, 1]
    assert [record.args for record in caplog.records] == [(4,), (2,)]


@pytest.mark.slow
def test_one_example_that_does_not_fit_is_named():
    with pytest.raises(OutOfMemory, match=r"example 5.*test \(length 9\)"):
        prediction.predict(Parity(), Counting(room=0), "test", 4)


def test_other_errors_of_the_model_are_not_taken_for_memory():
    class Broken(Counting):
        def predict(self, model, batch):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        prediction.predict(Parity(), Broken(), "test", 4)


def test_scores_are_those_of_the_named_metrics():
    predictions = prediction.predict(Parity(), Counting(), "test", 4)
    found = score(predictions, ["accuracy", "macro_f1"])
    assert list(found) == ["accuracy", "macro_f1"]
    assert found["accuracy"].value == 5 / 11  # 1, 3, 5, 7, 9 of 0..10


def test_mean_loss_is_over_the_examples_with_a_label():
    assert mean_loss([{"loss": 1.0}, {"loss": None}, {"loss": 2.0}]) == 1.5
    assert mean_loss([{"loss": None}]) is None
    assert mean_loss([]) is None
    assert math.isnan(mean_loss([{"loss": math.nan}, {"loss": 1.0}]))


def test_predictions_are_read_back_equal(tmp_path):
    draws = torch.Generator().manual_seed(mix(0, "predictions"))
    wide = torch.randn(3, 1000, generator=draws).softmax(-1)
    rows = [
        {
            "index": i,
            "label": None if i else "positive \u2713",
            "prediction": 0.1 + i,
            "probabilities": wide[i].tolist(),
            "loss": 1e-45 * i,
        }
        for i in range(3)
    ]
    path = tmp_path / "predictions" / "test.jsonl"
    prediction.write(path, rows)
    assert prediction.read(path) == rows
    again = torch.tensor([row["probabilities"] for row in prediction.read(path)])
    assert torch.equal(again, wide)
    assert [p.name for p in path.parent.iterdir()] == ["test.jsonl"]


def test_what_is_not_finite_is_read_back_too(tmp_path):
    prediction.write(
        tmp_path / "a.jsonl", [{"prediction": 0, "loss": v} for v in (math.inf, math.nan)]
    )
    first, second = prediction.read(tmp_path / "a.jsonl")
    assert first["loss"] == math.inf
    assert math.isnan(second["loss"])


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "test.jsonl"
    prediction.write(path, [{"prediction": 0}])
    with pytest.raises(TypeError):
        prediction.write(path, [{"prediction": 1}, {"prediction": object()}])
    assert prediction.read(path) == [{"prediction": 0}]
    assert [p.name for p in tmp_path.iterdir()] == ["test.jsonl"]


@pytest.mark.parametrize("line", ['{"index": 1, "lab', "7", ""])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "test.jsonl"
    path.write_text(
        json.dumps({"index": 0, "prediction": 1}) + "\n" + line + "\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"test\.jsonl:2: "):
        prediction.read(path)


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(DataError, match="graftlab evaluate"):
        prediction.read(tmp_path / "test.jsonl")


class Validating(Counting):
    metrics = ("accuracy",)

    def lengths(self, split):
        return LENGTHS

    def inputs(self, split, index):
        return {}


@pytest.mark.parametrize("name", ["weight", "frozen.running_mean"])
def test_validation_is_predicted_once_by_the_same_weights_and_anew_by_others(tmp_path, name):
    from graftlab.training import devices
    from graftlab.training.parallel.processes import Processes
    from graftlab.training.signals import Signals

    task, model, run = Validating(), Parity(), Run(tmp_path)
    evaluator = Evaluator(task, 4, devices.accelerator("fp32"), Signals(), Processes())
    validated = evaluator.validate(model)
    batches = list(task.batches)
    scores = evaluator.record(model, "validation", run.predictions("validation"))
    assert task.batches == batches
    assert scores["accuracy"]["value"] == validated["accuracy"]
    assert prediction.read(run.predictions("validation"))[5]["loss"] == 2.5
    with torch.no_grad():
        model.state_dict()[name].add_(1)
    evaluator.record(model, "validation", run.predictions("validation"))
    assert task.batches == [*batches, *batches]
    expected = 5.0 if name == "weight" else 2.5
    assert prediction.read(run.predictions("validation"))[5]["loss"] == expected
    evaluator.record(model, "test", run.predictions("test"))
    assert len(task.batches) == 3 * len(batches)
