"""PatchGAN discriminator (arXiv 1611.07004) with the hinge loss, trained beside a component."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.device import trains_in_bf16
from bfr_models.training import ranks


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, 1, H / 8, W / 8): above 0 where a patch looks real."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        c = channels
        layers: list[nn.Module] = [nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, o in ((c, 2 * c), (2 * c, 4 * c)):
            layers += [nn.Conv2d(i, o, 4, 2, 1), nn.GroupNorm(8, o), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * c, 1, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class DiscriminatorTrainer:
    """A discriminator with its optimiser: judges images, and learns from pairs of real and generated ones."""

    def __init__(self, device: torch.device, channels: int = 32) -> None:
        network = PatchDiscriminator(channels).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.network.parameters(), betas=(0.5, 0.9), weight_decay=0.0)

    def realness(self, image: Tensor) -> Tensor:
        """The mean verdict on images. Its negative is the generator's loss; the discriminator gets no gradient."""
        self.network.requires_grad_(False)
        verdict: Tensor = self.network(image).float().mean()
        return verdict

    def learn(self, real: Tensor, made: Tensor, learning_rate: float) -> None:
        """One step of all ranks on the hinge loss: (max(0, 1 - D(real)) + max(0, 1 + D(made))) / 2."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.network.requires_grad_(True)
        device = real.device.type
        with torch.autocast(device, torch.bfloat16, enabled=trains_in_bf16(device, "auto")):
            verdict = self.network(torch.cat([real, made.detach()])).float()
        on_real, on_made = verdict.chunk(2)
        loss = (F.relu(1 - on_real).mean() + F.relu(1 + on_made).mean()) / 2
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        ranks.average_gradients(self.network.parameters())
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
