"""Linear CKA of activations: closed forms, the form over features, symmetries, random ones and their null."""

import csv
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from finished_runs import finish, make_bert
from made import Made
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from graftlab import cli, explanation
from graftlab.analyses import cka
from graftlab.contracts import About, Asked, Texts
from graftlab.errors import ConfigError, DataError
from graftlab.explanation import findings, foreign, hidden, sentences, targets, texts
from graftlab.explanation.spool import Spool
from graftlab.plots import activation_similarity

SIXTEEN = Texts(tuple(texts.read().values[:16]), "16 texts")


def drawn(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def both(x, y):
    return tuple(measure(cka.gram(x), cka.gram(y)) for measure in (cka.cka, cka.debiased))


def test_it_is_the_form_over_features():
    """Kornblith et al. 2019, section 3: |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)."""
    x, y = (m - m.mean(0) for m in (drawn(9, 5, seed=0) + 3, drawn(9, 7, seed=1)))
    norm = np.linalg.norm
    expected = norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert both(x, y)[0] == pytest.approx(expected)


def test_two_features_at_an_angle_have_the_square_of_its_cosine():
    """Of one feature each, CKA is the squared correlation."""
    x, noise = drawn(12, 1, seed=0), drawn(12, 1, seed=1)
    y = x + 0.5 * noise
    assert both(x, y)[0] == pytest.approx(np.corrcoef(x.T, y.T)[0, 1] ** 2)


def test_rotation_size_and_place_change_neither_form():
    x, y = drawn(20, 6, seed=0), drawn(20, 4, seed=1)
    turn = np.linalg.qr(drawn(6, 6, seed=2))[0]
    for one in (x @ turn, -7 * x, x + drawn(1, 6, seed=3)):
        assert both(one, y) == pytest.approx(both(x, y))
        assert both(one, x) == pytest.approx((1, 1))
    assert both(y, x) == pytest.approx(both(x, y))


def test_the_debiased_form_is_a_mean_over_fours():
    """HSIC_1 is the U-statistic whose kernel takes four samples (Song et al. 2012, theorem 2)."""
    k, m = (cka.gram(drawn(6, 3, seed=seed)) for seed in (0, 1))
    terms = []
    for i, j, q, r in itertools.permutations(range(6), 4):
        terms.append(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
    assert cka.hsic(k, m) == pytest.approx(math.fsum(terms) / len(terms))


def test_of_unrelated_activations_only_the_debiased_form_is_near_0():
    """And the plain one is what permuted rows give, tr K tr L / (N - 1) over the sizes."""
    given = [(drawn(16, 60, seed=2 * k), drawn(16, 60, seed=2 * k + 1)) for k in range(200)]
    plain, debiased = np.array([both(x, y) for x, y in given]).T
    apart = plain - np.array([permuted(cka.gram(x), cka.gram(y)) for x, y in given])
    assert plain.mean() > 0.7
    for values in (debiased, apart):
        assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)


def permuted(k, m):
    """Return the mean of CKA over all orders of the rows of one."""
    return np.trace(k) * np.trace(m) / (len(k) - 1) / (np.linalg.norm(k) * np.linalg.norm(m))


def test_activations_without_spread_have_no_cka_and_three_texts_no_debiased_one():
    assert both(np.ones((5, 3)), drawn(5, 3, seed=0)) == (None, None)
    assert both(drawn(3, 2, seed=0), drawn(3, 2, seed=1))[1] is None


# Of subjects.


BLOCKS = tuple(drawn(16, 6, seed=seed) for seed in range(5))


@dataclasses.dataclass
class Reads:
    """A subject whose activations are given: those before, and `moved` from there now."""

    about: About
    moved: float
    blocks: int = 2

    def names(self):
        return ["a.weight"]

    def activations(self, texts, before=False):
        noise = 0 if before else self.moved
        return [x + noise * drawn(16, 6, seed=k + 7) for k, x in enumerate(BLOCKS[: self.blocks])]


def reader(model, moved, step=None, blocks=2):
    return Reads(About(model, step), moved, blocks)


def test_a_checkpoint_stands_beside_the_model_before_and_last_ones_beside_each_other():
    lines = list(
        cka.rows([reader("a", 0.1, 5), reader("a", 0.5, 10), reader("b", 0)], Asked(texts=SIXTEEN))
    )
    assert [(r.model, r.checkpoint, r.other, r.other_checkpoint) for r in lines[::2]] == [
        ("a", 5, cka.BEFORE, None), ("a", 10, cka.BEFORE, None), ("b", None, cka.BEFORE, None),
        ("a", 10, "b", None),
    ]  # fmt: skip
    assert [(r.layer, r.number) for r in lines[:2]] == [("embeddings", None), ("block 0", 0)]
    x = BLOCKS[1]
    assert lines[1].cka == pytest.approx(both(x + 0.1 * drawn(16, 6, seed=8), x)[0])
    assert (lines[5].cka, lines[5].debiased_cka) == pytest.approx((1, 1))
    assert lines[7].cka == pytest.approx(lines[3].cka)  # b is what a was before


def test_the_null_is_that_of_permuted_texts_and_depends_on_the_seed_alone():
    """Over all permutations <K, L> is tr K tr L / (N - 1) on average, and HSIC_1 is 0."""
    given = [reader("a", 0.5)]
    line = next(cka.rows(given, Asked(texts=SIXTEEN)))
    assert next(cka.rows(given, Asked(texts=SIXTEEN))) == line
    other = next(cka.rows(given, Asked(texts=SIXTEEN, seed=1)))
    assert (other.cka, other.null_cka != line.null_cka) == (line.cka, True)
    nulls = [next(cka.rows(given, Asked(texts=SIXTEEN, seed=seed))) for seed in range(40)]
    k = cka.gram(BLOCKS[0])
    m = cka.gram(BLOCKS[0] + 0.5 * drawn(16, 6, seed=7))
    for column, expected in (("null_cka", permuted(k, m)), ("null_debiased_cka", 0)):
        values = np.array([getattr(row, column) for row in nulls])
        assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(40)
    bare = next(cka.rows(given, Asked(texts=SIXTEEN, null=False)))
    assert (bare.cka, bare.null_cka, bare.null_debiased_cka) == (line.cka, None, None)


def test_without_texts_there_is_nothing_to_compare():
    with pytest.raises(ConfigError, match="texts"):
        list(cka.rows([reader("a", 1)], Asked()))


def test_findings_take_blocks_for_units_and_name_the_null():
    lines = list(cka.rows([reader("a", 1, 5, blocks=5)], Asked(texts=SIXTEEN)))
    found = {f.column: f for f in findings.find({"cka": lines}, {})}
    assert (found["cka"].over, found["cka"].units, found["cka"].beyond) == ("layers", 5, True)
    said = sentences.sentence(found["debiased_cka"])
    assert cka.BEFORE in said
    assert sentences.NULLS["cka"] in said


def test_the_figure_has_the_distance_by_block_and_over_training():
    given = [reader("a", 0.1, 5), reader("a", 0.5, 10), reader("b", 0)]
    lines = list(cka.rows(given, Asked(texts=SIXTEEN)))
    found = activation_similarity.data(lines)
    assert set(found.before) == {"a", "b"}
    assert set(found.between) == {"a and b"}
    expected = [1 - row.debiased_cka for row in lines if row.checkpoint == 10][:2]
    np.testing.assert_allclose(found.before["a"].mean, expected)
    np.testing.assert_array_equal(found.before["a"].places, [-1, 0])
    np.testing.assert_array_equal(found.steps["a"][0], [5, 10])
    assert found.steps["a"][1][1] == pytest.approx(np.mean(expected))


# Of texts and models.


def test_texts_are_lines_or_a_column_of_which_the_first_are_taken(tmp_path):
    lines = tmp_path / "some.txt"
    lines.write_text("one\ntwo\n\nthree\nfour\nfive\n")
    assert texts.read(lines, 4) == Texts(("one", "two", "three", "four"), "4 texts of some.txt")
    table = tmp_path / "some.csv"
    table.write_text("label,text\n" + "".join(f"{k},text {k}\n" for k in range(5)))
    assert texts.read(table).values[4] == "text 4"
    own = texts.read()
    assert (len(set(own.values)), own.source) == (64, "64 texts of graftlab")
    with pytest.raises(DataError, match="3 texts"):
        texts.read(lines, 3)
    with pytest.raises(DataError):
        texts.read(tmp_path / "absent.txt")
    with pytest.raises(ConfigError):
        texts.read(tmp_path)
    table.write_text("words\na\nb\n")
    with pytest.raises(ConfigError, match="words"):
        texts.read(table)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert") / "base")


def opened(folder):
    model = transformers.AutoModel.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def test_activations_are_means_over_tokens_but_the_first_of_what_hooks_see(bert):
    model, tokenizer = opened(bert)
    found = hidden.of_texts(model, tokenizer, ["warm and kind", "so"])
    seen = []
    for layer in model.encoder.layer:
        layer.register_forward_hook(lambda _, __, out: seen.append(out))
    model(**tokenizer("warm and kind", return_tensors="pt"))
    assert [x.shape for x in found] == [(2, 16)] * 3
    for block, out in zip(found[1:], seen, strict=True):
        state = out[0] if isinstance(out, tuple) else out
        expected = state.reshape(-1, 16)[1:].mean(0).detach()
        np.testing.assert_allclose(block[0], expected, rtol=1e-5, atol=1e-6)


def test_a_model_that_reads_no_texts_says_why():
    def refuses(**_):
        raise TypeError("pixels only")

    class Sees(torch.nn.Module):
        forward = staticmethod(refuses)

    assert "pixels only" in hidden.of_texts(Sees(), lambda *_, **__: {}, ["a"])


@pytest.mark.slow
def test_an_adapter_is_loaded_by_the_names_of_its_weights_or_not_at_all(bert, tmp_path):
    """Made for a model without a head, whose weights have other names than with one."""
    model, _ = opened(bert)
    config = LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    found = foreign.activations(str(bert), bert, SIXTEEN.values, tmp_path / "adapter")
    expected = hidden.of_texts(adapted, opened(bert)[1], SIXTEEN.values)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    other = make_bert(tmp_path / "other")
    small = transformers.BertConfig.from_pretrained(other, num_hidden_layers=1)
    transformers.BertModel(small).save_pretrained(other)
    assert "no place" in foreign.opened(str(other), bert, tmp_path / "adapter")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    saved = {"max_steps": 4, "save_every": 2, "keep_checkpoints": 5}
    return Made(lambda name: finish(folder, {"name": name}, training=saved))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "full"])
