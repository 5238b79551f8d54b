"""What every converter does: from a checkpoint's tensors, give a network all that it needs and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

import torch
from torch import Tensor, nn

from bfr_models.errors import UsageError
from bfr_models.weights.tensors import contained

State = dict[str, Tensor]

_WRAPPER = "module."
_NAMED_IN_MESSAGE = 5


def tensors(state: Mapping[str, Any]) -> State:
    """The checkpoint's tensors by the names that its network gave them."""
    state = contained(state)
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UsageError(
            "expected a checkpoint of tensors by name, bare or under state_dict or params, found other things in it"
        )
    if all(name.startswith(_WRAPPER) for name in state):
        return {name.removeprefix(_WRAPPER): tensor for name, tensor in state.items()}
    return dict(state)


def on_meta(network: Callable[..., nn.Module], *config: object) -> nn.Module:
    """The network as names and shapes alone."""
    with torch.device("meta"):
        return network(*config)


def exactly(state: State, network: nn.Module) -> State:
    """`state` in the order of the network's parameters; UsageError unless it has all of them and nothing else."""
    wanted = {name: tuple(p.shape) for name, p in network.named_parameters()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if found != wanted:
        reshaped = {
            f"{name} {found[name]} for {wanted[name]}" for name in wanted.keys() & found if found[name] != wanted[name]
        }
        raise UsageError(
            f"the checkpoint does not fit the network: missing {_some(wanted.keys() - found.keys())}, "
            f"unexpected {_some(found.keys() - wanted.keys())}, of another shape {_some(reshaped)}; "
            "is it the file of this component?"
        )
    return {name: state[name].contiguous() for name in wanted}


def _some(names: Set[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _NAMED_IN_MESSAGE
    return (", ".join(sorted(names)[:_NAMED_IN_MESSAGE]) or "none") + (f" and {more} more" if more > 0 else "")
