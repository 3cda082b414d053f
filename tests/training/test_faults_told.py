"""An error of one process as the others are told of it: its kind, its problems and its traceback."""

import pickle
import traceback
from dataclasses import replace

import pytest
import torch.distributed as dist

from graftlab import errors
from graftlab.errors import OUT, DataError, Fault, GraftlabError, Place, Stopped
from graftlab.training.parallel.faults import (
    Elsewhere,
    ProcessError,
    connection_lost,
    described,
    twin,
)

OURS = [
    kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, GraftlabError) and kind is not Stopped
]  # fmt: skip


def told(error):
    """Return an error as another process is told of it, and its traceback here."""
    try:
        raise error
    except Exception as raised:
        trace = "".join(traceback.format_exception(raised))
        return pickle.loads(pickle.dumps(described(raised))), trace


@pytest.mark.parametrize("kind", [*OURS, ProcessError], ids=lambda kind: kind.__name__)
def test_the_twin_is_of_its_kind_with_each_problem_and_where_it_was(kind):
    first = Fault(
        "no", "unknown", Place("a.csv", row=7), given=1, allowed=[2], remedies=(("Go ", OUT),)
    )
    said, trace = told(kind([first, Fault("nor that")]))
    made = twin(3, said)
    assert type(made) is kind
    assert made.problems == (
        replace(first, said="no (in process 3)"),
        Fault("nor that (in process 3)"),
    )
    assert made.__notes__ == [f"In process 3:\n{trace}"]


@pytest.mark.parametrize("code", [130, 143])
def test_a_stop_is_a_stop_with_the_same_code(code):
    said, trace = told(Stopped("after step 7", code))
    made = twin(1, said)
    assert (type(made), str(made), made.exit_code) == (Stopped, "after step 7", code)
    assert made.__notes__ == [f"In process 1:\n{trace}"]


def test_of_a_bug_its_name_and_words_are_told():
    said, trace = told(ZeroDivisionError("by nothing"))
    assert (said.problems, said.exit_code) == ((), None)
    made = twin(2, said)
    assert (type(made), str(made)) == (Elsewhere, "ZeroDivisionError: by nothing (in process 2)")
    assert made.__notes__ == [f"In process 2:\n{trace}"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo] closed by peer"), True),
        (dist.DistBackendError("NCCL"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("gloo"), False),
        (DataError("gloo"), False),
    ],
)
def test_a_process_that_is_gone_is_told_from_a_bug(error, lost):
    assert connection_lost(error) is lost
