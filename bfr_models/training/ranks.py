"""The processes that train one network together, each on its share of every batch; all of it is also true of one alone.

They are torch's process group, which Ray Train or torchrun forms. A rank's share are consecutive faces of the batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def is_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_group() else 0


def count() -> int:
    return dist.get_world_size() if is_group() else 1


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Forms the group that torchrun's environment describes, if it does; the device of this process."""
    if "RANK" not in os.environ:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


class _Parallel(DistributedDataParallel):
    """Averages the gradients over the ranks while they are computed; else it is the network itself."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


def parallel(network: nn.Module) -> nn.Module:
    """The network with the first rank's parameters and buffers, and with the gradients of the whole batch."""
    if not is_group():
        return network
    device = next(network.parameters()).device
    return _Parallel(network, [device] if device.type == "cuda" else None)


def part(network: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
    """For the forward and backward pass of a part of this rank's share: the last part sums up over the ranks."""
    return nullcontext() if is_last or not isinstance(network, _Parallel) else network.no_sync()


def mean(value: Tensor) -> Tensor:
    """The mean over the ranks."""
    return total(value) / count()


def total(value: Tensor) -> Tensor:
    """The sum over the ranks."""
    if is_group():
        value = value.clone()
        dist.all_reduce(value)
    return value


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Of a network that is not `parallel`."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = mean(parameter.grad)


def whole_batch(share: Tensor) -> Tensor:
    """(n, ...) of each rank, equally many, as (ranks n, ...), in the batch's order."""
    if not is_group():
        return share
    shares = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(count())]
    dist.all_gather(shares, share.contiguous())
    return torch.cat(shares)


def everyones(found: T) -> list[T]:
    """What each rank has found, by rank."""
    if not is_group():
        return [found]
    all_found: list[Any] = [None] * count()
    dist.all_gather_object(all_found, found)
    return all_found
