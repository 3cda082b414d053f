"""One step can be read in one sitting: on one process it goes through few files, and none of `parallel/`."""

import sys
from pathlib import Path

import pytest
import tiny_runs

import graftlab
from graftlab.runs import session
from graftlab.training.step import Stepper

ROOT = Path(graftlab.__file__).parent
MOST = 10
LOOKED_AT = 2  # a step with a line in metrics.jsonl, without an evaluation or a checkpoint


def entered(file):
    """Return the modules of the package that the loop enters from one step's beginning to the next one's."""
    found, now = set(), []

    def see(frame, event, argument):
        if event != "call":
            return
        code = frame.f_code
        if code is Stepper.step.__code__:
            now[:] = [frame.f_locals["step"]]
        if now == [LOOKED_AT] and code.co_filename.startswith(str(ROOT)):
            found.add(Path(code.co_filename).relative_to(ROOT).as_posix())

    sys.setprofile(see)
    try:
        session.run(file, options=tiny_runs.quiet())
    finally:
        sys.setprofile(None)
    return found


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    changes = {"training": {"max_steps": LOOKED_AT + 1}}
    return entered(tiny_runs.run_file(tmp_path_factory.mktemp("run"), changes))


def test_a_step_enters_few_modules(modules):
    assert {"training/loop.py", "training/step.py", "rundir/lines.py"} <= modules
    assert len(modules) <= MOST, sorted(modules)


def test_a_step_of_one_process_enters_nothing_that_is_for_several(modules):
    assert not [name for name in modules if name.startswith("training/parallel/")]
