"""The side of the tests: they are executed here, and call the program in its own sandbox."""

import ast
import builtins
import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .wire import Channel, Gone, decode, encode

if TYPE_CHECKING:
    pass


class There:
    """An object of the program, used from here."""

    def __init__(self, program: "Program", number: dict[str, object]) -> None:
        self.__dict__.update(_program=program, _number=number)  # past __setattr__

    def _ask(self, what: str, *arguments: object, **named: object) -> Any:
        return self._program.ask(what, self._number, arguments, named)

    def __call__(self, *arguments: object, **named: object) -> Any:
        return self._ask("call", *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return self._ask("get", name)

    def __setattr__(self, name: str, value: object) -> None:
        self._ask("set", name, value)

    def __iter__(self) -> Iterator[object]:
        return iter(self._ask("list"))

    def __getitem__(self, item: object) -> Any:
        return self._ask("item", item)

    def __len__(self) -> int:
        return int(self._ask("length"))

    def __bool__(self) -> bool:
        return bool(self._ask("bool"))


class Program:
    """The program in its own sandbox."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._objects: dict[int, There] = {}

    def execute(self, source: str) -> None:
        self._answer({"do": "execute", "program": source})

    def global_named(self, name: str) -> Any:
        return self._answer({"do": "global", "name": name})

    def ask(
        self, what: str, of: dict[str, object], arguments: tuple[object, ...], named: object
    ) -> Any:
        values = {"arguments": encode(arguments, _number), "named": encode(named, _number)}
        return self._answer({"do": what, "of": of, **values})

    def _answer(self, request: dict[str, object]) -> Any:
        self._channel.send(request)
        answer = self._channel.receive()
        if "error" in answer:
            raise _error(str(answer["error"]), str(answer.get("message")))
        return decode(answer["value"], self._found)

    def _found(self, value: dict[str, Any]) -> object:
        if "module" in value:  # ours, not the program's
            if value["module"] not in sys.stdlib_module_names:
                raise ImportError(f"{value['module']} is not in the standard library")
            return importlib.import_module(value["module"])
        return self._objects.setdefault(value["kept"], There(self, {"kept": int(value["kept"])}))


def _number(value: object) -> dict[str, object]:
    if not isinstance(value, There):
        raise TypeError(
            f"a test hands over a {type(value).__name__}, which cannot leave its process"
        )
    return value.__dict__["_number"]


def _error(name: str, message: str) -> Exception:
    kind = getattr(builtins, name, None)
    # StopIteration would end a `map` of the tests early, and what is left of it be right.
    if isinstance(kind, type) and issubclass(kind, Exception) and not name.startswith("Stop"):
        try:
            return kind(message)
        except TypeError:  # some want more than a message
            pass
    return RuntimeError(f"{name}: {message}")


def main(arguments: list[str]) -> None:
    """Read a job from standard input, write the verdict to standard output as JSON."""
    verdict = os.fdopen(os.dup(1), "w")
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)  # tests may print
    sys.set_int_max_str_digits(0)
    job = json.load(sys.stdin)
    reason = _judge(job, Program(Channel(*map(int, arguments))))
    json.dump({"passed": reason is None, "reason": reason or ""}, verdict)
    verdict.close()


def _judge(job: dict[str, Any], program: Program) -> str | None:
    """Return why a program does not pass; None where it does."""
    try:
        program.execute(job["program"])
        space: dict[str, Any] = {"__name__": "tests"}
        exec(compile(job["before"], "before", "exec"), space)
        names = job["names"] or {name: name for name in _under_test(job["tests"])}
        for here, there in names.items():
            try:
                space[here] = program.global_named(there)
            except AttributeError:
                continue  # the tests will miss it, if it is not theirs
        exec(compile(job["tests"], "tests", "exec"), space)
    except Gone:
        return "it ended before its tests did: it left, crashed, or used up its time or memory"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:1000]
    return None


def _under_test(tests: str) -> list[str]:
    """Return the names that tests read and do not set. Built-ins are the tests' own, unless nothing else is
    read: then a function is tested that has the name of one."""
    nodes = list(ast.walk(ast.parse(tests)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    own = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {
        a.asname or a.name for node in nodes if isinstance(node, ast.Import) for a in node.names
    }
    read = {node.id for node in names} - own
    return sorted({name for name in read if not hasattr(builtins, name)} or read)
