"""Several tasks in one: how often each is drawn, whose logits count, what is refused and where it stands."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftlab import config, runfile
from graftlab.backbones import tiny
from graftlab.config import Paths
from graftlab.errors import ConfigError, DataError, GraftlabError
from graftlab.runs import evaluation
from graftlab.tasks import mixture
from graftlab.tasks.mixture.draws import epoch_draws, quotas, shares
from graftlab.testing import examples
from graftlab.training.order import Order

SIZES = (900, 300, 60)


# Sampling

CLOSED = {  # p_i of each sampler, worked out by hand for sizes 900, 300, 60
    ("uniform", 2.0, None): (1 / 3, 1 / 3, 1 / 3),
    ("proportional", 2.0, None): (900 / 1260, 300 / 1260, 60 / 1260),
    ("temperature", 1.0, None): (900 / 1260, 300 / 1260, 60 / 1260),
    ("temperature", 2.0, None): tuple(
        math.sqrt(n) / (math.sqrt(900) + math.sqrt(300) + math.sqrt(60)) for n in SIZES
    ),
    ("uniform", 2.0, (2.0, 1.0, 1.0)): (0.5, 0.25, 0.25),
}


@pytest.mark.parametrize("how", CLOSED, ids=str)
def test_tasks_are_drawn_as_often_as_the_closed_form_says(how):
    expected = np.array(CLOSED[how])
    found = shares(SIZES, *how)
    assert found == pytest.approx(expected)
    quota = quotas(found, sum(SIZES))
    assert sum(quota) == sum(SIZES)
    assert np.abs(np.array(quota) - expected * sum(SIZES)).max() < 1
    task_of = np.repeat(range(3), SIZES)
    drawn = task_of[epoch_draws(SIZES, quota, seed=5, epoch=3)]
    assert np.bincount(drawn, minlength=3).tolist() == quota
    # in any part of an epoch too: Pearson's chi-square against the 99.9 % point of 2 degrees, 13.8;
    # draws without replacement vary less than the multinomial it is for
    for part in np.split(drawn, [200, 400, 800]):
        counts = np.bincount(part, minlength=3)
        assert ((counts - len(part) * expected) ** 2 / (len(part) * expected)).sum() < 13.8


def test_proportional_is_every_example_once():
    drawn = epoch_draws(SIZES, quotas(shares(SIZES, "proportional", 1, None), 1260), 0, 4)
    assert sorted(drawn) == list(range(1260))


def test_no_example_comes_again_before_all_others_of_its_task_across_epochs():
    quota = (40, 40, 40)
    runs = [epoch_draws((50, 60, 10), quota, 1, epoch) for epoch in range(5)]
    for first, size in ((0, 50), (50, 60), (110, 10)):
        counts = Counter(int(i) for drawn in runs for i in drawn if first <= i < first + size)
        assert max(counts.values()) - min(counts[i] for i in range(first, first + size)) <= 1
    again = epoch_draws((50, 60, 10), quota, 1, 3)
    assert again.tolist() == runs[3].tolist()
    assert again.tolist() != epoch_draws((50, 60, 10), quota, 2, 3).tolist()


class Drawn:
    """As much of a mixture as an order reads."""

    def __init__(self):
        draw = np.random.default_rng(0)
        self._lengths = np.concatenate([draw.integers(5, 20, 900), draw.integers(50, 100, 360)])
        self.quotas = quotas((0.5, 0.5), 1260)

    def lengths(self, split):
        return self._lengths

    def parts(self, split):
        return np.repeat([0, 1], [900, 360])

    def draws(self, seed, epoch):
        return epoch_draws((900, 360), self.quotas, seed, epoch)


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("world", [1, 3])
def test_a_micro_batch_is_of_one_task_and_none_is_lost(group, world):
    task = Drawn()
    order = Order.of(task, 32, 7, group)
    seen: Counter = Counter()
    for step in range(1, order.steps_per_epoch + 1):
        pieces = [p for rank in range(world) for p in order.micro_batches(step, 8, rank, world)]
        assert all(
            len(set(task.parts("train")[piece])) == 1 and len(piece) <= 8 for piece in pieces
        )
        assert sorted(i for piece in pieces for i in piece) == sorted(order.batch(step))
        if world == 1:  # as few as there can be
            counts = np.bincount(task.parts("train")[order.batch(step)])
            assert len(pieces) == sum(-(-count // 8) for count in counts)
        seen.update(order.batch(step))
    assert seen == Counter(task.draws(7, 0).tolist())
    assert order.batch(40) == Order.of(task, 32, 7, group).batch(40)


def test_grouping_by_length_leaves_each_batch_its_share_of_tasks_and_pads_less():
    task = Drawn()
    plain, grouped = (Order.of(task, 32, 7, group) for group in (False, True))

    def padded(order):
        steps = range(1, order.steps_per_epoch + 1)
        pieces = [p for step in steps for p in order.micro_batches(step, 32)]
        return sum(len(p) * task.lengths("train")[p].max() for p in pieces)

    for step in range(1, plain.steps_per_epoch + 1):
        counts = [Counter(task.parts("train")[o.batch(step)].tolist()) for o in (plain, grouped)]
        assert counts[0] == counts[1]
    assert padded(grouped) < 0.9 * padded(plain)


# Heads


HEADS = {
    "shared_masked": mixture.example,
    "shared": examples.with_head("shared"),
    "per_task": examples.with_head("per_task"),
}


@pytest.fixture(params=HEADS)
def bound(request, tmp_path):
    section = HEADS[request.param](tmp_path)
    data = mixture.read(section, Paths(cache=tmp_path), 0)
    backbone = tiny.load(tiny.Config(dropout=0, max_length=64), data.problem, 0)
    return request.param, mixture.bind(data, backbone, section, 0), backbone.model


class Fixed(torch.nn.Module):
    """A model that answers all with the same logits, which train."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, input_ids, **_):
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.logits.expand(len(input_ids), -1))


