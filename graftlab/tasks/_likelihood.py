"""The log-likelihood that a causal language model gives to each choice of a question.

A choice's score is the sum of log p(token | all before it) over the tokens of the choice, as in the
Language Model Evaluation Harness (its `acc`; divided by the choice's characters, its `acc_norm`). Training
minimises the same sum for the right choice alone: the loss of a language model on its answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.contracts import Batch, Data, Row, inputs_of
from graftlab.tasks._logits import cross_entropy
from graftlab.tasks._outputs import UNKNOWN

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

# Shapes: N questions, C choices, S sequences (N, or N C), L tokens of the longest, K positions whose
# logits are needed, M tokens that are scored, V vocabulary.

TEXTS = 4096  # given to the tokenizer at once: bounds the memory of what it returns


class Texts(NamedTuple):
    """What is tokenized of a split with N questions."""

    prompts: list[str]
    """(N), without white space at the end: it belongs to the choice."""
    wholes: list[str]
    """(N C), prompt and choice."""


class Tokens(NamedTuple):
    """One choice after its prompt."""

    ids: list[int]
    start: int
    """Where the choice begins; at least 1, for a token needs one before it."""
    cut: bool
    """Whether it was longer than the model takes."""


def own_start(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that the tokenizer puts before any text (what it puts after is not wanted)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    places = range(len(whole) - len(bare) + 1)
    return whole[: next(i for i in places if whole[i : i + len(bare)] == bare)]


def join(
    prompt: list[int], whole: list[int], start: list[int], stand_in: int, max_length: int
) -> Tokens:
    """Return prompt and choice, `whole`, which were tokenized together, split where they part.

    The choice begins where the tokens of both first differ from those of the `prompt` alone: a token that
    reaches over the border is scored. Too long a sequence loses the beginning of its prompt, as in the
    harness, and only then the end of its choice; the tokens in `start` stay. Where nothing else stands
    before the choice, `stand_in` does.
    """
    same = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False))
    border = min(sum(1 for _ in same), len(whole) - 1)
    start = start or ([] if border else [stand_in])
    room = max_length - len(start)
    choice = whole[border:][: room if start else room - 1]
    kept = whole[max(0, border - (room - len(choice))) : border]
    cut = len(kept) + len(choice) < len(whole)
    return Tokens([*start, *kept, *choice], len(start) + len(kept), cut)


class Sequences:
    """The tokens of a split's choices, each after its prompt: 4 bytes a token."""

    def __init__(
        self,
        texts: "Texts",
        num_choices: int,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
    ) -> None:
        import numpy as np

        start = own_start(tokenizer)
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
        stand_in = next(token for token in ends if token is not None)
        prompts = chain.from_iterable([p] * num_choices for p in _encode(tokenizer, texts.prompts))
        found = [
            join(prompt, whole, start, stand_in, max_length)
            for prompt, whole in zip(prompts, _encode(tokenizer, texts.wholes), strict=True)
        ]
        self._pad = tokenizer.pad_token_id or 0
        self._starts = np.array([tokens.start for tokens in found], dtype=np.int64)
        self._lengths = np.array([len(tokens.ids) for tokens in found], dtype=np.int64)
        self._ends = np.cumsum(self._lengths)
        self._flat_T = np.fromiter(chain.from_iterable(t.ids for t in found), dtype=np.int32)
        cut = np.array([tokens.cut for tokens in found], dtype=bool)
        self.truncated = int(cut.reshape(-1, num_choices).any(-1).sum())
        """How many questions have a choice that was too long with its prompt."""
        self.lengths = self._lengths.reshape(-1, num_choices).max(-1)
        """Tokens of each question's longest sequence."""

    def pad(self, sequences: Sequence[int]) -> "dict[str, np.ndarray]":
        """Return the model's inputs and `labels` (S, L): the tokens of the choices, `UNKNOWN` elsewhere.

        They are padded on the right, where a causal model has read all that counts.
        """
        import numpy as np

        shape = len(sequences), int(self._lengths[list(sequences)].max())
        ids_SL = np.full(shape, self._pad, dtype=np.int64)
        mask_SL = np.zeros(shape, dtype=np.int64)
        labels_SL = np.full(shape, UNKNOWN, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            length, start = self._lengths[sequence], self._starts[sequence]
            tokens = self._flat_T[self._ends[sequence] - length : self._ends[sequence]]
            ids_SL[row, :length] = tokens
            mask_SL[row, :length] = 1
            labels_SL[row, start:length] = tokens[start:]
        return {"input_ids": ids_SL, "attention_mask": mask_SL, "labels": labels_SL}


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> Iterator[list[int]]:
    for start in range(0, len(texts), TEXTS):
        yield from tokenizer(texts[start : start + TEXTS], add_special_tokens=False)["input_ids"]


class LikelihoodTask:
    """Choices scored by a causal language model.

    A batch of an epoch holds the right choices (N, L), as any language model trains on them. A batch for
    evaluation holds all choices (N, C, L), with `answers` (N) and `units` (N, C), by which scores are
    divided.
    """

    def __init__(
        self,
        data: Data,
        texts: Mapping[str, Texts],
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        options: "Options",
    ) -> None:
        import numpy as np

        self.problem = data.problem
        self.metrics = options.metrics
        self._rows = data.splits
        self._keeps_last = options.keeps_last
        self._sequences = {
            split: Sequences(found, len(data.problem.labels), tokenizer, max_length)
            for split, found in texts.items()
        }
        self._answers = {
            split: np.array([_answer(row) for row in rows], dtype=np.int64)
            for split, rows in data.splits.items()
        }
        self._normalise = options.normalise
        self._characters = {
            split: np.array([[len(c) for c in row["choices"]] for row in rows], dtype=np.int64)
            for split, rows in data.splits.items()
        }
        cut = {split: found.truncated for split, found in self._sequences.items()}
        self.record = {
            "max_length": max_length,
            "truncated": {split: count for split, count in cut.items() if count},
        }

    def size(self, split: str) -> int:
        return len(self._answers.get(split, ()))

    def lengths(self, split: str) -> Sequence[int]:
        return self._sequences[split].lengths.tolist()

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        import numpy as np
        import torch

        sequences = self._sequences[split]
        chosen, C = np.asarray(indices, dtype=np.int64), len(self.problem.labels)
        answers_N = self._answers[split][chosen]
        if epoch is not None:
            assert (answers_N != UNKNOWN).all(), "only questions with an answer train"
            arrays = sequences.pad((chosen * C + answers_N).tolist())
        else:
            flat = sequences.pad((chosen[:, None] * C + np.arange(C)).ravel().tolist())
            arrays = {name: x.reshape(len(chosen), C, -1) for name, x in flat.items()}
            arrays["answers"] = answers_N
            arrays["units"] = self._units(split, chosen, arrays["labels"])
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _units(self, split: str, chosen: Any, labels_NCL: Any) -> Any:
        """Return by what each choice's log-likelihood is divided (N, C)."""
        if self._normalise == "characters":
            return self._characters[split][chosen]
        if self._normalise == "tokens":
            return (labels_NCL != UNKNOWN).sum(-1)
        return self._characters[split][chosen] * 0 + 1

    def inputs(self, split: str, index: int) -> dict[str, object]:
        return inputs_of(self._rows[split][index])

    def source_row(self, split: str, index: int) -> int:
        return int(self._rows[split][index]["index"])

    def count(self, batch: Batch) -> int:
        return int((right_choices(batch)["labels"] != UNKNOWN).sum())

    def loss(self, model: "nn.Module", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        losses_SK = self._losses(model, right_choices(batch), label_smoothing)
        return losses_SK.sum()

    def predict(self, model: "nn.Module", batch: Batch) -> list[dict[str, object]]:
        N, C, L = batch["input_ids"].shape
        sequences = {
            name: batch[name].reshape(N * C, L)
            for name in ("input_ids", "attention_mask", "labels")
        }
        losses_NC = self._losses(model, sequences).sum(-1).reshape(N, C)
        counts_NC = (batch["labels"] != UNKNOWN).sum(-1)
        scores_NC = -losses_NC / batch["units"]
        best_N, shares_NC = scores_NC.argmax(-1).tolist(), scores_NC.softmax(-1).tolist()
        rows = []
        for i, answer in enumerate(batch["answers"].tolist()):
            known = answer != UNKNOWN
            rows.append(
                {
                    "label": answer if known else None,
                    "prediction": best_N[i],
                    "probabilities": shares_NC[i],
                    "loss": losses_NC[i, answer].item() if known else None,
                    "count": int(counts_NC[i, answer]) if known else None,
                }
            )
        return rows

    def _losses(
        self, model: "nn.Module", sequences: Batch, label_smoothing: float = 0.0
    ) -> "Tensor":
        """Return the loss of each token (S, K), 0 where there is none to be scored.

        Logits are asked for, and looked at, only from the token before the first choice on.
        """
        labels_SL = sequences["labels"]
        scored_L = (labels_SL != UNKNOWN).any(0)
        first = max(1, int(scored_L.int().argmax()))  # 0 where nothing is scored
        labels_SK = labels_SL[:, first:]
        num_kept = labels_SL.shape[1] - first + 1
        fewer = {"logits_to_keep": num_kept} if self._keeps_last else {}
        inputs = {name: x for name, x in sequences.items() if name != "labels"}
        # From the end, because a method's virtual tokens stand in front; the last one predicts nothing.
        logits_SKV = model(**inputs, **fewer).logits[:, -num_kept:-1]
        scored_SK = labels_SK != UNKNOWN
        losses_M = cross_entropy(logits_SKV[scored_SK], labels_SK[scored_SK], label_smoothing)
        losses_SK = losses_M.new_zeros(labels_SK.shape)
        losses_SK[scored_SK] = losses_M
        return losses_SK


class Options(NamedTuple):
    """What the run file and the model say of a `LikelihoodTask`."""

    metrics: tuple[str, ...]
    normalise: str
    """`none`, `tokens` or `characters`."""
    keeps_last: bool
    """Whether the model can be asked for the logits of the last positions only."""


def _answer(row: Row) -> int:
    return UNKNOWN if row["label"] is None else row["label"]


def right_choices(batch: Batch) -> Batch:
    """Return the right choices as a language model's batch (N, L); nothing is scored of an unknown one."""
    import torch

    if batch["input_ids"].dim() == 2:
        return batch
    answers_N = batch["answers"]
    rows_N = torch.arange(len(answers_N), device=answers_N.device)
    names = ("input_ids", "attention_mask", "labels")
    chosen = {name: batch[name][rows_N, answers_N.clamp(min=0)] for name in names}
    chosen["labels"] = chosen["labels"].masked_fill((answers_N == UNKNOWN)[:, None], UNKNOWN)
    longest = int(chosen["attention_mask"].sum(-1).max())
    return {name: x[:, :longest] for name, x in chosen.items()}
