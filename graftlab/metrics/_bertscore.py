"""Texts beside references, word piece by word piece, in the states of an encoder: precision, recall and F1.

By the package bert-score, whose matching this is; what it does not take (transformers 5: an empty text, a
tokenizer that names no longest input) never reaches it. torchmetrics has the same figures, but returns them
in the order of the texts' lengths.
"""

import functools
import importlib.metadata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.backbones._pretrained import quiet
from graftlab.errors import ConfigError, ModelError
from graftlab.weights import pretrained

if TYPE_CHECKING:
    from torch import nn

BATCH = 64  # texts that are encoded at a time
MOST_KEPT = 200_000  # pairs whose figures are kept: several metrics ask for the same
Pair = tuple[str, str]
"""A text and its reference."""


class Figures(NamedTuple):
    """How a text does beside a reference, each at most 1."""

    precision: float
    recall: float
    f1: float


NOTHING = Figures(0.0, 0.0, 0.0)
"""Of a text without a word, as the package has it where it can."""


@dataclass
class Matcher:
    """An encoder cut off behind a layer."""

    model: "nn.Module"
    tokenizer: Any
    source: str
    """Where its weights are from: a hub id or a folder."""
    layer: int
    max_length: int
    _known: dict[Pair, Figures] = field(default_factory=dict)

    @property
    def measured_by(self) -> str:
        """What a figure has to be named with to be compared: model, layer, length, versions."""
        versions = (f"{n}={importlib.metadata.version(n)}" for n in ("bert-score", "transformers"))
        name = Path(self.source).name if Path(self.source).is_dir() else self.source
        parts = (name, f"L{self.layer}", f"len{self.max_length}", "no-idf", *versions)
        return "_".join((*parts, "fast-tokenizer" if self.tokenizer.is_fast else "slow-tokenizer"))

    def match(self, pairs: Iterable[Pair]) -> dict[Pair, Figures]:
        """Return the figures of each pair; a text without a word has `NOTHING`."""
        wanted = list(dict.fromkeys(pairs))
        new = [pair for pair in wanted if pair[0].strip() and pair not in self._known]
        if len(self._known) > MOST_KEPT:
            self._known = {}
            new = [pair for pair in wanted if pair[0].strip()]
        self._known |= dict(zip(new, self._matched(new), strict=True))
        return {pair: self._known[pair] if pair[0].strip() else NOTHING for pair in wanted}

    def _matched(self, pairs: list[Pair]) -> list[Figures]:
        if not pairs:
            return []
        from bert_score.utils import bert_cos_score_idf

        weights: defaultdict[int, float] = defaultdict(
            lambda: 1.0
        )  # all tokens alike but the outer
        weights |= {self.tokenizer.sep_token_id: 0.0, self.tokenizer.cls_token_id: 0.0}
        texts, references = ([pair[side] for pair in pairs] for side in (0, 1))
        device = next(self.model.parameters()).device
        found_N3 = bert_cos_score_idf(
            self.model, references, texts, self.tokenizer, weights, batch_size=BATCH, device=device
        )
        # a cosine is at most 1; float32 makes a little more of it
        return [Figures(*(min(value, 1.0) for value in row)) for row in found_N3.tolist()]


@functools.lru_cache(maxsize=2)
def opened(model: str, layer: int, max_length: int) -> Matcher:
    """Return an encoder, cut off behind `layer`; 0 is the one that bert-score recommends, else the last.

    Raises:
        ConfigError: it has no such layer, or fewer positions.
        ModelError: it cannot be found or read, or is no encoder that the package knows.
    """
    from bert_score.utils import get_model, get_tokenizer
    from bert_score.utils import model2layers as recommended

    located = pretrained.locate(model)
    config = pretrained.read_config(located.folder)
    deepest, longest = config.get("num_hidden_layers"), config.get("max_position_embeddings")
    known = next((name for name in names_of(located.source) if name in recommended), None)
    layer = layer or (recommended[known] if known else deepest) or 0
    if not isinstance(deepest, int) or not 1 <= layer <= deepest:
        said = f"bertscore.layer {layer}: {model} has the layers 1 to {deepest}."
        raise ConfigError(said, kind="not_allowed", given=layer, allowed=f"1 to {deepest}")
    if isinstance(longest, int) and max_length > longest:
        said = f"bertscore.max_length {max_length}: {model} reads {longest} tokens."
        raise ConfigError(said, kind="not_allowed", given=max_length, allowed=f"1 to {longest}")
    try:
        with quiet():
            tokenizer = get_tokenizer(str(located.folder), use_fast=True)
            cut = get_model(str(located.folder), layer)
    except (OSError, ValueError, AssertionError, KeyError, AttributeError) as error:
        said = f"bertscore.model {model} cannot be read by bert-score: {error}"
        raise ModelError(said, kind="unreadable", given=model) from error
    tokenizer.model_max_length = max_length
    return Matcher(cut, tokenizer, located.source, layer, max_length)


def names_of(source: str) -> tuple[str, ...]:
    """Return what bert-score may know a model by: it has `roberta-large` for FacebookAI/roberta-large."""
    return source, source.rpartition("/")[2]


def baseline(path: str, source: str, layer: int) -> Figures:
    """Return what unrelated texts reach on a layer: of a table as bert-score has them, or with `known` of
    that which the package has for the model.

    Raises:
        ConfigError: there is no such table, or it does not have the layer.
    """
    import bert_score

    folder = Path(bert_score.__file__).parent / "rescale_baseline" / "en"
    tables = [folder / f"{name}.tsv" for name in names_of(source)] if path == "known" else []
    table = next((one for one in [*tables, Path(path)] if one.is_file()), None)
    if table is None:
        which = f"bert-score has none for {source}" if path == "known" else f"there is no {path}"
        remedy = "Name a table with the columns LAYER,P,R,F; or leave it out: figures are then raw."
        raise ConfigError(f"bertscore.baseline: {which}. {remedy}", kind="missing", given=path)
    for line in table.read_text(encoding="utf-8").splitlines():
        number, *values = line.replace("\t", ",").split(",")
        if number.strip() == str(layer) and len(values) == len(Figures._fields):
            return Figures(*map(float, values))
    said = f"bertscore.baseline: {table} has no layer {layer}."
    raise ConfigError(said, kind="missing", given=path)