def everything(task):
    return task.batch("train", range(task.size("train")), None)


def test_a_label_that_a_task_does_not_have_is_never_predicted(tmp_path):
    section = mixture.example(tmp_path)  # mood has 2 labels, size 3
    data = mixture.read(section, Paths(cache=tmp_path), 0)
    backbone = tiny.load(tiny.Config(dropout=0, max_length=64), data.problem, 0)
    task = mixture.bind(data, backbone, section, 0)
    model = Fixed([0.5, 0.0, 9.0])  # the third label, which mood lacks, is by far the best
    rows = task.predict(model, everything(task))
    assert {row["prediction"] for row in rows if row["task"] == "mood"} == {0}
    assert {row["prediction"] for row in rows if row["task"] == "size"} == {2}
    assert {len(row["probabilities"]) for row in rows if row["task"] == "mood"} == {2}
    masked = torch.tensor([0.5, 0.0, -math.inf])
    for row in rows:
        if row["task"] == "mood":
            expected = F.cross_entropy(masked, torch.tensor(row["label"])).item()
            assert row["loss"] == pytest.approx(expected, rel=1e-6)


def test_smoothing_spreads_over_the_tasks_own_labels_alone(tmp_path):
    """Over all labels, the masked ones would make the loss infinite."""
    section = mixture.example(tmp_path)
    data = mixture.read(section, Paths(cache=tmp_path), 0)
    task = mixture.bind(data, tiny.load(tiny.Config(), data.problem, 0), section, 0)
    batch = task.batch("train", [0, 1], None)
    model = Fixed([0.5, 0.0, 9.0])
    own, labels = torch.tensor([[0.5, 0.0]] * 2), batch["labels"]
    expected = F.cross_entropy(own, labels, reduction="sum", label_smoothing=0.2)
    assert task.loss(model, batch, 0.2).item() == pytest.approx(expected.item())


def test_a_shared_head_may_answer_with_a_label_of_another_task(tmp_path):
    section = examples.with_head("shared")(tmp_path)
    data = mixture.read(section, Paths(cache=tmp_path), 0)
    task = mixture.bind(data, tiny.load(tiny.Config(), data.problem, 0), section, 0)
    rows = task.predict(Fixed([0.5, 0.0, 9.0]), everything(task))
    assert {row["prediction"] for row in rows} == {2}
    assert data.problem.labels == ("mood: no | size: big", "mood: yes | size: small", "size: tiny")
    assert dict(data.problem.parts)["mood"].labels == ("no", "yes", "size: tiny")


