"""Tables of gradients while a run trains, held against what autograd gives for each task alone."""

import math

import numpy as np
import pytest
import tiny_runs
import torch
from forked import together
from plain_loops import Halves, Squares, begun, fields, linear, train

from graftlab import config, runfile
from graftlab.contracts import Problem, Setting
from graftlab.errors import ConfigError
from graftlab.hooks import analysis
from graftlab.rundir.lines import read_lines
from graftlab.runs import session
from graftlab.testing.resume import OPTIONS, in_child, killed_after
from graftlab.training import checkpoint

ROWS = 13


def hook(every=1, kinds=("gradients", "conflicts")):
    return analysis.Analysis(every, kinds)


def tables(run):
    return [read_lines(run.recorded(kind)) for kind in ("gradients", "conflicts")]


def by_autograd():
    """Return the gradient at the start of the loss of the even rows and of the odd ones."""
    model, rows = linear(), Halves(ROWS).data
    return [
        torch.autograd.grad(model(part).square().sum() / ROWS, model.parameters())
        for part in (rows[::2], rows[1::2])
    ]


@pytest.mark.parametrize("micro_batch_size", [2, ROWS])
def test_cosines_and_norms_are_those_of_each_tasks_own_gradient(tmp_path, micro_batch_size):
    settings = fields(batch_size=ROWS, micro_batch_size=micro_batch_size, max_steps=2)
    _, run = train(tmp_path / "run", settings, Halves(ROWS), (hook(),))
    found = {line["layer"]: line for line in tables(run)[1] if line["step"] == 1}
    even, odd = by_autograd()
    places = {"weight": [0], "bias": [1], "global": [0, 1]}
    assert list(found) == list(places)
    for layer, own in places.items():
        one, other = (torch.cat([g[n].flatten() for n in own]) for g in (even, odd))
        line = found[layer]
        assert (line["task"], line["other_task"]) == ("even", "odd")
        cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).item()
        assert line["cosine"] == pytest.approx(cosine, abs=1e-6)
        sizes = [one.norm().item(), other.norm().item()]
        assert [line["norm"], line["other_norm"]] == pytest.approx(sizes, rel=1e-5)


def test_a_weights_line_is_of_the_whole_batchs_gradient_before_clipping(tmp_path):
    settings = fields(batch_size=ROWS, micro_batch_size=2, max_steps=2, clip_norm=1e-3)
    _, run = train(tmp_path / "run", settings, Halves(ROWS), (hook(),))
    found = {line["param"]: line for line in tables(run)[0] if line["step"] == 1}
    whole = [(a + b).numpy().ravel() for a, b in zip(*by_autograd(), strict=True)]
    expected = {"weight": whole[0], "bias": whole[1], "global": np.concatenate(whole)}
    for name, values in expected.items():
        line = found[name]
        assert line["mean"] == pytest.approx(np.abs(values).mean(), rel=1e-5)
        assert line["norm"] == pytest.approx(np.linalg.norm(values), rel=1e-5)
        assert line["std"] == pytest.approx(values.std(), rel=1e-4, abs=1e-9)
        assert (line["numel"], line["sparsity"]) == (len(values), 0.0)
    assert found["global"]["layer_type"] == "global"


def test_two_processes_write_what_one_does(tmp_path):
    settings = fields(batch_size=ROWS, micro_batch_size=2, max_steps=3)
    _, one = train(tmp_path / "one", settings, Halves(ROWS), (hook(),))

    def work(processes):
        train(tmp_path / "two", settings, Halves(ROWS), (hook(),), processes=processes)

    together(tmp_path / "store", work)
    for ours, theirs in zip(tables(type(one)(tmp_path / "two")), tables(one), strict=True):
        assert len(ours) == len(theirs) > 0
        for line, other in zip(ours, theirs, strict=True):
            assert list(line) == list(other)
            for value, expected in zip(line.values(), other.values(), strict=True):
                number = isinstance(expected, float)
                assert value == (
                    pytest.approx(expected, rel=1e-4, abs=1e-6) if number else expected
                )


def test_measured_are_every_so_many_steps_and_the_last_and_training_stays_as_it_is(tmp_path):
    settings = fields(batch_size=ROWS, micro_batch_size=2, max_steps=5)
    loop, run = train(tmp_path / "run", settings, Halves(ROWS), (hook(every=2),))
    plain, other = train(tmp_path / "plain", settings, Halves(ROWS))
    for lines in tables(run):
        assert list(dict.fromkeys(line["step"] for line in lines)) == [2, 4, 5]
    assert run.metrics.read_bytes() == other.metrics.read_bytes()
    assert torch.equal(loop.model.weight, plain.model.weight)
    assert not other.recorded("gradients").exists()


def test_a_skipped_step_has_no_lines(tmp_path):
    class Broken(Squares):
        def loss(self, model, batch, label_smoothing=0.0):
            self.seen = getattr(self, "seen", 0) + 1
            return super().loss(model, batch) * (math.nan if self.seen == 2 else 1.0)

    settings = fields(batch_size=8, max_steps=3)
    _, run = train(tmp_path / "run", settings, Broken(), (hook(kinds=("gradients",)),))
    assert [line["step"] for line in tables(run)[0] if line["param"] == "global"] == [1, 3]


