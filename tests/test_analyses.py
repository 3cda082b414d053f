"""Every analysis keeps the promises of `graftlab.testing`; targets of each kind come to the right weights.

Slow: every kind of target is trained and asked everything.
"""

import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from finished_runs import finish, make_bert
from made import Made
from matplotlib.figure import Figure
from peft import LoraConfig, PeftModel, get_peft_model
from typer.testing import CliRunner

from graftlab import cli, explanation, inference, plots, registry
from graftlab.analyses import spectra
from graftlab.commands import analyse
from graftlab.contracts import About, Asked, Change
from graftlab.contracts.analysis import NEW
from graftlab.errors import ConfigError, ModelError
from graftlab.explanation import targets
from graftlab.explanation.finished_run import RunState
from graftlab.explanation.kept import OnDisk
from graftlab.explanation.spool import Spool
from graftlab.plots import training_curves, weight_change_heatmap
from graftlab.testing.analyses import *  # noqa: F403
from graftlab.testing.analyses import Planted, asked


def rows(*changes, how=None, **before):
    return list(spectra.rows([Planted("planted", changes, before)], how or asked()))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size, columns, seed):
    return torch.linalg.qr(drawn(size, columns, seed=seed)).Q


VALUES = torch.tensor([4.0, 2.0, 1e-3], dtype=torch.float64)


def factors():
    return orthogonal(20, 3, 0) * VALUES, orthogonal(15, 3, 1).T


def test_planted_singular_values_of_a_change_are_found_without_the_weight():
    (found,) = rows(Change("layer.3.query.weight", *factors()))
    assert [found.change_sv_0, found.change_sv_1, found.change_sv_2] == pytest.approx([4, 2, 1e-3])
    assert found.change_frobenius_norm == pytest.approx(math.sqrt(20 + 1e-6))
    assert found.change_stable_rank == pytest.approx((20 + 1e-6) / 16)
    assert (found.number, found.module, found.rank) == (3, "query", 2)
    assert (found.rows, found.columns, found.route) == (20, 15, "factors")
    assert {found.sv_0, found.relative_change, found.mean_principal_angle} == {None}


def test_the_weight_and_its_change_are_told_beside_the_weight_before():
    left, right = factors()
    before = drawn(20, 15, seed=5)
    (found,) = rows(Change("a.weight", left, right), **{"a.weight": before})
    values = np.linalg.svd((before + left @ right).numpy(), compute_uv=False)
    assert [getattr(found, f"sv_{k}") for k in range(10)] == pytest.approx(list(values[:10]))
    assert found.relative_change == pytest.approx(math.sqrt(20 + 1e-6) / float(before.norm()))
    assert "null_change_frobenius_norm" not in found._fields  # it is what a null is drawn with
    assert found.null_change_stable_rank > found.change_stable_rank  # a random change is flat


def test_the_sources_columns_come_first_under_its_names():
    names = spectra.row(asked())._fields
    assert names[:24] == (
        "model", "checkpoint", "layer", "type", "task_type", "rank",
        *(f"sv_{k}" for k in range(10)), "effective_rank", "rank_95_energy", "spectral_norm",
        "condition_number", "sv_correlation", "left_space_similarity", "right_space_similarity",
        "mean_principal_angle",
    )  # fmt: skip


def test_no_change_and_one_that_is_not_finite_have_defined_lines_and_the_rest_goes_on():
    left, right = factors()
    none, broken, vector, elsewhere = rows(
        Change("a.weight", 0 * left, right),
        Change("b.weight", left / 0, right),
        Change("c.bias", torch.tensor([3.0, -4.0]), None),
        Change("d.weight", left, right),
        **{"d.weight": drawn(4, 4)},
    )
    assert (none.change_frobenius_norm, none.change_stable_rank, none.note) == (0.0, None, None)
    assert (broken.change_frobenius_norm, broken.note) == (None, spectra.NOT_FINITE)
    assert (vector.change_frobenius_norm, vector.change_stable_rank) == (5.0, 1.0)
    assert (vector.rows, vector.columns) == (2, 1)
    assert (elsewhere.note, elsewhere.sv_0) == (spectra.ELSEWHERE, None)
    assert elsewhere.change_sv_0 == pytest.approx(4)


