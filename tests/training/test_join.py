"""Processes that a launcher has started meet: each knows its rank, its device and how weights are shared."""

import atexit
import functools

import pytest
import torch
import torch.distributed as dist
from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from forked import together

from graftlab.errors import ConfigError
from graftlab.training.parallel import launch, request
from graftlab.training.parallel.processes import Processes
from graftlab.training.parallel.share import Share


@pytest.fixture(autouse=True)
def _one_way_of_sharing():
    request.asked.cache_clear()
    yield
    request.asked.cache_clear()


def join(at_exit=None):
    """Join as a process does that has not trained before; what is to be done in the end is kept.

    What was registered before is left alone: to clear it in a copy of a process that has used Ray is fatal.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    kept = [] if at_exit is None else at_exit
    atexit.register = lambda *given: kept.append(functools.partial(*given))  # of this copy alone
    return launch.join()


def with_gpus(monkeypatch, kind, count):
    """Let this machine have accelerators of a kind."""
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator",
        lambda check_available=False: torch.device(kind) if check_available else None,
    )  # fmt: skip
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


@pytest.mark.parametrize("way", ["whole", "fsdp"])
def test_each_has_its_share_and_they_part_at_the_end(tmp_path, monkeypatch, way):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with_gpus(monkeypatch, "cuda", 0)  # which the launcher does not want
    if way == "fsdp":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_VERSION", "2")

    def work(_):
        at_exit = []
        made = join(at_exit)
        sums = made.add(1.0 + made.share.rank)
        patience = dist.distributed_c10d._get_default_timeout(dist.Backend("gloo"))
        waits = dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout
        there = dist.is_initialized()
        for leave in reversed(at_exit):
            leave()
        found = made.share, made.device.type, made.sharding.name, made.sharding.lockstep, sums
        return found, waits > patience, there, dist.is_initialized()

    for rank, said in enumerate(together(tmp_path, work, met=False)):
        found = Share(rank, 2), "cpu", way, way == "fsdp", [3.0]
        assert said == (found, True, True, False)


def test_what_shares_weights_knows_the_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")

    def work(_):
        made = join()
        return made.sharding.processes is made

    assert together(tmp_path, work, met=False) == [True, True]


def test_a_group_that_has_lost_a_process_is_left_as_it_is(tmp_path):
    def work(processes):
        processes.broken = True
        launch._part(processes)
        there = dist.is_initialized()
        processes.broken = False
        launch._part(processes)
        launch._part(processes)
        return there, dist.is_initialized()

    assert together(tmp_path, work) == [(True, False)] * 2


def launched(monkeypatch, count):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, str(count))
    monkeypatch.setenv("LOCAL_RANK", "0")


def test_more_processes_than_gpus_are_refused_before_they_meet(monkeypatch):
    launched(monkeypatch, 3)
    with_gpus(monkeypatch, "cuda", 2)
    with pytest.raises(ConfigError) as caught:
        launch.join()
    assert "3 processes" in str(caught.value)
    assert "2 GPUs" in str(caught.value)


def test_as_many_as_there_are_gpus_may_meet(tmp_path, monkeypatch):
    with_gpus(monkeypatch, "cuda", 2)

    def work(_):
        try:
            join()
        except ConfigError as error:  # accelerate finds none of them
            return str(error)
        except dist.DistNetworkError:  # the other has ended so while this one was still meeting it
            return ""
        return ""

    assert not any("GPUs" in said for said in together(tmp_path, work, met=False))


def test_on_a_mac_they_meet_on_the_cpu(tmp_path, monkeypatch):
    with_gpus(monkeypatch, "mps", 1)
    assert together(tmp_path, lambda _: join().share, met=False) == [Share(0, 2), Share(1, 2)]


def test_a_process_that_accelerate_takes_for_one_alone_is_refused(monkeypatch):
    PartialState(cpu=True)
    launched(monkeypatch, 2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(ConfigError, match=DistributedType.NO.value):
        launch.join()


@pytest.mark.parametrize("kind", ["whole", "fsdp"])
def test_the_way_of_sharing_is_that_which_was_asked_for(kind):
    made = Processes()
    found = launch.sharding(request.Asked(kind, {"FSDP_VERSION": "2"}), made)
    assert found.name == kind