@pytest.mark.parametrize("changed", [False, True])
def test_tables_go_on_from_where_a_checkpoint_has_left_them_and_what_changed_is_said(
    tmp_path, changed
):
    settings, parts = fields(batch_size=8, max_steps=4, save_every=2), (Squares(),)
    own = lambda: (hook(kinds=("gradients",)),)  # noqa: E731
    _, run = train(tmp_path / "run", settings, *parts, own())
    table = tmp_path / "run" / "gradients.jsonl"
    whole, saved = table.read_bytes(), checkpoint.load(run.checkpoints / checkpoint.name(2))
    if changed:
        table.write_bytes(whole.replace(b"mean", b"MEAN", 1))
    with begun(tmp_path / "run", settings, *parts, own()) as loop:
        loop.restore(saved)
        assert table.read_bytes() != whole
        loop.run()
    found = [(note.kind, note.fields["file"]) for note in loop.position.not_exact]
    assert found == ([("lines_changed", "gradients.jsonl")] if changed else [])
    assert (table.read_bytes() == whole) is not changed


MIXED = """
name: mixed
backbone: {{kind: tiny, width: 16, layers: 1, max_length: 64, dropout: 0.1}}
task:
  kind: mixture
  data_dir: {folder}
  each: {{kind: classification}}
  tasks: [{{as: mood}}, {{as: size}}]
method: {{name: {method}}}
analysis: {{every: 2}}
paths: {{runs: {folder}/runs}}
training: {{max_steps: 7, batch_size: 8, micro_batch_size: 4, evaluate_every: 1, save_every: 3}}
"""


def mixed(folder, method="lora", *changes):
    for name, labels in (("mood", "ab"), ("size", "xyz")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, count in (("train", 20), ("validation", 6), ("test", 6)):
            rows = [f"{name} {split} {i},{labels[i % len(labels)]}" for i in range(count)]
            (folder / name / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    path = folder / "mixed.yaml"
    path.write_text(MIXED.format(folder=folder, method=method))
    return runfile.resolve(config.read(path, changes))


@pytest.mark.slow
def test_killed_and_resumed_the_tables_have_the_same_bytes(tmp_path):
    whole = session.run(mixed(tmp_path), tmp_path / "whole", options=OPTIONS)
    path = tmp_path / "killed"
    assert killed_after(5, lambda: session.run(mixed(tmp_path), path, options=OPTIONS))
    assert in_child(lambda: session.resume(path, OPTIONS)) == 0
    for kind in ("gradients", "conflicts"):
        expected = whole.recorded(kind).read_bytes()
        assert expected
        assert type(whole)(path).recorded(kind).read_bytes() == expected


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "bitfit", "prefix", "jelly", "adalora", "head"])
def test_every_methods_gradients_are_written(tmp_path, method):
    run = session.run(mixed(tmp_path, method), tmp_path / "run", options=OPTIONS)
    gradients, conflicts = tables(run)
    assert (
        {line["step"] for line in gradients} == {line["step"] for line in conflicts} == {2, 4, 6, 7}
    )
    logged = {line["step"]: line for line in run.read_metrics() if "gradient_norm" in line}
    for line in gradients:
        if line["param"] == "global" and line["step"] in logged:
            assert line["norm"] == pytest.approx(logged[line["step"]]["gradient_norm"], rel=1e-4)


def test_the_key_of_a_run_file_is_the_hook_and_what_is_wrong_with_it_is_said_there(tmp_path):
    file = mixed(tmp_path)
    assert [(part.name, part.config.every) for part in file.hooks] == [("analysis", 2)]
    assert file.resolved["hooks"] == [{"name": "analysis", "every": 2, "kinds": None}]
    assert "analysis" not in file.resolved
    for changes, key in (
        (["analysis.evry=3"], ("analysis", "evry")),
        (["analysis.every=0"], ("analysis", "every")),
        (["analysis.kinds=[gradient]"], ("analysis", "kinds", 0)),
        (["analysis.name=norms"], ("analysis", "name")),
        (["hooks=[analysis]"], ("analysis",)),
    ):
        with pytest.raises(ConfigError) as raised:
            mixed(tmp_path, "lora", *changes)
        assert [problem.place.key for problem in raised.value.problems] == [key], changes


def test_conflicts_of_one_task_are_refused_and_left_out_where_they_are_not_asked_for(tmp_path):
    asked = {"analysis": {"kinds": ["gradients", "conflicts"]}}
    with pytest.raises(ConfigError) as raised:
        tiny_runs.run_file(tmp_path, asked)
    (problem,) = raised.value.problems
    assert problem.place.key == ("analysis", "kinds")
    assert problem.place.line
    one = Setting(0, 1, 1, Problem("classes", ("a", "b")), lambda: iter(()))
    assert set(analysis.make(analysis.Config(), one).files) == {"gradients"}