def test_what_is_kept_gives_the_same_table_and_nothing_is_computed_again(tmp_path, monkeypatch):
    left, right = factors()
    given = Change("a.weight", left, right), Change("b.bias", torch.ones(3), None)
    how = Asked(top=3, quantities=asked().quantities, kept=OnDisk(tmp_path))
    before = {"a.weight": drawn(20, 15, seed=5)}
    first = rows(*given, how=how, **before)
    assert first == rows(*given, **before)
    with monkeypatch.context() as patch:
        patch.setattr(np.linalg, "svd", None)
        assert rows(*given, how=how, **before) == first
    other = rows(*given, how=Asked(top=2, quantities=how.quantities, kept=how.kept), **before)
    assert other[0].mean_principal_angle != first[0].mean_principal_angle


@pytest.mark.parametrize("file", ["spectrum.py", "null.py", "entropy_rank.py"])
def test_what_other_code_has_kept_is_not_taken_and_draws_are_the_same(tmp_path, monkeypatch, file):
    left, right = factors()
    how = Asked(top=3, quantities=asked().quantities, kept=OnDisk(tmp_path))
    before = {"a.weight": drawn(20, 15, seed=5)}
    first = rows(Change("a.weight", left, right), how=how, **before)
    count, read = len(list(tmp_path.rglob("*.json"))), Path.read_bytes
    with monkeypatch.context() as patch:
        mended = lambda path: read(path) + b"#" * (path.name == file)  # noqa: E731
        patch.setattr(Path, "read_bytes", mended)
        assert rows(Change("a.weight", left, right), how=how, **before) == first
    assert len(list(tmp_path.rglob("*.json"))) == 2 * count
    assert len(list(tmp_path.rglob("*.npz"))) == (1 if file == "entropy_rank.py" else 2)


def test_a_heat_map_adds_up_a_matrix_and_its_bias_as_squares():
    left, right = factors()
    found = weight_change_heatmap.data(
        rows(
            Change("layer.0.query.weight", 3 * left, right),
            Change("layer.0.query.bias", torch.tensor([2.0]), None),
            Change("layer.2.key.weight", left, right),
            Change("head.weight", 0 * left, right),
        )
    )
    assert (found.layers, found.modules) == (("0", "2", "-"), ("query", "key", "head"))
    norm = 20 + 1e-6
    expected = [
        [math.sqrt(9 * norm + 4), np.nan, np.nan],
        [np.nan, math.sqrt(norm), np.nan],
        [np.nan, np.nan, 0],
    ]
    np.testing.assert_allclose(found.values, expected)
    assert found.measure == "|change|"


# Of finished runs.


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    ranks = {"lora": {"rank": 3}, "pissa": {"rank": 2}}
    saved = {"max_steps": 4, "save_every": 2, "keep_checkpoints": 5}
    return Made(lambda name: finish(folder, {"name": name, **ranks.get(name, {})}, training=saved))


def found_in(targets_given, options=None, kinds=("spectra",), out=None, figures=False):
    with Spool() as spool:
        models = targets.find([str(t) for t in targets_given], options or targets.Options(), spool)
        how = Asked(top=3, null=False)
        return explanation.carry_out(models, out, kinds, how, figures=figures)[0][0].rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "full", "pissa", "bitfit"])