def test_heads_of_their_own_are_as_separate_heads_of_the_same_weights(tmp_path):
    section = examples.with_head("per_task")(tmp_path)
    data = mixture.read(section, Paths(cache=tmp_path), 0)
    assert data.problem.labels[:3] == ("mood: no", "mood: yes", "size: big")
    backbone = tiny.load(tiny.Config(dropout=0, max_length=64), data.problem, 0)
    task = mixture.bind(data, backbone, section, 0)
    head = backbone.model.get_submodule(backbone.head[0])
    whole = everything(task)
    task.loss(backbone.model, whole).backward()
    gradient = head.weight.grad.clone()
    losses = [row["loss"] for row in task.predict(backbone.model, whole)]
    for name, rows in (("mood", slice(0, 2)), ("size", slice(2, 5))):
        part = section.parts[name]
        own = part.module.read(part.config, Paths(cache=tmp_path), 0)
        alone = tiny.load(tiny.Config(dropout=0, max_length=64), own.problem, 0)
        values = {
            k: v[rows] if k.startswith(backbone.head[0]) else v
            for k, v in backbone.model.state_dict().items()
        }
        alone.model.load_state_dict(values)
        single = part.module.bind(own, alone, part.config, 0)
        batch = single.batch("train", range(6), None)
        single.loss(alone.model, batch).backward()
        found = [row["loss"] for row in single.predict(alone.model, batch)]
        mine = slice(0, 6) if name == "mood" else slice(6, 12)
        assert losses[mine] == pytest.approx(found, rel=1e-5)
        torch.testing.assert_close(
            alone.model.get_submodule(alone.head[0]).weight.grad,
            gradient[rows],
            rtol=1e-4,
            atol=1e-6,
        )


def test_batches_of_one_task_and_of_several_come_to_the_same(bound):
    _, task, model = bound
    whole = everything(task)
    each = [task.batch("train", [i], None) for i in range(task.size("train"))]
    assert sum(k.startswith("task/") for k in whole) == 2
    rows = task.predict(model, whole)
    one_by_one = [task.predict(model, batch)[0] for batch in each]
    assert [row["loss"] for row in rows] == pytest.approx([r["loss"] for r in one_by_one], rel=1e-4)
    assert [row["task"] for row in rows] == ["mood"] * 6 + ["size"] * 6


def test_texts_say_their_task_where_the_head_is_masked(tmp_path):
    lengths = {}
    for form in ("shared_masked", "per_task"):
        section = HEADS[form](tmp_path)
        data = mixture.read(section, Paths(cache=tmp_path), 0)
        backbone = tiny.load(tiny.Config(max_length=64), data.problem, 0)
        lengths[form] = np.array(mixture.bind(data, backbone, section, 0).lengths("train"))
    # `mood: ` is 6 bytes; longest texts are cut at 40
    assert (lengths["shared_masked"] - lengths["per_task"])[0] == 6


# Scores


def prediction(task, label, said):
    return {"task": task, "label": label, "prediction": said, "loss": 1.0}


def test_the_mean_is_of_each_tasks_first_metric():
    rows = [prediction("a", 0, 0)] * 4 + [prediction("b", 1, 1)] + [prediction("b", 0, 1)] * 3
    names = ("mean", "a/accuracy", "a/loss", "b/accuracy", "b/macro_f1")
    found = evaluation.score(rows, names)
    assert list(found) == list(names)
    assert found["a/accuracy"].value == 1
    assert found["b/accuracy"].value == 0.25
    assert found["mean"].value == 0.625
    # se of b: sqrt(.25 * .75 / 4); of a: 0; of their mean: half of the root of the sum of squares
    assert found["mean"].standard_error == pytest.approx(math.sqrt(0.25 * 0.75 / 4) / 2)
    assert found["a/loss"].value == 1.0


