"""The side of the program: it is executed, and then does what it is asked."""

import os
import sys
import types
from typing import Any

from .wire import Channel, Gone, decode, encode


class Kept:
    """Objects that stay here, by number."""

    def __init__(self) -> None:
        self._objects: list[object] = []

    def keep(self, value: object) -> dict[str, object]:
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        for place, one in enumerate(self._objects):
            if one is value:
                return {"kept": place}
        self._objects.append(value)
        return {"kept": len(self._objects) - 1}

    def find(self, value: dict[str, Any]) -> Any:
        return self._objects[value["kept"]]


def main(arguments: list[str]) -> None:
    """Answer requests from standard input on standard output, which the program itself has not."""
    channel = Channel(os.dup(0), os.dup(1))
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    sys.set_int_max_str_digits(0)
    module = types.ModuleType("program")
    sys.modules["program"] = module
    kept = Kept()
    while True:
        try:
            request = channel.receive()
        except Gone:
            return
        try:
            answer = {"value": encode(_do(request, module, kept), kept.keep)}
        except Exception as error:  # whatever it is, the tests are told
            answer = {"error": type(error).__name__, "message": str(error)[:200]}
        channel.send(answer)


def _do(request: dict[str, Any], module: types.ModuleType, kept: Kept) -> Any:
    what = request["do"]
    if what == "execute":
        exec(compile(request["program"], "program", "exec"), module.__dict__)
        return None
    if what == "global":
        return getattr(module, request["name"])
    of = kept.find(request["of"])
    arguments, named = (decode(request.get(key), kept.find) for key in ("arguments", "named"))
    if what == "call":
        return of(*arguments, **named)
    if what == "get":
        return getattr(of, *arguments)
    if what == "set":
        return setattr(of, *arguments)
    if what == "list":
        return list(of)
    if what == "item":
        return of[arguments[0]]
    if what == "length":
        return len(of)
    assert what == "bool", what
    return bool(of)
