"""A module as what its kind of part provides: what it leaves out is there too."""

import functools
from types import FunctionType, ModuleType
from typing import Any

from graftlab.errors import ConfigError


@functools.cache
def provided(contract: type, module: ModuleType) -> Any:
    """Return the module's functions and values as a Protocol of `graftlab.contracts`.

    Raises:
        ConfigError: it lacks what no default stands for, or has what is read no longer.
    """
    for old, new in getattr(contract, "RETIRED", {}).items():
        if hasattr(module, old):
            raise ConfigError(
                f"{module.__name__} has {old}, which is read no longer. Write {new}; see "
                f"docs/add-a-method.md."
            )
    names = {n for n in contract.__annotations__.keys() | vars(contract).keys() if n[0] != "_"}
    given = {name: value for name, value in vars(module).items() if name in names}
    members = {n: staticmethod(v) if isinstance(v, FunctionType) else v for n, v in given.items()}
    place, _, name = module.__name__.rpartition(".")
    about = {"__module__": place, "__doc__": module.__doc__}
    part: Any = type(name, (contract,), {**members, **about})
    if lacking := part.__abstractmethods__ | {name for name in names if not hasattr(part, name)}:
        raise ConfigError(
            f"{module.__name__} lacks {', '.join(sorted(lacking))}: see {contract.__name__} in "
            f"graftlab.contracts."
        )
    return part()
