"""A probe that learns another task from what a frozen backbone puts out.

The features of an example are the mean of the backbone's last hidden states over its tokens; the probe is a
logistic regression on them (Alain & Bengio, 2016, arXiv 1610.01644).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from graftlab.contracts import OF_TASK, Batch, Prediction, Task
from graftlab.errors import DataError, ModelError
from graftlab.inference.adapted import Adapted
from graftlab.runs import prediction

if TYPE_CHECKING:
    from torch import nn

# Shapes: N examples, L tokens, H hidden features.

REGULARIZATION = 1.0
"""C, on features of variance 1: scikit-learn's own."""


def probed(
    adapted: Adapted, task: Task, drawn: Mapping[str, Sequence[int]], batch_size: int
) -> list[Prediction]:
    """Return what a probe predicts of test that has learnt the task from features of train; `drawn` are the
    examples of both that count.

    Raises:
        DataError: train has one class.
        ModelError: the backbone puts out no hidden states, or some that are not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen = _Features(task, adapted, batch_size)
    train_NH, labels = seen.of("train", drawn["train"])
    if len({*labels}) < 2:
        raise DataError("train has one class: there is nothing to tell apart.", kind="conflict")
    test_NH, wanted = seen.of("test", drawn["test"])
    learner = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=1000))
    said = learner.fit(train_NH, labels).predict(test_NH).tolist()
    return [
        {"index": index, "label": label, "prediction": answer}
        for index, label, answer in zip(drawn["test"], wanted, said, strict=True)
    ]


class _Features:
    """What a backbone puts out for the examples of a task, in the place of predictions."""

    def __init__(self, task: Task, adapted: Adapted, batch_size: int) -> None:
        self._task, self._adapted, self._batch_size = task, adapted, batch_size
        kind = type(getattr(adapted.backbone.model, "base_model", None))
        body = next((own for own in adapted.model.modules() if type(own) is kind), None)
        if body is None:
            raise ModelError(
                f"{type(adapted.model).__name__} holds no backbone whose features can be read.",
                kind="conflict",
            )
        self._body: nn.Module = body
        self._seen: Any = None

    def of(self, split: str, only: Sequence[int]) -> tuple[NDArray[np.float64], list[int]]:
        """Return the features (N, H) of some examples, and their labels."""
        handle = self._body.register_forward_hook(self._see)
        try:
            with self._adapted.precision():
                asked = cast("Task", self)  # as far as predicting goes
                rows = prediction.predict(
                    self._adapted.model, asked, split, self._batch_size, only=only,
                    quiet=self._adapted.quiet,
                )  # fmt: skip
        finally:
            handle.remove()
        return np.stack([row["features"] for row in rows]), [row["label"] for row in rows]

    def _see(self, module: "nn.Module", arguments: object, outputs: Any) -> None:
        self._seen = getattr(outputs, "last_hidden_state", None)

    def lengths(self, split: str) -> Sequence[int]:
        return self._task.lengths(split)

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        return self._task.batch(split, indices, epoch)

    def predict(self, model: "nn.Module", batch: Batch) -> list[Prediction]:
        """Return `features` (H,) and `label` of each example.

        Raises:
            ModelError: the backbone puts out no hidden states, or some that are not finite.
        """
        labels = batch["labels"].tolist()
        inputs = {k: v for k, v in batch.items() if k != "labels" and not k.startswith(OF_TASK)}
        model(**inputs)
        if self._seen is None:
            said = f"{type(self._body).__name__} puts out no hidden states."
            raise ModelError(said, kind="conflict")
        features_NH = _mean(self._seen, inputs.get("attention_mask"))
        if not np.isfinite(features_NH).all():
            raise ModelError("a feature is not finite.", kind="not_finite")
        return [
            {"label": label, "features": own_H}
            for label, own_H in zip(labels, features_NH, strict=True)
        ]


def _mean(hidden_NLH: Any, mask_NL: Any) -> NDArray[np.float64]:
    """Return the mean (N, H) over the tokens that are there; of virtual ones in front nothing."""
    hidden_NLH = hidden_NLH.double()
    if mask_NL is None:
        mean_NH = hidden_NLH.flatten(1, -2).mean(1)
    else:
        hidden_NLH = hidden_NLH[:, -mask_NL.shape[1] :]
        weight_NL1 = mask_NL.to(hidden_NLH)[..., None]
        mean_NH = (hidden_NLH * weight_NL1).sum(1) / weight_NL1.sum(1)
    found: NDArray[np.float64] = mean_NH.cpu().numpy()
    return found
