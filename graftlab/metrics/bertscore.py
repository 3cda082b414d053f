"""BERTScore: how alike a text and its reference are, word piece by word piece, in an encoder's states.

Each piece of one is matched with the likest of the other, by cosine: over the text's pieces that is
precision, over the reference's recall (Zhang et al., 2020, ICLR, arXiv 1904.09675; no idf weights). Figures
of two models, layers or lengths cannot be compared: `measured_by` in the score's details says what they
were. Of several references each figure's best counts; a text without a word has 0; a reference without one
is left out. Standard error: of the mean.
"""

import math
from typing import Literal

from pydantic import Field, model_validator

from graftlab.config import Conflict, Section
from graftlab.errors import ModelError
from graftlab.metrics import Predictions, Score, _bertscore
from graftlab.metrics._bertscore import Figures, Matcher
from graftlab.metrics._texts import examples, mean_of, unwritten

HIGHER_IS_BETTER = True
READS = "texts"
RANGE = (-math.inf, 1.0)
PACKAGE = "bert_score"
UNDEFINED = "a reference has no words"
COMPOSITE = Figures(0.3, 0.3, 0.4)
"""Shares of precision, recall and F1: the composite of the source of ELM."""


class Config(Section):
    """Settings of BERTScore."""

    figure: Literal["precision", "recall", "f1", "composite"] = "f1"
    """What counts; `composite` is .3 precision + .3 recall + .4 F1."""
    model: str = "minilm"
    """An encoder: alias, folder or hub id. Papers have roberta-large, or microsoft/deberta-xlarge-mnli."""
    layer: int = Field(0, ge=0)
    """Behind which of its layers states are taken; 0: the one that bert-score recommends, else the last."""
    max_length: int = Field(256, ge=8)
    """Tokens of a text that are read: it is part of what the figure is."""
    baseline: str = ""
    """What unrelated texts reach: figures become (x - baseline) / (1 - baseline). `known`: as bert-score has
    it for this model and layer; or a file like its own. Left out: raw figures."""
    empty_penalty: float = Field(0.0, ge=0)
    """Taken off for a text without a word."""
    short_penalty: float = Field(0.0, ge=0)
    """Taken off for a text of fewer than `short_words` words, none too."""
    short_words: int = Field(5, ge=2)
    """From how many words on a text is not short."""
    without_model: Literal["stop", "skip"] = "stop"
    """Where the encoder cannot be had: say how to get it, or go on without a value."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> "Config":
        if self.short_words != 5 and not self.short_penalty:
            raise Conflict("short_words", "short_words has no effect with short_penalty 0")
        return self


def score(predictions: Predictions, config: Config) -> Score:
    """Return the mean over examples, at most 1, with all figures in its details: raw, and rescaled where
    there is a baseline.

    Raises:
        ConfigError: a setting does not fit the encoder.
        ModelError: the encoder cannot be had.
    """
    if (nothing := unwritten(predictions)) is not None:
        return nothing
    try:
        matcher = _bertscore.opened(config.model, config.layer, config.max_length)
    except ModelError as error:
        if config.without_model == "skip":
            return Score(None, None, f"its encoder cannot be had: {error}")
        said = f"{error} It is the encoder of bertscore: set its model to one that is there (a folder), or "
        raise ModelError(
            f"{said}without_model: skip, to go on without.", kind="missing", given=config.model
        ) from error
    raw = _figures(matcher, predictions)
    details: dict[str, object] = {"measured_by": matcher.measured_by, "raw": _means(raw)}
    if config.baseline:
        details["rescaled"] = _means(_rescaled(matcher, raw, config))
    return mean_of(_values(matcher, predictions, config), UNDEFINED, details)


def each(predictions: Predictions, config: Config) -> list[float | None]:
    """Return the value of each example; None where its references have no words. `Raises:` as `score`."""
    try:
        matcher = _bertscore.opened(config.model, config.layer, config.max_length)
    except ModelError:
        if config.without_model == "skip":
            return [None] * len(predictions)
        raise
    return _values(matcher, predictions, config)


def _values(matcher: Matcher, predictions: Predictions, config: Config) -> list[float | None]:
    found = _rescaled(matcher, _figures(matcher, predictions), config)
    values: list[float | None] = []
    for (texts, _), figures in zip(examples(predictions), found, strict=True):
        if figures is None or not texts:
            values.append(None)
            continue
        one = [
            _counted(of, config) - _penalty(text, config)
            for text, of in zip(texts, figures, strict=True)
        ]
        values.append(sum(one) / len(one))
    return values


def _counted(figures: Figures, config: Config) -> float:
    if config.figure == "composite":
        return math.fsum(share * value for share, value in zip(COMPOSITE, figures, strict=True))
    return float(getattr(figures, config.figure))


def _penalty(text: str, config: Config) -> float:
    words = len(text.split())
    short = config.short_penalty if words < config.short_words else 0.0
    return short + (0.0 if words else config.empty_penalty)


Found = list[list[Figures] | None]
"""Of each example the figures of its texts; None where no reference has a word."""


def _figures(matcher: Matcher, predictions: Predictions) -> Found:
    asked = [
        (texts, [gold for gold in golds if gold.strip()]) for texts, golds in examples(predictions)
    ]
    known = matcher.match(
        (text, gold) for texts, golds in asked for text in texts for gold in golds
    )
    return [
        [
            Figures(*map(max, zip(*(known[text, gold] for gold in golds), strict=True)))
            for text in texts
        ]
        if golds
        else None
        for texts, golds in asked
    ]


def _rescaled(matcher: Matcher, found: Found, config: Config) -> Found:
    if not config.baseline:
        return found
    base = _bertscore.baseline(config.baseline, matcher.source, matcher.layer)

    def one(figures: Figures) -> Figures:
        return Figures(*((x - b) / (1 - b) for x, b in zip(figures, base, strict=True)))

    return [None if of is None else [one(figures) for figures in of] for of in found]


def _means(found: Found) -> dict[str, float]:
    every = [figures for of in found if of is not None for figures in of]
    return {
        name: math.fsum(figures[place] for figures in every) / len(every)
        for place, name in enumerate(Figures._fields)
        if every
    }
