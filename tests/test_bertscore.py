"""BERTScore against the package's own scorer, and what the package does not take."""

import math
from pathlib import Path
from typing import Any

import pytest

from graftlab.errors import ConfigError, ModelError
from graftlab.metrics import _bertscore, bertscore
from graftlab.metrics._bertscore import Figures
from graftlab.runfile import measures
from graftlab.testing import examples

bert_score = pytest.importorskip("bert_score")

PAIRS = [
    ("the cat sat on the mat", "a cat was sitting on a mat"),
    ("oil prices rose on monday", "crude fell on tuesday amid fears"),
    ("hello", "hello there, and a good deal more than hello"),
    ("exactly the same", "exactly the same"),
    ("a long text that is cut off " * 9, "a long text"),
]
LENGTH = 48  # of the encoder below: its tokenizer says so


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return examples.text_model(tmp_path_factory.mktemp("encoder"), "encoder")


def settings(encoder: str, **fields: Any) -> bertscore.Config:
    return bertscore.Config(model=encoder, max_length=LENGTH, **fields)


def rows(pairs: Any = PAIRS) -> list[dict[str, object]]:
    return [
        {"index": place, "prediction": text, "label": gold}
        for place, (text, gold) in enumerate(pairs)
    ]


@pytest.mark.parametrize("layer", [1, 2])
def test_figures_are_those_of_the_package(encoder: str, layer: int) -> None:
    scorer = bert_score.BERTScorer(
        model_type=encoder, num_layers=layer, use_fast_tokenizer=True, device="cpu"
    )
    expected = scorer.score([text for text, _ in PAIRS], [gold for _, gold in PAIRS])
    for figure, values in zip(Figures._fields, expected, strict=True):
        found = bertscore.each(rows(), settings(encoder, figure=figure, layer=layer))
        assert found == pytest.approx(values.tolist(), abs=1e-6)


def test_text_and_reference_in_each_others_place_swap_precision_and_recall(encoder: str) -> None:
    there = bertscore.each(rows(), settings(encoder, figure="precision"))
    back = bertscore.each(
        rows([(gold, text) for text, gold in PAIRS]), settings(encoder, figure="recall")
    )
    assert there == pytest.approx(back, abs=1e-6)


def test_the_composite_is_its_shares_of_precision_recall_and_f1(encoder: str) -> None:
    parts = [bertscore.each(rows(), settings(encoder, figure=name)) for name in Figures._fields]
    expected = [0.3 * p + 0.3 * r + 0.4 * f for p, r, f in zip(*parts, strict=True)]  # type: ignore[operator]
    found = bertscore.each(rows(), settings(encoder, figure="composite"))
    assert found == pytest.approx(expected)


def test_a_text_without_a_word_has_nothing_and_a_reference_without_one_is_left_out(
    encoder: str,
) -> None:
    pairs = [("", "some words"), (" \n", "some words"), ("some words", "")]
    assert bertscore.each(rows(pairs), settings(encoder)) == [0.0, 0.0, None]
    score = bertscore.score(rows(pairs), settings(encoder))
    assert score.value == 0
    assert score.details is not None
    assert score.details["left_out"] == 1


def test_of_several_references_the_best_counts(encoder: str) -> None:
    text, gold = PAIRS[0]
    golds = ["quite another thing", gold]
    several = [{"index": 0, "prediction": text, "label": [*golds, ""]}]
    alone = bertscore.each(rows([(text, one) for one in golds]), settings(encoder))
    assert bertscore.each(several, settings(encoder)) == [max(value or 0 for value in alone)]


def test_empty_and_short_texts_lose_what_is_set(encoder: str) -> None:
    pairs = [("", "some words"), ("two words", "some words"), ("now there are five words", "some")]
    fields: dict[str, Any] = {"figure": "composite"}
    plain = bertscore.each(rows(pairs), settings(encoder, **fields))
    less = bertscore.each(
        rows(pairs), settings(encoder, empty_penalty=0.5, short_penalty=0.1, **fields)
    )
    lost = [a - b for a, b in zip(plain, less, strict=True)]  # type: ignore[operator]
    assert lost == pytest.approx([0.6, 0.1, 0.0])
    named = measures.measure("elm_objective").config
    assert named == bertscore.Config(figure="composite", empty_penalty=0.5, short_penalty=0.1)


def test_a_baseline_rescales_and_both_are_told(encoder: str, tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("LAYER,P,R,F\n1,.5,.25,.4\n2,.1,.2,.3\n")
    raw = bertscore.score(rows(), settings(encoder, layer=2))
    table = str(tmp_path / "own.tsv")
    found = bertscore.score(rows(), settings(encoder, layer=2, baseline=table))
    assert raw.value is not None
    assert found.value == pytest.approx((raw.value - 0.3) / 0.7)
    assert raw.details is not None
    assert found.details is not None
    assert found.details["raw"] == raw.details["raw"]
    assert found.details["rescaled"]["f1"] == pytest.approx(found.value)  # type: ignore[index]
    assert "rescaled" not in raw.details


def test_the_packages_own_baseline_is_found_by_the_models_name() -> None:
    """Of roberta-large, layer 17, as the package's paper page has it."""
    found = _bertscore.baseline("known", "FacebookAI/roberta-large", 17)
    assert found == (0.83150584, 0.8314941, 0.83122575)


@pytest.mark.parametrize("path", ["known", "no/such/table.tsv"])
def test_a_baseline_that_is_not_there_is_refused(encoder: str, path: str) -> None:
    with pytest.raises(ConfigError):
        bertscore.score(rows(), settings(encoder, baseline=path))


def test_a_layer_or_a_length_that_the_encoder_has_not_is_refused(encoder: str) -> None:
    with pytest.raises(ConfigError):
        bertscore.score(rows(), settings(encoder, layer=99))
    with pytest.raises(ConfigError):
        bertscore.score(rows(), bertscore.Config(model=encoder, max_length=4096))


def test_an_encoder_that_is_not_there_stops_unless_it_is_to_be_skipped(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(ModelError):
        bertscore.score(rows(), bertscore.Config(model=missing))
    skipped = bertscore.Config(model=missing, without_model="skip")
    score = bertscore.score(rows(), skipped)
    assert score.value is None
    assert score.reason
    assert bertscore.each(rows(), skipped) == [None] * len(PAIRS)


def test_what_a_figure_was_measured_by_is_told(encoder: str) -> None:
    details = bertscore.score(rows(), settings(encoder, layer=1)).details
    assert details is not None
    told = str(details["measured_by"])
    for part in (Path(encoder).name, "_L1_", f"_len{LENGTH}_", "no-idf", "bert-score=", "fast"):
        assert part in told


def test_the_length_that_is_read_changes_the_figure(encoder: str) -> None:
    """A text that goes on as its reference does not: cut off, it is the reference."""
    long = rows([("one two three " * 20, "one two three")])
    short, whole = (
        bertscore.each(long, bertscore.Config(model=encoder, max_length=length, figure="precision"))
        for length in (8, 40)
    )
    assert not math.isclose(short[0] or 0, whole[0] or 0, rel_tol=1e-3)
