"""What small processes that train together tell each other: numbers, objects, tensors, gradients, errors."""

import os
import re

import pytest
import torch
from forked import together
from torch import nn

from graftlab.errors import ConfigError, DataError, OutOfMemory, Stopped
from graftlab.training.parallel import processes as module
from graftlab.training.parallel.faults import Elsewhere, ProcessError
from graftlab.training.parallel.processes import Processes


def test_numbers_objects_and_decisions_are_told(tmp_path):
    def work(processes):
        rank = processes.share.rank
        return [
            processes.main,
            processes.alone,
            processes.add(1.5 + rank),
            processes.add(rank, 2**40 + rank),
            processes.agree(rank == 0),
            processes.agree(rank != 0),
            processes.broadcast({"of": rank}),
            processes.gather({"of": rank}),
            processes.on_main(lambda: f"done by {rank}"),
        ]

    found = together(tmp_path, work, world=3)
    for rank, said in enumerate(found):
        assert said == [
            rank == 0, False, [1.5 + 2.5 + 3.5], [3.0, 3.0 * 2**40 + 3], True, False, {"of": 0},
            [{"of": 0}, {"of": 1}, {"of": 2}], "done by 0",
        ]  # fmt: skip


def test_one_alone_asks_nobody():
    alone = Processes()
    assert (alone.main, alone.alone) == (True, True)
    assert (alone.add(1.0, 2.0), alone.agree(True), alone.agree(False)) == ([1.0, 2.0], True, False)
    assert (alone.broadcast("a"), alone.gather("a"), alone.on_main(lambda: "a")) == (
        "a",
        ["a"],
        "a",
    )
    tensor = torch.ones(2)
    alone.send({"a": tensor})
    alone.follow({"a": tensor})
    alone.check_same({"a": tensor})
    alone.add_tensors([tensor])
    alone.add_gradients([nn.Parameter(tensor)], False)
    with alone.together(), alone.lockstep():
        pass
    assert tensor.tolist() == [1.0, 1.0]


ODD = torch.arange(12.0).view(3, 4)


def test_tensors_become_the_main_processes_bit_by_bit_in_any_layout_and_type(tmp_path):
    def tensors(rank):
        return {
            "turned": (ODD + 100 * rank).T,
            "half": torch.full((3,), 1.5 + rank, dtype=torch.bfloat16),
            "whole": torch.tensor(7 + rank),
            "bits": torch.tensor([True, rank == 0]),
            "none": torch.zeros(0),
            "nan": torch.tensor([float("nan") if rank == 0 else 1.0]),
        }

    def work(processes):
        own = tensors(processes.share.rank)
        processes.send(own)
        processes.check_same(own)
        processes.add_tensors([own["turned"]])
        return {name: tensor.float().tolist() for name, tensor in own.items()}

    first, second = together(tmp_path, work)
    assert str(first) == str(second)
    assert first["turned"] == (2 * ODD.T).tolist()
    assert (first["half"], first["whole"], first["bits"]) == ([1.5] * 3, 7, [1, 1])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rank: {"b" if rank else "a": torch.zeros(2)}, "'a'"),
        (lambda rank: {"a": torch.zeros(2 + rank)}, r"\(3,\)"),
        (lambda rank: {"a": torch.zeros(2, dtype=torch.float64 if rank else None)}, "float64"),
        (lambda rank: {n: torch.zeros(2) for n in ("ab", "ba")[rank]}, "order"),
    ],
)
def test_tensors_that_are_not_alike_are_not_sent(tmp_path, change, named):
    def work(processes):
        try:
            processes.send(change(processes.share.rank))
        except ProcessError as error:
            return str(error)
        return ""

    first, second = together(tmp_path, work)
    assert re.search(f"process 1 .*{named}", first)
    assert "process 1" in second


def test_gradients_are_summed_and_none_is_made_where_nobody_has_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUCKET", 40)  # bytes: ten float32

    def work(processes):
        rank = processes.share.rank
        parameters = [nn.Parameter(torch.zeros(n)) for n in (4, 6, 1, 12, 2)]
        parameters.append(nn.Parameter(torch.zeros(2, dtype=torch.float64)))
        for number, parameter in enumerate(parameters):
            if number != 2 and (rank == 0 or number != 4):
                parameter.grad = torch.full_like(parameter, 10**rank * (number + 1))
        processes.add_gradients(parameters, lacking=True)
        return [p.grad if p.grad is None else p.grad.tolist() for p in parameters]

    expected = [[11.0] * 4, [22.0] * 6, None, [44.0] * 12, [5.0] * 2, [66.0] * 2]
    assert together(tmp_path, work) == [expected, expected]


@pytest.mark.quick("DataError-type-inside", "Stopped-type-inside", "ZeroDivisionError-type-round")
@pytest.mark.parametrize("where", ["inside", "round"])
@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (DataError("row 7"), DataError),
        (ConfigError("a field"), ConfigError),
        (OutOfMemory("no room"), OutOfMemory),
        (Stopped("now", 130), Stopped),
        (ZeroDivisionError("a bug"), Elsewhere),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_one_is_raised_on_all_by_its_kind(tmp_path, raised, told, where):
    def work(processes):
        try:
            with processes.together():
                if processes.share.rank == 1:
                    raise raised
                if where == "round":
                    processes.add(1.0)
        except Exception as error:
            kind = type(error).__name__
            return (
                kind,
                str(error),
                getattr(error, "exit_code", None),
                error.__notes__ if hasattr(error, "__notes__") else [],
            )
        return None

    first, second = together(tmp_path, work)
    assert second[:2] == (type(raised).__name__, str(raised))
    assert first[0] == told.__name__
    assert str(raised) in first[1]
    if told is not Elsewhere:
        assert first[2] == raised.exit_code
    if told is not Stopped:
        assert "(in process 1)" in first[1]
    assert type(raised).__name__ in first[3][0]
    assert second[3] == []


def test_of_two_errors_the_first_processes_is_told_and_a_mere_stop_gives_way(tmp_path):
    def raising(*errors):
        def work(processes):
            try:
                with processes.together():
                    raise errors[processes.share.rank]
            except Exception as error:
                return type(error).__name__
            return None

        return work

    both = together(tmp_path / "a", raising(DataError("a row"), ConfigError("a field")))
    assert both == ["DataError", "DataError"]
    stopped = together(tmp_path / "b", raising(Stopped("now", 143), ConfigError("a field")))
    assert stopped == ["ConfigError", "ConfigError"]


def test_an_error_where_all_move_together_is_not_told_but_ends_the_process(tmp_path):
    def work(processes):
        processes.sharding.lockstep = True
        found = []
        for error in (
            Stopped("now", 143),
            KeyError("a bug"),
            RuntimeError("[gloo] closed by peer"),
        ):
            processes.broken = False
            try:
                with processes.lockstep():
                    raise error
            except Exception as raised:
                found.append((type(raised).__name__, processes.broken))
        return found

    found = together(tmp_path, work)[0]
    assert found == [("Stopped", False), ("KeyError", True), ("ProcessError", True)]


def test_one_that_is_gone_is_said_by_those_that_are_left(tmp_path):
    def work(processes):
        if processes.share.rank == 1:
            os._exit(9)
        try:
            with processes.together():
                processes.add(1.0)
        except ProcessError as error:
            return str(error), processes.broken
        return None

    (said, broken), gone = together(tmp_path, work)
    assert (broken, gone) == (True, None)
    assert "process 0" in said
