"""Loss and predictions of models that put out one row of logits an example."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.contracts import Batch, Problem, Row

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

# Shapes: N examples of a batch, C classes.

UNKNOWN = -100  # torch's ignore_index: an example without a label


def label_array(rows: Sequence[Row], problem: Problem) -> "np.ndarray":
    """Return the labels as int64 classes or float32 scores; `UNKNOWN` or NaN where there is none."""
    import numpy as np

    labels = [row["label"] for row in rows]
    if problem.kind == "regression":
        return np.array([np.nan if y is None else y for y in labels], dtype=np.float32)
    return np.array([UNKNOWN if y is None else y for y in labels], dtype=np.int64)


def forward(model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
    """Return float32 logits (N, C) and labels (N). The model never sees the labels: given them, PEFT's
    AdaLoRA would add its regulariser to a loss that is not ours."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return model(**inputs).logits.float(), batch["labels"]


def losses(
    problem: Problem, logits_NC: "Tensor", labels_N: "Tensor", label_smoothing: float = 0.0
) -> "Tensor":
    """Return the loss of each example (N); 0 or NaN where the label is unknown."""
    from torch.nn import functional as F

    if problem.kind == "regression":
        return F.mse_loss(logits_NC.squeeze(-1), labels_N.float(), reduction="none")
    return F.cross_entropy(
        logits_NC, labels_N, reduction="none", ignore_index=UNKNOWN, label_smoothing=label_smoothing
    )


def predictions(
    problem: Problem, logits_NC: "Tensor", labels_N: "Tensor"
) -> list[dict[str, object]]:
    """Return per example what `contracts.Task.predict` says."""
    loss_N = losses(problem, logits_NC, labels_N).tolist()
    labels = labels_N.tolist()
    if problem.kind == "regression":
        known = [label == label for label in labels]  # NaN is the only number unlike itself
        values: list[dict[str, object]] = [
            {"prediction": y} for y in logits_NC.squeeze(-1).tolist()
        ]
    else:
        known = [label != UNKNOWN for label in labels]
        values = [
            {"prediction": best, "probabilities": shares}
            for best, shares in zip(
                logits_NC.argmax(-1).tolist(), logits_NC.softmax(-1).tolist(), strict=True
            )
        ]
    return [
        {"label": label if sure else None, **value, "loss": loss if sure else None}
        for label, sure, value, loss in zip(labels, known, values, loss_N, strict=True)
    ]
