"""A deeper U-Net that begins as a shallower one: what the small network has learned is not learned again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bfr_models.errors import UsageError
from bfr_models.networks.unet import UNet

_BLOCK = re.compile(r"net\.(?P<way>down|up)_blocks\.(?P<level>\d+)\.(?P<kind>resnets|attentions)\.(?P<index>\d+)\.")


@torch.no_grad()
def deepen(network: UNet, shallow: Mapping[str, Tensor]) -> None:
    """Makes `network` compute what the U-Net with the parameters `shallow` does.

    Levels and widths are the same. The blocks that `shallow` does not have change nothing at first: the last layer of
    their branch is zero, and on the way up, where a skip connection is concatenated, their shortcut leaves it out.
    """
    parameters, used = dict(network.named_parameters()), set()
    for name, parameter in parameters.items():
        source = _source(name, parameters, shallow)
        if source is None:
            _begin_as_identity(name, parameter)
        elif source not in shallow or shallow[source].shape != parameter.shape:
            found = tuple(shallow[source].shape) if source in shallow else "none"
            raise UsageError(f"expected {name} of shape {tuple(parameter.shape)} in the initial weights, found {found}")
        else:
            parameter.copy_(shallow[source])
            used.add(source)
    if unused := sorted(shallow.keys() - used):
        raise UsageError(f"expected initial weights of a shallower network, found {unused[:3]} beside its layers")


def _source(name: str, deep: Iterable[str], shallow: Iterable[str]) -> str | None:
    """What the parameter is called in the shallow network; None in a block that it does not have."""
    block = _BLOCK.match(name)
    if block is None:
        return name
    level = f"net.{block['way']}_blocks.{block['level']}."
    there = _depth(shallow, level)
    index, added = int(block["index"]), _depth(deep, level) - there
    if block["way"] == "up" and index > 0:  # the first one comes from the coarser level, the others end at their skips
        index = index - added if index > added else there
    prefix = f"{level}{block['kind']}.{index}."
    return prefix + name[block.end() :] if index < there and any(n.startswith(prefix) for n in shallow) else None


def _depth(names: Iterable[str], level: str) -> int:
    """How many residual blocks a level has."""
    resnets = f"{level}resnets."
    return len({name.removeprefix(resnets).partition(".")[0] for name in names if name.startswith(resnets)})


def _begin_as_identity(name: str, parameter: Tensor) -> None:
    if name.endswith("conv_shortcut.weight"):
        torch.nn.init.dirac_(parameter)  # the features that come up; nothing of the skip connection after them
    elif re.search(r"conv2\.(weight|bias)$|conv_shortcut\.bias$|to_out\.0\.(weight|bias)$", name):
        parameter.zero_()
