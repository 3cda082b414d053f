"""The promises of every task kind, over all registered names, on the tiny backbone.

A kind brings the data in its module: `example(folder: Path) -> Config` writes a few rows (eight train
rows at least, of which no two are alike, and some of another split) and returns the section that reads them.
A kind that works in further forms brings `FORMS`, a function like `example` for each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from graftlab import registry
from graftlab.backbones import tiny
from graftlab.config import Paths, Section
from graftlab.contracts import (
    OF_VECTORS,
    Backbone,
    Data,
    Problem,
    Setting,
    Task,
    TaskKind,
    as_writer,
)
from graftlab.data import kept_arrays
from graftlab.errors import ConfigError
from graftlab.runfile import measures
from graftlab.testing import examples

FORMS = {
    name: {"": module.example, **module.FORMS, **examples.FORMS.get(name, {})}
    for name in registry.names("tasks")
    for module in [registry.find("tasks", name)]
}
every = pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, id=f"{name}-{form}".strip("-"))
        for name in registry.names("tasks")
        for form in FORMS[name]
    ],
)
SEED = 3


@dataclass(frozen=True)
class Example:
    """A kind's example, read and bound."""

    module: TaskKind
    config: Section
    data: Data
    backbone: Backbone
    task: Task

    def bound(self, data: Data | None = None, seed: int = SEED) -> Task:
        return self.module.bind(data or self.data, self.backbone, self.config, seed)


@pytest.fixture
def example(name: str, form: str, tmp_path: Path) -> Example:
    """Return the kind's example of that form, read and bound."""
    module = registry.find("tasks", name)
    if "tiny" not in module.BACKBONES:
        pytest.skip(f"{name} does not fit the tiny backbone")
    config = FORMS[name][form](tmp_path)
    data = module.read(config, Paths(cache=tmp_path / "cache"), SEED)
    for modality in ("text", "images"):
        backbone = tiny.load(tiny.Config(modality=modality, dropout=0), data.problem, SEED)
        try:
            task = module.bind(data, backbone, config, SEED)
        except ConfigError as error:
            refusal = error
            continue
        if module.VECTORS:
            backbone = replace(backbone, model=_reading_vectors(backbone, task))
        return Example(module, config, data, backbone, task)
    raise refusal


def _reading_vectors(backbone: Backbone, task: Task) -> torch.nn.Module:
    """Return the backbone as a method that reads vectors makes it."""
    methods = (registry.find("methods", name) for name in registry.names("methods"))
    method = next(method for method in methods if method.PROMISES.reads_vectors)
    setting = Setting(SEED, 1, 1, task.problem, lambda: iter(()), vectors=task.record["vectors"])
    return method.attach(backbone, method.Config(), setting).model.eval()


def _everything(task: Task, split: str = "train") -> list[int]:
    return list(range(task.size(split)))


def _same(one: dict[str, Tensor], other: dict[str, Tensor], but: Sequence[str] = ()) -> None:
    assert set(one) == set(other)
    for name in set(one) - set(but):
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, msg=name)


def _with_labels(data: Data, change: Callable[[float, Problem], float | None]) -> Data:
    """Return the data with every row's label changed; `change` is given the row's problem too."""
    splits = {
        split: [{**row, "label": change(row["label"], data.problem.of(row))} for row in rows]
        for split, rows in data.splits.items()
    }
    return Data(splits, data.problem, data.record)


@every
def test_the_check_without_torch_finds_nothing_wrong_and_knows_the_problem(
    name: str, example: Example
) -> None:
    assert example.module.check(example.config) == []
    assert example.module.problem(example.config) == example.data.problem == example.task.problem


@every
def test_metrics_are_named_and_registered(name: str, example: Example) -> None:
    assert example.task.metrics
    assert isinstance(example.task.record, Mapping)
    own = set(example.task.metrics)
    if example.data.problem.parts:  # of several tasks: each one's metrics and loss, and their mean
        own = {name.rpartition("/")[2] for name in own} - {"mean", "loss"}
    assert own <= set(measures.names())


@every
def test_every_row_is_an_example_once_and_has_a_cost(name: str, example: Example) -> None:
    assert example.task.size("train") >= 7
    for split, rows in example.data.splits.items():
        assert example.task.size(split) == len(rows) == len(example.task.lengths(split))
        assert min(example.task.lengths(split), default=1) >= 1
        sources = [row["index"] for row in rows]
        assert sorted(set(sources)) == sorted(sources)
    assert example.task.size("no such split") == 0


@every
def test_what_an_example_asks_is_that_of_its_row(name: str, example: Example) -> None:
    """A mixture may put a task's name in front of a text; what an example is known by is no input."""
    for split, rows in example.data.splits.items():
        for index, row in enumerate(rows):
            asked = example.task.inputs(split, index)
            assert asked
            assert not asked.keys() & {"index", "label", "task"}
            of_row = {key: value for key, value in asked.items() if key not in OF_VECTORS}
            assert all(str(row[key]) in str(value) for key, value in of_row.items())


