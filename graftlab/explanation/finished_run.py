"""A run of this project as what an analysis asks: its weights at a kept step, and those of its backbone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab import inference, runfile
from graftlab.adapters import PREFIX
from graftlab.contracts import About, Change, Differentiable, Merged
from graftlab.contracts.analysis import NO_CHANGE
from graftlab.errors import ConfigError
from graftlab.explanation import chosen, hidden, sample
from graftlab.explanation.spool import Spool
from graftlab.inference import Adapted
from graftlab.rundir import run
from graftlab.rundir.lines import read_lines
from graftlab.runs import material
from graftlab.training import checkpoint
from graftlab.weights import quantized, surgery

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from graftlab.contracts.arrays import Floats


HEAD_WRAPPED, HEAD_BEFORE = ".modules_to_save.default", ".original_module."
"""What PEFT puts into the name of a head that trains, and of the copy that does not."""


class RunState:
    """A run at one of its kept steps; None is what it has come to.

    Its model is loaded once, when it is first asked, and what it has changed is set aside.
    """

    def __init__(
        self,
        path: Path,
        step: int | None,
        about: About,
        spool: Spool,
        matrices: Sequence[str] = (),
    ) -> None:
        """`about` has what the model is called, and what its file does not say; of the weights only those of
        certain `matrices` count, all unless given."""
        self._path, self._step, self._about, self._spool = path, step, about, spool
        self._matrices = matrices
        self._names: list[str] | None = None

    @cached_property
    def about(self) -> About:
        file = runfile.of_run(run.Run(self._path))
        step = self._step
        if step is None:
            step = int(run.Run(self._path).read_result()["selected_step"])
        rank = getattr(file.method.config, "rank", None)
        task = file.resolved["task"].get("name") or file.task.name
        given = self._about
        return About(
            given.model, step, given.method or file.method.name, rank, given.task_type or str(task)
        )

    def names(self) -> Sequence[str]:
        if self._names is None:
            self._names = list(self._set_aside())
        return self._names

    def change(self, name: str) -> Change:
        self.names()
        if (key := self._key("new", name)) in self._spool:
            return Change(name, self._spool.get(key)["left"], None, new=True)
        held = self._spool.get(self._key("change", name))
        return Change(name, held["left"], held.get("right"))

    def base(self, name: str) -> "Tensor | None":
        self.names()
        key = self._key("base", name)
        return self._spool.get(key)["weight"] if key in self._spool else None

    def recorded(self, table: str) -> Sequence[Mapping[str, Any]]:
        return read_lines(run.Run(self._path).recorded(table))

    def differentiable(self, examples: int) -> Differentiable | str:
        """Return the model as of its step, with a loss of its own task or on one sentence."""
        adapted = inference.load(self._path, device="cpu", step=self._step)
        if self._step is None:  # loaded for use: nothing of it trains
            sample.train_again(adapted.model, adapted.run.adapter_folder)
        return _with_loss(adapted, examples)

    def merged(self, examples: int) -> Merged | str:
        """Return the model as of its step with the change in its weights, and its losses."""
        adapted = inference.load(self._path, device="cpu", step=self._step)
        method = adapted.file.method.module
        if not method.PROMISES.mergeable:
            return f"it cannot be merged: {method.PROMISES.mergeable.reason}"
        adapted = replace(adapted, model=method.merge(adapted.model).eval())
        sample.train_again(adapted.model)
        found = _with_loss(adapted, examples)
        return sample.merged(found, _tokenizer(adapted), _writes(adapted))

    def activations(self, texts: Sequence[str], before: bool = False) -> "Sequence[Floats] | str":
        """Return those of the model as of its step, or of its backbone."""
        adapted = inference.load(self._path, device="cpu", step=self._step)
        tokenizer = _tokenizer(adapted)
        if tokenizer is None:
            return "texts are no input of this model"
        if not before:
            return hidden.of_texts(adapted.model, tokenizer, texts)
        if adapted.file.method.module.PROMISES.turns_off:
            with adapted.file.method.module.off(adapted.model):
                return hidden.of_texts(adapted.model, tokenizer, texts)
        untouched = material.backbone(adapted.file, adapted.problem).model
        return hidden.of_texts(untouched, tokenizer, texts)

    def _key(self, what: str, name: str) -> str:
        step = "" if what == "base" else f"/{self._step}"
        return f"{what}/{self._path.absolute()}{step}/{name}"

    def _set_aside(self) -> Iterator[str]:
        adapted = inference.load(self._path, device="cpu", step=self._step)
        subject = _Loaded(adapted, self._matrices)
        for name, left, right, new in subject.changes():
            factors = {"left": left} if right is None else {"left": left, "right": right}
            self._spool.put(self._key("new" if new else "change", name), factors)
            key = self._key("base", name)
            if new or key in self._spool:
                pass  # nothing was there before, or it is set aside already
            elif (weight := subject.base(name)) is not None:
                self._spool.put(key, {"weight": weight})
            yield name


def steps(path: Path) -> list[int]:
    """Return the steps of a run whose checkpoints are kept."""
    return checkpoint.steps(run.Run(path).checkpoints)


def _with_loss(adapted: Adapted, examples: int) -> Differentiable | str:
    if examples:
        return sample.of_task(adapted, examples)
    tokenizer = _tokenizer(adapted)
    if tokenizer is None:
        return "one sentence is no input of this model; ask with examples"
    return sample.of_sentence(adapted.model, tokenizer, _writes(adapted))


def _writes(adapted: Adapted) -> bool:
    return adapted.problem.kind not in ("classes", "regression")


def _tokenizer(adapted: Adapted) -> "PreTrainedTokenizerBase | None":
    from transformers import PreTrainedTokenizerBase

    processor = adapted.backbone.processor
    return processor if isinstance(processor, PreTrainedTokenizerBase) else None


class _Loaded:
    """What a loaded run has changed of its backbone."""

    def __init__(self, adapted: Adapted, matrices: Sequence[str] = ()) -> None:
        self.adapted, self._matrices = adapted, matrices
        self._untouched: dict[str, Tensor] | None = None

    def changes(self) -> Iterator[Change]:
        """Yield what the method says of each weight; of a plainly tuned model, its difference from before;
        then the matrices of the new head.

        Raises:
            ConfigError: the method does not say how it changes the backbone's weights (`NO_CHANGE`).
        """
        yield from self._changes()
        for name, parameter in self.adapted.model.named_parameters():
            own = name.removeprefix(PREFIX).replace(HEAD_WRAPPED, "")
            new = parameter.dim() > 1 and HEAD_BEFORE not in name and not self._counts(own)
            if new and self._wanted(own):
                yield Change(own, parameter.detach(), None, new=True)

    def _changes(self) -> Iterator[Change]:
        method, model = self.adapted.file.method, self.adapted.model
        if method.module.deltas is not None:
            for name, change in method.module.deltas(model):
                left, right = change if isinstance(change, tuple) else (change, None)
                if not self._wanted(name):
                    continue
                yield Change(name, left.detach(), None if right is None else right.detach())
            return
        tuned = {name: p for name, p in model.named_parameters() if self._counts(name)}
        before = self._before()
        moved = [n for n in before if n in tuned and not tuned[n].equal(before[n])]
        if not moved and method.name != "full":
            raise ConfigError(
                f"{self.adapted.run.path}: the method {method.name} does not change the backbone's own "
                f"weights, or does not say how. Choose a run of full, lora or another that adapts them.",
                kind=NO_CHANGE,
            )
        for name in filter(self._wanted, moved):
            yield Change(name, tuned[name].detach() - before[name], None)

    def base(self, name: str) -> "Tensor | None":
        """Return a weight as it was before the run; of a quantized layer, what its few bits stand for."""
        module = self.adapted.file.method.module
        if module.deltas is None:
            return self._before().get(name)
        with module.off(self.adapted.model):  # PiSSA has the untouched weights back here
            return _weight(self.adapted.model, name)

    def _wanted(self, name: str) -> bool:
        return not self._matrices or chosen.named(name, self._matrices)

    def _counts(self, name: str) -> bool:
        return not surgery.inside(name, self.adapted.backbone.head)

    def _before(self) -> "dict[str, Tensor]":
        """Return the weights of the backbone as it is loaded, without its new head."""
        if self._untouched is None:
            loaded = material.backbone(self.adapted.file, self.adapted.problem)
            self._untouched = {
                name: parameter.detach()
                for name, parameter in loaded.model.named_parameters()
                if self._counts(name)
            }
        return self._untouched


def _weight(model: "nn.Module", name: str) -> "Tensor | None":
    """Return a frozen weight below an adapter by its plain name; None where there is none."""
    place, _, own = name.rpartition(".")
    try:
        module: nn.Module = model.get_submodule(f"{PREFIX}{place}")
    except AttributeError:
        return None
    module = getattr(module, "base_layer", module)
    if own == "weight":
        return quantized.weight(module)
    found: Tensor | None = getattr(module, own, None)
    return None if found is None else found.detach()
