"""Everything that a checkpoint holds: the network, its average, the optimiser, what is trained beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bfr_models.training import ranks
from bfr_models.training.component import Component


class State:
    """Of one rank; equal on all, bit for bit, from the start and after every step."""

    def __init__(self, component: Component, device: str, initial: Path | None, gt: Tensor) -> None:
        network = component.build().to(device)
        self.network = cast(nn.Module, network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        with torch.no_grad():
            component.prepare(self.network, gt.to(device, memory_format=torch.channels_last))
        if initial is not None:
            component.initialise(self.network, initial)
        self.component = component
        self.parallel = ranks.parallel(self.network)
        self.ema = AveragedModel(self.network, avg_fn=_ema(component.recipe.ema))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
        self.step = 0

    @property
    def is_finite(self) -> bool:
        """Whether the network is not lost: one that is takes nothing's place."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self.network.parameters()]).all())

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "network": self.network.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "component": self.component.state_dict(),
                "step": self.step,
            },
            partial,
        )
        partial.replace(path)

    def load(self, path: Path, device: str) -> None:
        saved = torch.load(path, map_location=device, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.ema.load_state_dict(saved["ema"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.component.load_state_dict(saved.get("component", {}))
        self.step = saved["step"]


def _ema(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An average that forgets faster at first: min(decay, (1 + n) / (10 + n))."""

    def average(averaged: Tensor, current: Tensor, n: Tensor | int) -> Tensor:
        rate = min(decay, (1 + int(n)) / (10 + int(n)))
        return torch.lerp(current, averaged, rate) if averaged.is_floating_point() else current

    return average