@every
def test_an_example_knows_its_row_of_the_source(name: str, example: Example) -> None:
    """In a mixture rows are numbered anew, and each task's source has its own."""
    for split, rows in example.data.splits.items():
        found = [example.task.source_row(split, index) for index in range(len(rows))]
        if not example.data.problem.parts:
            assert found == [row["index"] for row in rows]
        for part in {row.get("task") for row in rows}:
            own = [n for n, row in zip(found, rows, strict=True) if row.get("task") == part]
            assert own == sorted(set(own))
            assert not example.data.problem.parts or max(own) < len(own)


@every
@pytest.mark.parametrize("epoch", [None, 0, 5])
def test_a_batch_depends_on_split_rows_and_epoch_alone(
    name: str, example: Example, epoch: int | None
) -> None:
    rows = _everything(example.task)[::-2]
    expected = example.bound().batch("train", rows, epoch)
    for other in (0, None, 2):  # what was made before leaves no trace
        example.task.batch("train", _everything(example.task), other)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    _same(example.task.batch("train", rows, epoch), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert {tensor.device.type for tensor in expected.values()} == {"cpu"}
    assert {len(tensor) for tensor in expected.values()} == {len(rows)}


@every
def test_kept_tokens_are_those_that_are_made(name: str, example: Example, tmp_path: Path) -> None:
    with kept_arrays.kept_in(tmp_path / "kept", least=0):
        for task in (example.bound(), example.bound()):  # keeps them, and reads them
            assert task.record == example.task.record
            for split, epoch in (("train", 0), ("train", None), ("validation", None)):
                if rows := _everything(task, split):
                    _same(task.batch(split, rows, epoch), example.task.batch(split, rows, epoch))
                    assert task.lengths(split) == example.task.lengths(split)


@every
def test_evaluation_draws_nothing(name: str, example: Example) -> None:
    rows = _everything(example.task)
    _same(
        example.task.batch("train", rows, None),
        example.bound(seed=SEED + 1).batch("train", rows, None),
    )


@every
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_batch_is_the_sum_over_any_cut_of_it(
    name: str, example: Example, smoothing: float
) -> None:
    task, model = example.task, example.backbone.model
    rows = _everything(task)
    whole = task.batch("train", rows, None)
    parts = [task.batch("train", part, None) for part in (rows[4:], rows[:1], rows[1:4])]
    assert task.count(whole) == sum(map(task.count, parts)) > 0
    total = task.loss(model, whole, smoothing)
    cut = sum(task.loss(model, part, smoothing) for part in parts)
    # Other padding, other sums: float32 rounding through two layers
    torch.testing.assert_close(cut, total, rtol=1e-4, atol=1e-5)
    assert total.dtype == torch.float32
    assert total.shape == ()
    assert total.requires_grad


@every
def test_predictions_agree_with_the_loss_and_with_the_rows(name: str, example: Example) -> None:
    task, model = example.task, example.backbone.model
    rows = _everything(task)[::-1]
    batch = task.batch("train", rows, None)
    with torch.no_grad():
        predictions, loss = task.predict(model, batch), task.loss(model, batch).item()
    assert len(predictions) == len(rows)
    assert sum(row["loss"] for row in predictions) == pytest.approx(loss, rel=1e-5)
    if task.problem.kind != "tokens":
        labels = [example.data.splits["train"][i]["label"] for i in rows]
        assert [row["label"] for row in predictions] == pytest.approx(labels)
    for row in predictions if task.problem.kind == "classes" else ():
        shares = row["probabilities"]
        assert len(shares) == task.problem.of(row).num_outputs
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares[row["prediction"]] == max(shares)


@every
def test_labels_stand_in_no_input(name: str, example: Example) -> None:
    problem = example.data.problem
    if problem.kind == "tokens":
        pytest.skip("what is generated is read by the model in training")
    classes = problem.kind == "classes"
    other = _with_labels(
        example.data, lambda y, own: (y + 1) % own.num_outputs if classes else y + 1
    )
    rows = _everything(example.task)
    batch, changed = (t.batch("train", rows, None) for t in (example.task, example.bound(other)))
    _same(batch, changed, but=["labels"])
    assert not torch.equal(batch["labels"], changed["labels"])
    with torch.no_grad():
        predicted, again = (
            example.task.predict(example.backbone.model, b) for b in (batch, changed)
        )
    assert [p["prediction"] for p in predicted] == [p["prediction"] for p in again]


@every
def test_a_row_without_a_label_is_predicted_and_has_no_loss(name: str, example: Example) -> None:
    """Rows of train have labels: it is the others that may lack them. A chat is then a question alone."""
    bare = _with_labels(example.data, lambda *_: None).splits
    asked = {
        split: [
            {**row, "messages": row["messages"][:1]} if row.get("messages") else row for row in rows
        ]
        for split, rows in bare.items()
    }
    without = asked | {"train": example.data.splits["train"]}
    task = example.bound(Data(without, example.data.problem, example.data.record))
    split = next(split for split in ("validation", "test") if task.size(split))
    everything = _everything(task, split)
    with torch.no_grad():
        batch = task.batch(split, everything, None)
        predictions = task.predict(example.backbone.model, batch)
    assert {row["label"] for row in predictions} == {row["loss"] for row in predictions} == {None}
    if writer := as_writer(task):  # texts are not predicted but written
        written = writer.complete(example.backbone.model, split, everything)
        predictions = [row | more for row, more in zip(predictions, written, strict=True)]
    assert None not in {row["prediction"] for row in predictions}
