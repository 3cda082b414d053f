"""Programs that a model wrote, run against the tests of their problem: HumanEval's and MBPP's.

The program and its tests run in two sandboxes that are joined by calls: the tests call a function, the call
is made over there, and a plain value comes back (`inside/wire.py`). A program therefore cannot pass by
leaving early, by printing, by what it puts in the place of built-ins or `==`, or by reading its tests: they
are not in its process. It passes where its tests have come to their end.

Left out, and failing where a program wants it: packages beyond the standard library, processes, the network,
and changes that a function makes to its arguments (tests see what it returns).
"""

import contextlib
import functools
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

from graftlab.errors import DataError
from graftlab.programs import sandbox
from graftlab.programs.sandbox import Limits

INSIDE = Path(__file__).parent / "inside"
HUMANEVAL, MBPP = ("prompt", "test", "entry_point"), ("test_list",)
"""The columns of the two data sets that tests are made of; MBPP's `test_setup_code` may be there too."""
USUAL = Limits()
LONGEST_VERDICT = 2**16  # bytes
LONGEST_REASON = 200  # characters
_FENCE = re.compile(
    r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE
)


class Verdict(NamedTuple):
    """What became of a program."""

    passed: bool
    reason: str
    """Why it did not pass; empty where it did."""


def require_tests(labels: Sequence[object]) -> None:
    """Check that some labels hold tests, if there are labels.

    Raises:
        DataError: none does.
    """
    if labels and not any(map(_has_tests, labels)):
        raise DataError(
            f"no label holds tests; the first is {labels[0]!r:.80}. For pass@k name the "
            f"columns {', '.join(HUMANEVAL)} (HumanEval) or test_list, test_setup_code (MBPP) under "
            f"task.columns.reference."
        )


def run(
    predictions: Sequence[Mapping[str, Any]], limits: Limits = USUAL, workers: int | None = None
) -> list[dict[str, object]]:
    """Return the predictions with `passed` and `reasons`: one entry for each program that was written.

    A label is a mapping with HumanEval's columns `prompt`, `test` and `entry_point`, or MBPP's `test_list`
    (and `test_setup_code`). Predictions of another kind (a mixture has some) stay as they are.
    `workers` programs run at once, one a processor unless given.

    Raises:
        DataError: no label holds tests.
        Refused: there is no sandbox here.
    """
    sandbox.check()
    require_tests([row["label"] for row in predictions])
    tested = [_has_tests(row["label"]) for row in predictions]
    of_programs = [row for row, has_tests in zip(predictions, tested, strict=True) if has_tests]
    jobs = [job_of(row["label"], text) for row in of_programs for text in _written(row)]
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        verdicts = iter(list(pool.map(lambda job: judge(job, limits), jobs)))
    rows = []
    for row, has_tests in zip(predictions, tested, strict=True):
        own = [next(verdicts) for _ in _written(row)] if has_tests else []
        passed, reasons = [one.passed for one in own], [one.reason for one in own]
        rows.append({**row, "passed": passed, "reasons": reasons} if has_tests else dict(row))
    return rows


def _written(row: Mapping[str, Any]) -> list[str]:
    texts = row["prediction"]
    return [texts] if isinstance(texts, str) else list(texts or ())


def _has_tests(label: object) -> bool:
    if not isinstance(label, Mapping):
        return False
    tests = label.get("test_list")
    return all(isinstance(label.get(column), str) for column in HUMANEVAL) or (
        isinstance(tests, list | tuple) and all(isinstance(test, str) for test in tests)
    )


def job_of(label: Mapping[str, Any], text: str) -> dict[str, object]:
    """Return what the judge needs: the program, and the tests with the names that they call it by."""
    code = code_in(text)
    if "test_list" in label:
        setup = label.get("test_setup_code") or ""
        tests = "\n".join((setup.replace("\r\n", "\n"), *label["test_list"]))
        return {"program": code, "before": "", "names": {}, "tests": tests}
    prompt, test, name = (label[column] for column in HUMANEVAL)
    whole = re.search(rf"^\s*(async\s+)?def\s+{re.escape(name)}\b", code, re.MULTILINE)
    return {
        # A prompt ends within a function, with its docstring, and so is a program of its own.
        "program": f"{prompt}\n\n{code}" if whole else prompt + code,
        "before": f"{prompt}\n\n{test}",  # what else the prompt defines belongs to the tests as well
        "names": {"candidate": name, name: name},
        "tests": "check(candidate)",
    }


def code_in(text: str) -> str:
    """Return the program in a text: the first fenced block, or all of it."""
    fenced = _FENCE.search(text)
    return fenced[1] if fenced else text


def judge(job: Mapping[str, object], limits: Limits = USUAL) -> Verdict:
    """Run one program against its tests and return the verdict.

    Raises:
        Refused: there is no sandbox here.
    """
    read_calls, write_calls = os.pipe()
    read_answers, write_answers = os.pipe()
    ours = [read_calls, write_calls, read_answers, write_answers]
    with contextlib.ExitStack() as stack:
        stack.callback(_close, ours)
        start = functools.partial(sandbox.started, INSIDE, limits=limits)
        stack.enter_context(start("program", stdin=read_calls, stdout=write_answers))
        calls = (read_answers, write_calls)
        tests = stack.enter_context(
            start(
                "judge",
                [str(n) for n in calls],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=calls,
            )
        )
        _close(ours)  # else neither would notice the other's end
        assert tests.stdin is not None
        assert tests.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no verdict
            tests.stdin.write(json.dumps(job).encode())
            tests.stdin.close()
        return _verdict(_read(tests.stdout, limits.wall_seconds), limits)


def _close(numbers: list[int]) -> None:
    while numbers:
        os.close(numbers.pop())


def _read(stdout: IO[bytes], seconds: float) -> bytes | None:
    """Return what is written until its end, or the first part of it; None where time runs out first."""
    found, end = b"", time.monotonic() + seconds
    while len(found) < LONGEST_VERDICT:
        ready, _, _ = select.select([stdout], [], [], max(0, end - time.monotonic()))
        if not ready:
            return None
        if not (part := os.read(stdout.fileno(), LONGEST_VERDICT)):
            break
        found += part
    return found


def _verdict(said: bytes | None, limits: Limits) -> Verdict:
    if said is None:
        return Verdict(False, f"it did not end within {limits.wall_seconds} s")
    try:
        found = json.loads(said)
        passed, reason = found["passed"], str(found["reason"])
    except (ValueError, TypeError, KeyError):
        return Verdict(False, "its tests used up their time or memory")
    clean = "".join(letter if letter.isprintable() else " " for letter in reason)
    return Verdict(passed is True, clean[:LONGEST_REASON])