def test_a_runs_backbone_is_what_it_was_before_training(runs, name):
    with Spool() as spool:
        state = targets.find([str(runs[name].path)], targets.Options(), spool)[0].subjects[-1]
        before, now = (state.activations(SIXTEEN.values, before=b) for b in (True, False))
    folder = runs[name].path.parent.parent / "bert"
    expected = hidden.of_texts(*opened(folder), SIXTEEN.values)
    for one, other in zip(before, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not np.allclose(now[-1], before[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_command_compares_runs_on_texts_of_ones_own(runs, tmp_path):
    lines = tmp_path / "own.txt"
    lines.write_text("\n".join(SIXTEEN.values))
    paths = [str(runs[name].path) for name in ("lora", "full")]
    words = [
        "--kind",
        "cka",
        "--texts",
        str(lines),
        "--num-texts",
        "8",
        "--out",
        str(tmp_path / "out"),
    ]
    said = CliRunner().invoke(cli.app, ["analyse", *paths, *words])
    assert said.exit_code == 0, said.output
    with (tmp_path / "out" / "cka" / "cka_results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert {row["sample"] for row in read} == {"8 texts of own.txt"}
    pairs = {(row["model"], row["other"]) for row in read}
    assert pairs == {("lora", cka.BEFORE), ("full", cka.BEFORE), ("lora", "full")}
    assert all(row["cka"] and not row["note"] for row in read)
    assert (tmp_path / "out" / "cka" / "activation_similarity.svg").is_file()
    assert "CKA" in (tmp_path / "out" / "analysis.html").read_text()


def test_an_analysis_asks_on_the_texts_of_graftlab_unless_told():
    assert explanation.asked().texts == texts.read()
    assert explanation.asked(Asked(texts=SIXTEEN)).texts is SIXTEEN
