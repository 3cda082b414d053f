"""bitsandbytes without torch's compiler, which it asks for two functions as soon as it is imported.

Every run with peft imports bitsandbytes, and few call those functions, of 4-bit weights on a CPU: a second
and 30 MB for nothing. They are compiled at their first call instead.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

ASKING = "bitsandbytes.backends.default.ops"


def deferred(function: Callable[..., object], **options: object) -> Callable[..., object]:
    """Return the function as `torch.compile` makes it with these options, once it is called."""

    @functools.cache
    def compiled() -> Callable[..., object]:
        import torch

        found: Callable[..., object] = torch.compile(function, **options)  # type: ignore[call-overload]
        return found

    @functools.wraps(function)
    def call(*args: object, **named: object) -> object:
        return compiled()(*args, **named)

    return call


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        import torch

        compiled = torch.compile
        torch.compile = deferred  # type: ignore[assignment]
        try:
            super().exec_module(module)
        finally:
            torch.compile = compiled


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != ASKING:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is None or not isinstance(found.loader, importlib.machinery.SourceFileLoader):
            return found
        loader = _Loader(fullname, found.loader.path)
        return importlib.util.spec_from_file_location(fullname, found.origin, loader=loader)


sys.meta_path.insert(0, _Finder())
