"""The next token: penalised, cut to the likely ones, drawn by the example's own generator; and stop texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from graftlab.tasks.generation.fields import Generation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

# Shapes: N prompts, L tokens so far, V vocabulary.


class Chooser(LogitsProcessor):
    """Makes the most probable token the one that is chosen.

    Drawing adds Gumbel noise to the log-probabilities: the largest sum is a draw from them (Gumbel, 1954).
    Each example has a generator of its own, so that its draws do not depend on its batch.
    """

    def __init__(self, config: Generation, mask_NL: "Tensor", seeds: Sequence[int]) -> None:
        self._penalty = config.repetition_penalty
        self._mask_NL = mask_NL.bool()
        self._draws = config.temperature > 0
        self._warpers: list[Any] = []
        if self._draws:
            self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            self._warpers.append(TemperatureLogitsWarper(config.temperature))
            self._warpers += [TopKLogitsWarper(config.top_k)] if config.top_k else []
            self._warpers += [TopPLogitsWarper(config.top_p)] if config.top_p < 1 else []

    def __call__(self, input_ids: "Tensor", scores: "Tensor") -> "Tensor":
        scores_NV = scores.float()
        if self._penalty != 1:
            scores_NV = self._penalised(input_ids, scores_NV)
        for warper in self._warpers:
            scores_NV = warper(input_ids, scores_NV)
        if self._draws:
            scores_NV = scores_NV + self._gumbel(scores_NV)
        return scores_NV

    def _penalised(self, ids_NL: "Tensor", scores_NV: "Tensor") -> "Tensor":
        """Return the scores with those of tokens that stand there already made smaller; padding stands
        nowhere."""
        prompt = self._mask_NL.shape[1]
        seen_NV = torch.zeros_like(scores_NV, dtype=torch.bool)
        for row, ids in enumerate(ids_NL):
            seen_NV[row, ids[:prompt][self._mask_NL[row]]] = True
            seen_NV[row, ids[prompt:]] = True
        smaller = torch.where(scores_NV < 0, scores_NV * self._penalty, scores_NV / self._penalty)
        return torch.where(seen_NV, smaller, scores_NV)

    def _gumbel(self, scores_NV: "Tensor") -> "Tensor":
        size = scores_NV.shape[1]
        uniform = torch.stack([torch.rand(size, generator=g) for g in self._generators])
        # Away from 0, whose logarithm is not finite
        noise = -(-uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log()).log()
        return noise.to(scores_NV.device)


class StopTexts(StoppingCriteria):
    """Ends an answer in which a stop text stands."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str], start: int
    ) -> None:
        self._tokenizer, self._stop, self._start = tokenizer, stop, start
        # No token is less than a byte; a few more for a character that is not whole yet
        self._window = max((len(text.encode()) for text in stop), default=0) + 4

    def __call__(self, input_ids: "Tensor", scores: object, **kwargs: object) -> "Tensor":
        recent = input_ids[:, max(self._start, input_ids.shape[1] - self._window) :]
        texts = self._tokenizer.batch_decode(recent, clean_up_tokenization_spaces=False)
        done = [any(stop in text for stop in self._stop) for text in texts]
        return torch.tensor(done, device=input_ids.device)
