"""What a method does with PEFT's own fields, tried on a tiny twin of the run's model before it is loaded.

`method.peft` passes any field on that the installed PEFT has, and what such a field does under checkpointing,
in packed rows or on quantized weights is not known beforehand. What the run asks for is done with the twin.
"""

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Note
from graftlab.errors import ConfigError
from graftlab.runs.twin import Failed, Twin, attach, backbone, make, outputs, without

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.contracts import Attached
    from graftlab.runfile import RunFile

TOLERANCE = 1e-3  # of the largest value; rounding of these sizes is about 1e-6


def of_fields(file: "RunFile") -> tuple[Note, ...]:
    """Return which fields do nothing, what cannot be done with the adapter afterwards, or could not be tried.

    Nothing is done where `method.peft` is empty.

    Raises:
        ConfigError: with these fields the method does not do what the run asks.
    """
    from graftlab.backbones import _pretrained

    given = getattr(file.method.config, "peft", None)
    if not given:
        return ()
    with (
        tempfile.TemporaryDirectory(prefix="graftlab-twin-") as folder,
        warnings.catch_warnings(action="ignore"),
        _pretrained.quiet(),
    ):
        try:
            twin = make(file, Path(folder) / "model")
        except Exception as error:  # of transformers or torch, of any class
            return (Note.of("peft_not_tried", given=given, error=_said(error)),)
        for what, trial in TRIALS.items():
            with _naming(given, what):
                trial(twin)
        notes = [Note.of("peft_no_effect", field=name) for name in _idle(twin)]
        try:
            if file.method.module.PROMISES.mergeable is True:
                _merges(twin, Path(folder) / "merged")
        except Exception as error:  # the same; the run itself is not concerned
            notes.append(Note.of("peft_not_merged", given=given, error=_said(error)))
    return tuple(notes)


@contextlib.contextmanager
def _naming(given: dict[str, Any], what: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise  # of ours, which says what to do
    except Exception as error:  # of peft, transformers or torch, of any class
        raise ConfigError(
            f"method.peft {given} does not work {what}, as a small model of this architecture shows: "
            f"{_said(error)} Change method.peft, or what the run asks."
        ) from error


def _said(error: Exception) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _same(found: "Tensor", expected: "Tensor", what: str) -> None:
    largest = max(float(expected.abs().max()), 1e-6)
    off = float((found - expected).abs().max()) / largest
    if not off <= TOLERANCE:
        raise Failed(f"{what} by {off:.1%} of the largest")


def _gradients(twin: Twin, attached: "Attached") -> "dict[str, Tensor]":
    """Return each gradient after an evaluation, as a run has them, of a weighted sum of the outputs."""
    import torch

    model = attached.model
    with torch.no_grad():
        outputs(twin, model.eval())
    logits = outputs(twin, model.train())
    (logits @ torch.linspace(-1, 1, len(logits))).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _trains(twin: Twin) -> None:
    if not _gradients(twin, attach(twin)):
        raise Failed("nothing gets a gradient")


def _idle(twin: Twin) -> Iterator[str]:
    """Yield the fields without which modules, outputs and gradients are the same."""
    import torch

    attached = attach(twin)
    gradients = _gradients(twin, attached)
    with torch.no_grad():
        expected = outputs(twin, attached.model.eval())
    for name in twin.file.method.config.peft:
        other = attach(without(twin, name))
        if str(other.model.eval()) != str(attached.model):
            continue
        with torch.no_grad():
            same = torch.equal(outputs(twin, other.model), expected)
        found = _gradients(twin, other)
        if (
            same
            and found.keys() == gradients.keys()
            and all(torch.equal(found[key], gradients[key]) for key in found)
        ):
            yield name


def _checkpoints(twin: Twin) -> None:
    if not twin.file.training.gradient_checkpointing:
        return
    expected = _gradients(twin, attach(twin))
    found = _gradients(twin, attach(twin, checkpointing=True))
    if found.keys() != expected.keys():
        raise Failed("other weights get a gradient than without it")
    for name, gradient in expected.items():
        _same(found[name], gradient, f"the gradient of {name} is off")


def _packs(twin: Twin) -> None:
    if not twin.file.task.module.packs(twin.file.task.config):
        return
    import torch

    from graftlab.tasks import _packing

    model, inputs = attach(twin).model.eval(), twin.inputs
    rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    texts = [ids[: int(mask.sum())].numpy() for ids, mask in rows]
    arrays = _packing.collate([_packing.Example(ids, ids) for ids in texts], None, 0)
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    how = _packing.isolation(twin.plain.model)
    with torch.no_grad():
        packed = model(**_packing.inputs(batch, model, how)).logits[0]
        alone = [
            model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0] for ids in texts
        ]
    _same(packed, torch.cat(alone), "outputs of examples in one row are off")


def _saves(twin: Twin) -> None:
    import torch

    method, attached = twin.file.method, attach(twin)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        expected = outputs(twin, attached.model.eval())
        method.module.save(attached.model, Path(folder))
        loaded = method.module.load(backbone(twin), method.config, Path(folder))
        _same(outputs(twin, loaded.eval()), expected, "outputs after loading are off")


def _turns_off(twin: Twin) -> None:
    import torch

    attached, own = attach(twin), backbone(twin)
    with torch.no_grad(), twin.file.method.module.off(attached.model):
        found = outputs(twin, attached.model.eval())
        expected = outputs(twin, own.model.eval())
    _same(found, expected, "turned off, outputs are off the backbone's")


def _merges(twin: Twin, folder: Path) -> None:
    """Fold the adapter into plain weights, write them, and load them as anybody does."""
    import torch

    attached = attach(twin, quantized=False)
    with torch.no_grad():
        expected = outputs(twin, attached.model.eval())
        merged: Any = twin.file.method.module.merge(attached.model)
        merged.save_pretrained(folder)
        again = type(twin.plain.model).from_pretrained(folder).eval()  # type: ignore[attr-defined]
        _same(outputs(twin, again), expected, "outputs of the merged model are off")


TRIALS: dict[str, Callable[[Twin], None]] = {
    "in training": _trains,
    "with training.gradient_checkpointing": _checkpoints,
    "with task.packing": _packs,
    "once saved and loaded": _saves,
    "when it is turned off": _turns_off,
}
