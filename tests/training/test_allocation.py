"""Memory that is freed inside is kept for the next step, and given back at the end."""

import ast
import contextlib
import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graftlab.training import allocation


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def step():
    before = faults()
    tensors = [
        torch.ones(10_000_000) for _ in range(4)
    ]  # 40 MB each, more than glibc ever keeps by itself
    del tensors
    return faults() - before


def measured():
    """Return without and with what is tested: faults of a step, bytes kept between steps and afterwards."""
    found = []
    for context in (contextlib.nullcontext, allocation.kept):
        before = held()
        with context():
            counts = [step() for _ in range(6)]
            inside = held() - before
        found.append((counts[-1], inside, held() - before))
    return found


@pytest.mark.slow
@pytest.mark.skipif(allocation.glibc() is None, reason="only glibc is told to keep memory")
def test_a_step_finds_the_memory_of_the_last_one_and_it_is_given_back_at_the_end():
    """In a fresh process: what other libraries have told the allocator stays told."""
    done = subprocess.run(
        [sys.executable, "-c", "import test_allocation; print(test_allocation.measured())"],
        env={name: value for name, value in os.environ.items() if name not in allocation.SETTINGS},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain, kept = ast.literal_eval(done.stdout)
    assert plain[0] > 10_000, "40 MB times 4 come anew from the kernel in every step"
    assert kept[0] < plain[0] / 10
    assert kept[1] > 100e6
    assert kept[2] < 50e6


@pytest.fixture
def unfrozen():
    """The tests' own objects are frozen; here they are not."""
    gc.unfreeze()
    yield
    gc.freeze()


def test_what_was_made_inside_counts_as_old(unfrozen):
    with allocation.uncollected():
        kept = [[] for _ in range(1000)]
    young = {id(thing) for generation in (0, 1) for thing in gc.get_objects(generation)}
    assert not young & {id(thing) for thing in kept}
    assert gc.get_freeze_count() == 0


def test_what_somebody_has_frozen_stays_frozen():
    gc.freeze()
    before = gc.get_freeze_count()
    with allocation.uncollected():
        pass
    assert 0 < gc.get_freeze_count() <= before


def test_garbage_is_looked_for_again_afterwards_where_it_was_before():
    with allocation.uncollected():
        with allocation.uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with allocation.uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
