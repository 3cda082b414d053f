"""Answers written by a causal language model: prompts padded on the left, greedy or drawn."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from graftlab.contracts import Backbone, Row
from graftlab.data.labels import Unusable
from graftlab.errors import ConfigError, DataError
from graftlab.seeds import mix
from graftlab.tasks._logits import has_virtual_tokens
from graftlab.tasks.generation.examples import Builder
from graftlab.tasks.generation.fields import Generation
from graftlab.tasks.generation.tokens import Example, Flat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

# Shapes: N prompts, L tokens of the longest and what is written, V vocabulary.

Place = tuple[str, int]
"""An example's split and its place there."""


class RowVectors(Protocol):
    """The vectors that rows stand for."""

    num_tokens: int
    """Places of a prompt that each stands in."""

    @property
    def record(self) -> Mapping[str, object]:
        """Return what they are, as JSON: `width` and what else a method has to know of them."""
        ...

    def take(self, rows: Sequence[Row]) -> "NDArray[np.float32]":
        """Return each row's vector (N, D)."""
        ...


class Writer:
    """Writes answers to rows."""

    def __init__(
        self,
        builder: Builder,
        config: Generation,
        backbone: Backbone,
        max_length: int,
        vectors: RowVectors | None = None,
    ) -> None:
        assert backbone.max_length is not None
        self._builder, self._config, self._vectors = builder, config, vectors
        self._tokenizer = backbone.processor
        self._room = min(max_length, backbone.max_length - config.max_new_tokens)
        self._limit = backbone.max_length
        self._pad = self._tokenizer.pad_token_id or 0
        own = getattr(backbone.model, "generation_config", None)
        ends = getattr(own, "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends]
        found = {end for end in (*ends, self._tokenizer.eos_token_id) if end is not None}
        self.ends = sorted(found | ({turn} if (turn := _end_of_turn(builder)) else set()))

    def check(self) -> None:
        """Check that there is room for an answer.

        Raises:
            ConfigError: the model takes no prompt beside `max_new_tokens`.
        """
        if self._room < 1:
            raise ConfigError(
                f"task.generation.max_new_tokens is {self._config.max_new_tokens}, but the model has "
                f"{self._limit} positions in all, prompt included. Set it lower."
            )

    def write(
        self, model: "nn.Module", rows: Sequence[Row], places: Sequence[Place]
    ) -> list[list[str]]:
        """Return for each row as many answers as `samples` says.

        Raises:
            ConfigError: the model takes no prompt beside `max_new_tokens`.
            DataError: the chat template refuses a row.
        """
        self.check()
        built = self._builder.build(rows, self._room, answered=False)
        prompts: list[Example] = []
        for row, place, example in zip(rows, places, built.examples, strict=True):
            try:
                if example is None:
                    raise Unusable(built.left_out[len(prompts)])
                prompts.append(example.within(self._room))
            except Unusable as reason:
                where = f"{place[0]} row {row['index'] + 1}"
                raise DataError(f"{where} cannot be answered: {reason}.") from None
        found: list[list[str]] = [[""] * self._config.samples for _ in rows]
        for chosen in _groups(model, [len(prompt) for prompt in prompts]):
            flat = Flat([prompts[i] for i in chosen], self._pad)
            arrays = flat.pad(range(len(flat)), left=True)
            del arrays["labels"]
            if self._vectors:
                arrays["vectors"] = self._vectors.take([rows[i] for i in chosen])
            for sample in range(self._config.samples):
                seeds = [mix(self._config.seed, "write", *places[i], sample) for i in chosen]
                for i, text in zip(chosen, self._texts(model, arrays, seeds), strict=True):
                    found[i][sample] = text
        return found

    def _texts(
        self, model: "nn.Module", arrays: "Mapping[str, np.ndarray]", seeds: Sequence[int]
    ) -> list[str]:
        """Return one answer to each prompt; `arrays` are the prompts, padded on the left."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        from graftlab.tasks.generation._next_token import Chooser, StopTexts

        device = next(model.parameters()).device
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        ids_NL = inputs["input_ids"]
        config = GenerationConfig(
            max_new_tokens=self._config.max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            use_cache=True,
            eos_token_id=self.ends,
            pad_token_id=self._pad,
        )
        chooser = Chooser(self._config, inputs["attention_mask"], seeds)
        stop = StopTexts(self._tokenizer, self._config.stop, ids_NL.shape[1])
        written_NL = model.generate(  # type: ignore[operator]
            **inputs,
            generation_config=config,
            logits_processor=LogitsProcessorList([chooser]),
            stopping_criteria=StoppingCriteriaList([stop] if self._config.stop else []),
        )
        return [self._text(ids) for ids in written_NL[:, ids_NL.shape[1] :].tolist()]

    def _text(self, ids: list[int]) -> str:
        """Return what was written before the first end-of-sequence or stop text."""
        end = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        text: str = self._tokenizer.decode(
            ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for stop in self._config.stop:
            text = text.partition(stop)[0]
        return text


def _end_of_turn(builder: Builder) -> int | None:
    """Return the special token that the chat template puts after an answer, if any."""
    if builder.renderer is None:
        return None
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    answers = [segment for segment in builder.renderer.segments(turns) if segment.trained]
    return builder.encoder.end_of(answers[-1].text)


def _groups(model: "nn.Module", lengths: Sequence[int]) -> list[list[int]]:
    """Return the prompts that are written to together: all; of one length where a method's virtual tokens
    stand in front, for padding between them and the prompt would move it."""
    if not has_virtual_tokens(model):
        return [list(range(len(lengths)))] if lengths else []
    return [[k for k, n in enumerate(lengths) if n == length] for length in sorted({*lengths})]