def test_a_mean_of_metrics_that_point_in_two_directions_is_none():
    names = ("mean", "a/accuracy", "b/loss")
    found = evaluation.score([prediction(t, 0, 0) for t in "ab"], names)
    assert found["mean"].value is None
    with pytest.raises(ConfigError, match="some are better high and some low"):
        evaluation.higher_is_better("mean", names)
    assert evaluation.higher_is_better("a/accuracy", names)
    assert not evaluation.higher_is_better("b/loss", names)


# Run files


def run_file(folder: Path, task: str) -> Path:
    for name, labels in (("one", "ab"), ("two", "xyz")):
        (folder / name).mkdir(exist_ok=True)
        for split, count in (("train", 12), ("validation", 6), ("test", 6)):
            lines = [f"{split} {name} {i},{labels[i % len(labels)]}" for i in range(count)]
            (folder / name / f"{split}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    path = folder / "run.yaml"
    path.write_text(
        f"backbone: {{kind: tiny}}\nmethod: {{name: full}}\ntask:\n  kind: mixture\n{task}\n"
    )
    return path


TWO = """  data_dir: {folder}
  each: {{kind: classification, max_length: 20}}
  tasks:
    - {{as: one}}
    - {{as: two, max_length: 24}}"""


def test_each_task_is_resolved_whole_and_read_back_the_same(tmp_path):
    file = runfile.resolve(config.read(run_file(tmp_path, TWO.format(folder=tmp_path))))
    assert list(file.task.parts) == ["one", "two"]
    one, two = file.resolved["task"]["tasks"]
    assert (one["as"], one["kind"], one["max_length"], two["max_length"]) == (
        "one",
        "classification",
        20,
        24,
    )
    assert one["data_dir"] == str(tmp_path / "one")
    again = tmp_path / "config.yaml"
    again.write_text(config.dump(file.resolved))
    assert runfile.resolve(config.read(again)).resolved == file.resolved


TASKS = "  tasks: [{name: sst2}, "
WRONG = [
    ("  tasks: [{name: sst2}]", "task.tasks"),
    ("  tasks:\n    - {name: sst2}\n    - {name: sst}", r"run.yaml:7:8: task.tasks.1.name: .*sst2"),
    (TASKS + "{name: sst2}]", "two tasks are named 'sst2'"),
    (
        "  tasks:\n    - {name: sst2}\n    - {name: mnli, max_len: 9}",
        r":7:20: unknown key in task.tasks.1",
    ),
    ("  each: {max_len: 9}\n" + TASKS + "{name: mnli}]", r":5:10: unknown key in task.tasks.0"),
    (TASKS + "{name: stsb}]", "a mixture has no regression"),
    (TASKS + "{name: gsm8k}]", "classes all or of tokens all"),
    (
        "  head: shared\n  tasks: [{name: gsm8k}, {name: dialogsum}]",
        "task.head: is for tasks with classes",
    ),
    ("  head: shared\n  tasks: [{name: qqp}, {name: mnli}]", "binary_f1 is for 2 classes"),
    ("  weights: [1]\n" + TASKS + "{name: mnli}]", "one number a task"),
    ("  weights: [1, 0]\n" + TASKS + "{name: mnli}]", "above 0"),
    (TASKS + "{as: m, kind: mixture, tasks: []}]", "a mixture is no part of another"),
    (TASKS + "{name: mnli, as: a/b}]", "'a/b' is no name"),
    (TASKS + "{name: mnli, metrics: [acuracy]}]", "task.tasks.1.metrics.0: .*accuracy"),
    (TASKS + "{name: mnli}]\ntraining: {best_by: accuracy}", "Did you mean .*/accuracy"),
    (TASKS + "{kind: images, as: i, data_dir: .}]", "task.tasks.1: "),
]


@pytest.mark.parametrize(("task", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_said_with_its_place(tmp_path, monkeypatch, task, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GraftlabError, match=words):
        runfile.resolve(config.read(run_file(tmp_path, task)))


def test_files_of_a_task_are_checked_at_their_place(tmp_path):
    path = run_file(tmp_path, TWO.format(folder=tmp_path))
    (tmp_path / "two" / "train.csv").write_text("txt,label\na,b\n")
    with pytest.raises(DataError, match=r"run.yaml:.*task.tasks.1:.*'text'.*'txt'"):
        runfile.resolve(config.read(path))
