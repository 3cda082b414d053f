"""The processes that train one run together: what they add up, agree on and send to each other.

Each works on its share of every batch; who holds which weights, `sharding` says. An error in one of them
ends all, with that error. What keeps them from waiting for each other for ever is a rule: whatever they
exchange, they first meet in a *round*, a sum of a few numbers of which the first one says "I have failed".
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from graftlab.errors import Stopped
from graftlab.training.parallel import sharding
from graftlab.training.parallel.faults import ProcessError, Told, connection_lost, described, twin
from graftlab.training.parallel.share import Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
BUCKET = 25 * 2**20  # bytes of gradients that are summed at once, as torch's DDP has it
WIDTH = 3  # numbers of a round, with the first
INTEGERS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}  # by bytes of an element


class Processes:
    """This process among all that train together; one alone has nobody to ask and asks nobody."""

    def __init__(self, rank: int = 0, world: int = 1, device: "torch.device | None" = None) -> None:
        """`device` is where tensors lie while they are exchanged."""
        self.share, self.device = Share(rank, world), device
        self.sharding: sharding.Sharding = sharding.Whole()
        self.broken = False  # whether another process is gone
        self._told: BaseException | None = None  # what all know, or nobody can be told

    @property
    def main(self) -> bool:
        """Whether this is the process that writes, logs and shows."""
        return self.share.rank == 0

    @property
    def alone(self) -> bool:
        return self.share.world == 1

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wait at the end until all are there; what is raised inside on one is raised on all.

        Another than the one that failed learns of it in its next round, inside or at the end.
        """
        if self.alone:
            yield
            return
        try:
            yield
        except Exception as error:
            if error is self._told or self.broken:
                raise
            self._round(failed=True)
            self._raise(error)
        self._round()

    @contextlib.contextmanager
    def lockstep(self) -> Iterator[None]:
        """Do inside, in all at the same moment, what exchanges shards of weights.

        Others wait there for what does not come, so an error can not be told: this process ends, and that
        ends them. Without shards this is nothing.
        """
        if self.alone or not self.sharding.lockstep:
            yield
            return
        try:
            yield
        except Exception as error:
            if error is self._told or isinstance(error, Stopped):  # all stop, or know of it
                raise
            self.broken = True
            if connection_lost(error):
                self._told = self._gone(error)
                raise self._told from error
            raise

    def on_main(self, work: Callable[[], T]) -> T:
        """Do `work` on the main process alone; return there and everywhere what it returns."""
        if self.alone:
            return work()
        with self.together():
            done = work() if self.main else None
        return cast("T", self.broadcast(done))

    def add(self, *values: float) -> list[float]:
        """Return the sum of each number over all processes: two at most, exact up to float64."""
        return list(values) if self.alone else self._round(*values)

    def agree(self, decision: bool) -> bool:
        """Return the main process's decision."""
        return bool(self.add(decision if self.main else 0.0)[0])

    def broadcast(self, value: T) -> T:
        """Return the main process's object on all."""
        if self.alone:
            return value
        import torch.distributed as dist

        self._round()
        held = [value]
        dist.broadcast_object_list(held, 0, device=self.device)
        return held[0]

    def gather(self, value: T) -> list[T]:
        """Return the objects of all, by rank, on all."""
        if self.alone:
            return [value]
        import torch.distributed as dist

        self._round()
        held = [value] * self.share.world
        dist.all_gather_object(held, value)
        return held

    def send(self, tensors: "Mapping[str, Tensor]") -> None:
        """Give the tensors of all processes the main one's values, in place.

        Raises:
            ProcessError: another process has tensors of other names, shapes or types.
        """
        if self.alone or not tensors:
            return
        own = [(name, tuple(x.shape), str(x.dtype)) for name, x in tensors.items()]
        with self.together():
            for rank, others in enumerate(self.gather(own)):
                if others != own:
                    more = sorted({str(item) for item in {*own} ^ {*others}})[:3] or ["their order"]
                    raise ProcessError(f"process {rank} has other tensors: {', '.join(more)}.")
        self.follow(tensors)

    def follow(self, tensors: "Mapping[str, Tensor]") -> None:
        """Do as `send`, for tensors that are known to be alike."""
        if self.alone or not tensors:
            return
        import torch.distributed as dist

        self._round()
        for tensor in tensors.values():
            sent = tensor.detach().to(self.device).contiguous()
            dist.broadcast(_flat(sent, 1), 0)
            if sent.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(sent)

    def check_same(self, tensors: "Mapping[str, Tensor]") -> None:
        """Compare tensors with the main process's, by a sum over their bits; shards are no copies.

        Raises:
            ProcessError: they differ: from there on, processes would train models of their own.
        """
        tensors = {name: x for name, x in tensors.items() if not sharding.is_shard(x)}
        if self.alone or not tensors:
            return
        import torch
        import torch.distributed as dist

        sums = [
            _flat(x.detach(), x.element_size()).sum(dtype=torch.int64) for x in tensors.values()
        ]
        own = torch.stack([value.to(self.device) for value in sums])
        main = own.clone()
        with self.together():
            self._round()
            dist.broadcast(main, 0)
            if others := (own != main).nonzero().flatten().tolist():
                raise ProcessError(
                    f"{list(tensors)[others[0]]} is no longer the same on every process ({len(others)} "
                    f"of {len(own)} tensors differ in process {self.share.rank}). Unless the machines "
                    f"differ, a hook of the method decides for itself where it should ask `agree`."
                )

    def add_gradients(self, parameters: "Sequence[nn.Parameter]", lacking: bool) -> None:
        """Replace each gradient by its sum over all processes, the same bits on each.

        Where `lacking`, one process or more has parameters without a gradient; they keep none if no
        process has one. Those of shards are summed already.
        """
        parameters = [p for p in parameters if not sharding.is_shard(p)]
        if self.alone or not parameters:
            return
        import torch
        import torch.distributed as dist

        if lacking:
            there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
            there = there.to(self.device)
            dist.all_reduce(there)
            for parameter, anywhere in zip(parameters, there.tolist(), strict=True):
                if anywhere and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, piece in zip(
                bucket, flat.split([g.numel() for g in bucket]), strict=True
            ):
                gradient.copy_(piece.view_as(gradient))

    def add_tensors(self, tensors: "Sequence[Tensor]") -> None:
        """Replace each tensor by its sum over all processes."""
        if self.alone:
            return
        import torch.distributed as dist

        self._round()
        for tensor in tensors:
            dist.all_reduce(tensor)

    def _round(self, *values: float, failed: bool = False) -> list[float]:
        import torch
        import torch.distributed as dist

        assert len(values) < WIDTH, values
        numbers = [float(failed), *map(float, values)]
        numbers += [0.0] * (WIDTH - len(numbers))
        sums = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        try:
            dist.all_reduce(sums)
        except RuntimeError as error:
            self.broken = True
            self._told = self._gone(error)
            raise self._told from error
        failures, *found = sums.tolist()
        if failures and not failed:
            self._raise(None)
        return found[: len(values)]

    def _gone(self, error: Exception) -> ProcessError:
        return ProcessError(
            f"another process of this run is gone (this is process {self.share.rank}): "
            f"{str(error).partition(chr(10))[0]}. See what it or its launcher has said; then go "
            f"on with `graftlab resume`."
        )

    def _raise(self, error: Exception | None) -> NoReturn:
        """Raise on every process the error of the first that has one; of a mere stop only if all stop."""
        import torch.distributed as dist

        told: list[Told | None] = [None] * self.share.world
        dist.all_gather_object(told, error and described(error))
        ranks = {rank: found for rank, found in enumerate(told) if found}
        first = min(ranks, key=lambda rank: (ranks[rank].name == Stopped.__name__, rank))
        if error is None or first != self.share.rank:
            self._told = twin(first, ranks[first])
            raise self._told
        self._told = error
        raise error


def _flat(tensor: "Tensor", width: int) -> "Tensor":
    """Return the tensor's bits as one row of integers of `width` bytes, without a copy if it has none."""
    import torch

    return tensor.contiguous().view(-1).view(getattr(torch, INTEGERS[width]))


def _buckets(gradients: "Sequence[Tensor]") -> "Iterator[list[Tensor]]":
    """Yield the gradients in lists of one type and device, of 25 MiB or one tensor."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        kinds.setdefault((gradient.dtype, gradient.device), []).append(gradient)
    for kind in kinds.values():
        bucket: list[Tensor] = []
        for gradient in kind:
            if bucket and sum(g.nbytes for g in bucket) + gradient.nbytes > BUCKET:
                yield bucket
                bucket = []
            bucket.append(gradient)
        yield bucket
