"""A model that was trained whole, beside the one that it began from: its changes are differences."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftlab.contracts import About, Change, Differentiable, Merged
from graftlab.errors import ModelError
from graftlab.explanation import foreign
from graftlab.explanation.stored import Stored, opened

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.contracts.arrays import Floats


class TunedModel:
    """A tuned model's folder and its base's, both streamed."""

    def __init__(self, tuned: str, base: str, about: About) -> None:
        self._tuned, self._base, self._about = tuned, base, about

    @property
    def about(self) -> About:
        return self._about

    @functools.cached_property
    def _pair(self) -> tuple[Stored, Stored]:
        return Stored(self._tuned), opened(self._base)

    def names(self) -> Sequence[str]:
        """Return the weights that differ from the base's, then the matrices that it lacks: a new head.

        Raises:
            ModelError: a weight has another shape there, so that it is another model's base.
        """
        tuned, base = self._pair
        shared = [name for name in tuned.names if base.find(name) is not None]
        if not shared:
            raise ModelError(
                f"{tuned.source} and {base.source} share no weight: {tuned.names[0]} is not in the base. "
                f"Give the model that it was trained from."
            )
        for name in shared:
            if tuned.shape(name) != base.shape(name):
                raise ModelError(
                    f"{tuned.source}: {name} has the shape {list(tuned.shape(name) or ())}, and "
                    f"{list(base.shape(name) or ())} in {base.source}. Give the model that it was "
                    f"trained from."
                )
        new = [n for n in tuned.names if base.find(n) is None and len(tuned.shape(n) or ()) > 1]
        return [*(name for name in shared if not self._same(name)), *new]

    def _same(self, name: str) -> bool:
        after, before = self._pair[0].read(name), self._pair[1].read(name)
        return after is not None and before is not None and bool(after.equal(before))

    def change(self, name: str) -> Change:
        after, before = self._pair[0].read(name), self._pair[1].read(name)
        assert after is not None, name
        if before is None:
            return Change(name, after, None, new=True)
        return Change(name, after - before, None)

    def base(self, name: str) -> "Tensor | None":
        return self._pair[1].read(name)

    def recorded(self, table: str) -> Sequence[Mapping[str, Any]]:
        return ()

    def differentiable(self, examples: int) -> Differentiable | str:
        """Return the tuned model with its loss on one sentence; its task's examples are not known here."""
        return foreign.loaded(str(self._pair[0].folder), self._pair[1].folder, examples)

    def merged(self, examples: int) -> Merged | str:
        """Return the tuned model, which is plain, with its loss on one sentence."""
        return foreign.merged(str(self._pair[0].folder), self._pair[1].folder, examples)

    def activations(self, texts: Sequence[str], before: bool = False) -> "Sequence[Floats] | str":
        """Return those of the tuned model, or of the one that it began from."""
        tuned, base = self._pair
        read = base if before else tuned
        return foreign.activations(str(read.folder), base.folder, texts)