def test_a_runs_changes_are_the_difference_of_its_merged_model_from_its_backbone(
    runs, name, tmp_path
):
    lines = found_in([runs[name].path], out=tmp_path)
    kept = sorted(int(p.name.split("-")[1]) for p in runs[name].checkpoints.glob("step-*"))
    assert sorted({row.checkpoint for row in lines}) == [step for step in kept if step]
    heads = {row.layer for row in lines if row.note == NEW}
    found = {r.layer: r for r in lines if r.checkpoint == 4 and r.note != NEW}
    adapted = inference.load(runs[name].path, step=4)
    before = {n: p.clone() for n, p in fresh(adapted).named_parameters()}
    merged = dict(adapted.file.method.module.merge(adapted.model).named_parameters())
    moved = {n for n in before if not torch.allclose(merged[n], before[n], rtol=0, atol=1e-9)}
    assert heads == {n for n in moved if n.startswith("classifier") and merged[n].dim() > 1}
    moved = {n for n in moved if not n.startswith("classifier")}
    assert moved <= set(found)
    for weight, row in found.items():
        change = (merged[weight] - before[weight]).detach().double().numpy()
        values = np.linalg.svd(change.reshape(len(change), -1), compute_uv=False)
        # merged weights are float32: their difference is known to some 1e-7 of the weight
        noise = 1e-6 * float(before[weight].detach().norm())
        assert row.change_frobenius_norm == pytest.approx(
            np.sqrt((values**2).sum()), rel=1e-3, abs=noise
        )
        assert row.change_spectral_norm == pytest.approx(values[0], rel=1e-3, abs=noise)
        size = float(before[weight].detach().double().norm())
        if before[weight].dim() == 2:
            assert row.relative_change == pytest.approx(row.change_frobenius_norm / size)


def fresh(adapted):
    from graftlab.runs import material

    return material.backbone(adapted.file, adapted.problem).model


