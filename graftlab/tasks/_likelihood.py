"""The log-likelihood that a causal language model gives to each choice of a question.

A choice's score is the sum of log p(token | all before it) over the tokens of the choice, as in the
Language Model Evaluation Harness (its `acc`; divided by the choice's characters, its `acc_norm`). Training
minimises the same sum for the right choice alone: the loss of a language model on its answer.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.contracts import Batch, Data, Row, inputs_of
from graftlab.tasks._choice_tokens import Sequences, Texts
from graftlab.tasks._logits import cross_entropy
from graftlab.tasks._outputs import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

# Shapes: N questions, C choices, S sequences (N, or N C), L tokens of the longest, K positions whose
# logits are needed, M tokens that are scored, V vocabulary.


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
