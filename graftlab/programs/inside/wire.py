"""Calls between the judge and a program: lines of JSON, and values that are rebuilt as plain ones.

Numbers, texts, the built-in collections and types travel by value, whatever derives from them. Anything else
stays where it is and is known to the other side by a number. So nothing of the program's own is ever executed
beside the tests: not its classes, its `__eq__`, or what it has put in the place of a built-in.
"""

import builtins
import json
import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

LONGEST = 16 * 2**20
"""Bytes of a message."""
_TYPES = [one for one in vars(builtins).values() if isinstance(one, type)]
_COLLECTIONS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Gone(Exception):
    """The other side has ended."""


class Channel:
    """Sends and receives messages."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = os.fdopen(incoming, "rb")
        self._outgoing = os.fdopen(outgoing, "wb")

    def send(self, message: object) -> None:
        """Raises: Gone."""
        try:
            self._outgoing.write(json.dumps(message).encode() + b"\n")
            self._outgoing.flush()
        except OSError:
            raise Gone from None

    def receive(self) -> Any:
        """Raises: Gone; ValueError: what came is no message."""
        line = self._incoming.readline(LONGEST)
        if not line.endswith(b"\n"):
            raise Gone
        return json.loads(line)


def encode(value: object, keep: Callable[[object], dict[str, object]]) -> object:
    """Return a value as JSON; `keep` returns what stands for one that stays here."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, Fraction | Decimal):
        return {type(value).__name__: str(value)}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        return {"dict": [[encode(k, keep), encode(v, keep)] for k, v in value.items()]}
    for name, collection in _COLLECTIONS.items():
        if isinstance(value, collection):
            return {name: [encode(one, keep) for one in value]}
    if isinstance(value, type) and value in _TYPES:
        return {"type": value.__name__}
    return keep(value)


def decode(value: object, kept: Callable[[dict[str, object]], object]) -> Any:
    """Return the value that `encode` has written; `kept` returns what stands for one that stayed there."""
    if not isinstance(value, dict):
        return value
    [(name, inside)] = value.items()
    if name in _COLLECTIONS:
        return _COLLECTIONS[name](decode(one, kept) for one in inside)
    if name == "dict":
        return {decode(k, kept): decode(v, kept) for k, v in inside}
    if name == "complex":
        return complex(*inside)
    if name == "bytes":
        return bytes.fromhex(inside)
    if name in ("Fraction", "Decimal"):
        return {"Fraction": Fraction, "Decimal": Decimal}[name](inside)
    if name == "type":
        return next(one for one in _TYPES if one.__name__ == inside)
    return kept(value)