def test_a_run_that_changes_no_weight_is_refused_by_name_and_leaves_nothing(runs, tmp_path):
    with pytest.raises(ConfigError, match="prefix"):
        found_in([runs["prefix"].path], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_how_far_an_analysis_is_and_what_is_left_of_it(monkeypatch, capsys):
    clock = iter([0.0, 4.0, 12.0, 15.0, 40.0, 60.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    shown = analyse.Progress()
    for name, parts in (("spectra", 3), ("cka", 2)):
        for done in range(1, parts + 1):
            shown(name, done, parts)
    assert capsys.readouterr().err.splitlines() == [
        "spectra: 2 of 3, 0:00:06 left", "cka: 1 of 2, 0:00:25 left", "cka: 2 of 2, 0:00:00 left",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["lora", "full"])
def test_only_weights_that_are_asked_for_are_set_aside_and_reading_them_is_said(
    runs, name, tmp_path
):
    said = []
    with Spool() as spool:
        options = targets.Options(matrices=("query", "*.0.*.key"))
        models = targets.find([str(runs[name].path)], options, spool)
        told = explanation.asked(Asked(null=False))
        explanation.carry_out(
            models, tmp_path / "out", ["spectra"], told, (), False, lambda *how: said.append(how)
        )
        names = {n for subject in models[0].subjects for n in subject.names()}
        assert names
        assert all("query" in n or ("key" in n and ".0." in n) for n in names)
    count = len(models[0].subjects)
    assert said[:count] == [("reading", done, count) for done in range(1, count + 1)]
    assert {how[0] for how in said[count:]} == {"spectra"}


def test_a_title_takes_the_lines_that_it_needs_and_stays_within_its_figure():
    made = plots.titled(Figure(figsize=(6, 4)), "Angles (" + ", ".join(["a model $1$"] * 9) + ")")
    lines = made.get_suptitle().splitlines()
    assert len(lines) == 2
    made = plots.titled(Figure(figsize=(6, 4)), "words " * 90)
    assert made.get_suptitle().count("\n") == 2
    assert made.get_suptitle().endswith(" …")
    made.draw_without_rendering()
    (text,) = made.texts
    assert text.get_window_extent().width < made.bbox.width


@pytest.mark.slow
def test_the_command_writes_every_table_and_figure_and_says_where(runs):
    run = runs["lora"].path
    said = CliRunner().invoke(cli.app, ["analyse", str(run), "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    table = run / "analysis" / "svd_analysis" / "svd_analysis_results.csv"
    with table.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["layer"] for row in read] == [
        row["layer"] for row in found["analyses"]["spectra"]["rows"]
    ]
    for name in registry.having("plots", "DRAWS_FROM", "spectra"):
        (figure,) = (run / "analysis" / "svd_analysis").rglob(f"{name}.svg")
        assert figure.with_suffix(".png").is_file()
    page = (run / "analysis" / "analysis.html").read_text()
    assert page.count("<svg") == len(list((run / "analysis").rglob("*.svg")))
    assert found["findings"]["summary"] in (run / "analysis" / "findings.md").read_text()
    shown = CliRunner().invoke(cli.app, ["analyze", str(run), "--kind", "spectra", "--steps", "2"])
    assert read[0]["layer"] in shown.output
    wrong = CliRunner().invoke(cli.app, ["analyse", str(run), "--kind", "spectr"])
    assert wrong.exit_code == 2
    assert "'spectra'" in wrong.stderr


@pytest.mark.parametrize("name", ["bitfit", "jelly"])
def test_what_trains_again_is_what_has_trained(runs, name):
    """The truth is the model as a resume attaches it; what is loaded for use has nothing that trains."""
    with Spool() as spool:
        trained, loaded = (
            RunState(runs[name].path, step, About(name), spool).differentiable(1).model
            for step in (4, None)
        )
    names = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (trained, loaded)]
    assert names[0] == names[1]


# Of what others have made.


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A base, three checkpoints of a LoRA as peft and Trainer leave them, and the last one merged."""
    folder = tmp_path_factory.mktemp("foreign")
    base = make_bert(folder / "base")
    model = transformers.BertModel.from_pretrained(base)
    config = LoraConfig(
        r=2, lora_alpha=6, target_modules=["query", "dense"], rank_pattern={"0.output.dense": 3},
        alpha_pattern={"query": 5}, use_rslora=True, init_lora_weights=False,
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    for step in (5, 10, 100):
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(1.5)
        adapted.save_pretrained(folder / "trained" / f"checkpoint-{step}")
    shutil.copytree(folder / "trained" / "checkpoint-100", folder / "adapter")
    adapted.merge_and_unload().save_pretrained(folder / "merged")
    return folder


@pytest.mark.slow
def test_an_adapter_of_peft_has_the_change_that_peft_gives_it(foreign, tmp_path):
    """Scaled by each layer's own rank and alpha, with nothing of ours beside it."""
    found = {row.layer: row for row in found_in([foreign / "adapter"], out=tmp_path)}
    model = PeftModel.from_pretrained(
        transformers.BertModel.from_pretrained(foreign / "base"), foreign / "adapter"
    )
    layers = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A")}
    assert {f"{name}.weight" for name in layers} == set(found)
    for name, layer in layers.items():
        values = np.linalg.svd(
            layer.get_delta_weight("default").detach().double(), compute_uv=False
        )
        row = found[f"{name}.weight"]
        assert [row.change_sv_0, row.change_sv_1] == pytest.approx(list(values[:2]), rel=1e-5)
        assert row.sv_0 is not None  # its base is named in its config, and is there


@pytest.mark.slow
def test_a_trainers_checkpoints_come_in_the_order_of_their_numbers(foreign, tmp_path):
    lines = found_in([foreign / "trained"], out=tmp_path)
    assert list(dict.fromkeys(row.checkpoint for row in lines)) == [5, 10, 100]
    sizes = [row.change_spectral_norm for row in lines if row.layer == lines[0].layer]
    assert [b / a for a, b in itertools.pairwise(sizes)] == pytest.approx([1.5, 1.5])
    one = found_in([foreign / "trained"], targets.Options(steps=(10,)), out=tmp_path)
    assert {row.checkpoint for row in one} == {10}
    with pytest.raises(ConfigError, match="5, 10, 100"):
        found_in([foreign / "trained"], targets.Options(steps=(11,)), out=tmp_path)


@pytest.mark.slow
def test_a_pair_of_models_and_an_adapter_of_the_same_change_agree(foreign, tmp_path):
    pair = found_in([f"{foreign / 'base'}:{foreign / 'merged'}"], out=tmp_path)
    adapter = {row.layer: row for row in found_in([foreign / "adapter"], out=tmp_path)}
    assert {row.layer for row in pair} == set(adapter)
    for row in pair:
        other = adapter[row.layer]
        assert row.change_sv_0 == pytest.approx(other.change_sv_0, rel=1e-4)
        assert row.mean_principal_angle == pytest.approx(other.mean_principal_angle, abs=1e-3)
        assert (row.type, other.type) == ("full", "lora")


@pytest.mark.slow
def test_a_list_of_models_names_them_and_their_family(foreign, tmp_path):
    listed = foreign / "models.yaml"
    listed.write_text(
        "models:\n  small: {path: adapter, base: base, task_type: similar}\n"
        "  whole: {path: merged, base: base, task_type: dissimilar, method: full}\n"
    )
    lines = found_in([listed], out=tmp_path, figures=True)
    assert {(r.model, r.task_type, r.type) for r in lines} == {
        ("small", "similar", "lora"), ("whole", "dissimilar", "full"),
    }  # fmt: skip
    for family in ("similar", "dissimilar"):
        assert any((tmp_path / "svd_analysis" / family).glob("*.png"))


def test_targets_that_do_not_fit_are_refused_before_anything_is_written(foreign, tmp_path):
    out = tmp_path / "out"
    other = make_bert(tmp_path / "other")
    config = transformers.BertConfig.from_pretrained(other, hidden_size=32)
    transformers.BertModel(config).save_pretrained(other)
    with pytest.raises(ModelError, match=r"dense\.weight"):
        found_in([foreign / "adapter"], targets.Options(base=str(other)), out=out)
    with pytest.raises(ModelError, match="shape"):
        found_in([f"{other}:{foreign / 'merged'}"], out=out)
    with pytest.raises(ConfigError, match="base"):
        found_in([foreign / "merged"], out=out)
    (tmp_path / "empty" / "checkpoint-3").mkdir(parents=True)
    for nothing in (tmp_path / "empty", tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError):
            found_in([nothing], out=out)
    with pytest.raises(ConfigError, match="two targets"):
        found_in([foreign / "adapter", foreign / "adapter"], out=out)
    assert not out.exists()


def test_an_adapter_whose_base_is_not_at_hand_is_told_of_its_change_alone(foreign, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(foreign / "adapter", moved)
    config = json.loads((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (moved / "adapter_config.json").write_text(json.dumps(config))
    lines = found_in([moved], out=tmp_path / "out")
    assert all(row.change_sv_0 and row.sv_0 is None for row in lines)


@pytest.mark.slow
def test_doras_change_is_that_of_peft_and_wants_its_base(foreign, tmp_path):
    model = get_peft_model(
        transformers.BertModel.from_pretrained(foreign / "base"),
        LoraConfig(r=2, target_modules=["query"], use_dora=True, init_lora_weights=False),
    )
    before = {n: p.detach().clone() for n, p in model.base_model.model.named_parameters()}
    model.save_pretrained(tmp_path / "dora")
    merged = dict(model.merge_and_unload().named_parameters())
    lines = found_in([tmp_path / "dora"], out=tmp_path / "out")
    for row in lines:
        old = before[row.layer.replace("query.weight", "query.base_layer.weight")]
        change = (merged[row.layer] - old).detach().double().numpy()
        assert row.change_sv_0 == pytest.approx(np.linalg.svd(change)[1][0], rel=1e-4)
        assert row.type == "dora"


def test_dynamics_are_what_a_run_has_logged(tmp_path):
    lines = [
        {"step": 1, "loss": 2.0, "learning_rate": 0.1, "gradient_norm": 3.0},
        {"step": 2, "loss": None, "learning_rate": 0.2, "gradient_norm": None},
        {"step": 2, "validation/loss": 1.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = training_curves.data(tmp_path)
    np.testing.assert_array_equal(found.steps, [1, 2])
    np.testing.assert_array_equal(found.values["loss"], [2.0, np.nan])
    np.testing.assert_array_equal(found.values["gradient norm"], [3.0, np.nan])
    np.testing.assert_array_equal(found.losses, [1.5])
