"""DifFace's whole procedure with its full-size networks, one tensor after the other: the faces to expect, in float64.

    python -m tests.bfr_models.methods.authors_chain

writes `authors_chain.safetensors` again: two faces of 64 px, the smallest that the U-Net's six halvings allow, by 100
steps from timestep 400 and by 20, with the seed that the authors' script has by default, one face after the other; and
how far from them the same procedure comes out in float32.

Written from the papers' equations and the architectures' descriptions, without anything of `bfr_models`. The weights
are random, from a seed, and rounded to half precision as weight files are. The U-Net's last layer is a quarter of what
it was drawn as: a random network stretches rounding errors on the way down a chain, and a trained one does not.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.bfr_models.conversion.published_networks import (
    FFHQ512,
    State,
    random_state,
    swinir_shapes,
    unet,
    unet_shapes,
)

FILE = Path(__file__).with_suffix(".safetensors")
SIZE, SEED, ETA = 64, 12345, 0.5
STEPS = (100, 20)
MEAN = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
WINDOW, SHIFT, HEADS = 8, 4, 6


def prior_state() -> State:
    """The published U-Net's tensors, random."""
    state = random_state(unet_shapes(FFHQ512), 0)
    state["out.2.weight"] /= 4
    state["out.2.bias"] /= 4
    return {name: tensor.half().float() for name, tensor in state.items()}


def estimator_state() -> State:
    """The published SwinIR's tensors, random: its branches small, as after training, and its buffers as computed."""
    state = random_state(swinir_shapes(), 1)
    for name, tensor in state.items():
        if name.endswith("relative_position_index"):
            state[name] = positions()
        elif name.endswith("attn_mask"):
            state[name] = torch.stack([region_mask(64)[w] for w in range(64)])
        elif name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            state[name] = (1 + 0.1 * tensor).half().float()
        else:
            state[name] = (tensor / (4 if "proj" in name or "fc2" in name else 1)).half().float()
    return state


def lq_faces() -> Tensor:
    """(2, 3, 64, 64) in [0, 1]: smooth, at the levels of 8-bit images."""
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return F.interpolate(coarse, (SIZE, SIZE), mode="bilinear").mul(255).round() / 255


def abar(t: int) -> float:
    """prod_{s<=t} 1 - beta_s; 1 at t = -1."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * s / 999) for s in range(t + 1))


@torch.inference_mode()
def restored(steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(2, 3, 64, 64) in [-1, 1]."""
    torch.manual_seed(SEED)
    return torch.cat([_restored(face[None], steps, dtype) for face in lq_faces()])


def _restored(face: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    stride = 400 // steps
    prior, estimator = networks(dtype)
    f = swinir(estimator, face.to(dtype)).clamp(0, 1)
    draw = torch.randn_like(face)
    x = math.sqrt(abar(400)) * (2 * f - 1) + math.sqrt(1 - abar(400)) * draw.to(dtype)
    for t in range(400 - stride, -1, -stride):
        here, below = abar(t), abar(t - stride) if t else 1.0
        eps = unet(prior, FFHQ512, x, torch.tensor([t]))[:, 0:3]
        x_0 = ((x - math.sqrt(1 - here) * eps) / math.sqrt(here)).clamp(-1, 1)
        sigma = ETA * math.sqrt((1 - below) / (1 - here)) * math.sqrt(1 - here / below)
        draw = torch.randn_like(face)  # after the last call, too
        x = math.sqrt(below) * x_0 + math.sqrt(1 - below - sigma**2) * eps + (sigma * draw.to(dtype) if t else 0)
    return x.clamp(-1, 1)


@cache
def networks(dtype: torch.dtype) -> tuple[State, State]:
    states = (prior_state(), estimator_state())
    prior, estimator = ({name: tensor.to(dtype) for name, tensor in state.items()} for state in states)
    return prior, estimator


# SwinIR (arXiv 2108.10257) behind a pixel-unshuffle of 8.


def swinir(state: State, y: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same, about [0, 1]."""
    mean = MEAN.to(y.dtype)
    first = _conv(state, "conv_first.1", _unshuffled(y - mean))
    x = _norm(state, "patch_embed.norm", first.movedim(1, -1))
    for i in range(8):
        before = x
        for j in range(6):
            x = _layer(state, f"layers.{i}.residual_group.blocks.{j}", x, SHIFT * (j % 2))
        x = _conv(state, f"layers.{i}.conv", x.movedim(-1, 1)).movedim(1, -1) + before
    x = _conv(state, "conv_after_body", _norm(state, "norm", x).movedim(-1, 1)) + first
    x = F.leaky_relu(_conv(state, "conv_before_upsample.0", x), 0.01)
    for name in ("conv_up1", "conv_up2", "conv_up3"):
        x = F.leaky_relu(_conv(state, name, x.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return _conv(state, "conv_last", F.leaky_relu(_conv(state, "conv_hr", x), 0.2)) + mean


def _unshuffled(x: Tensor) -> Tensor:
    """(B, C, 8 h, 8 w) -> (B, 64 C, h, w): channel c, row, column of the block, in this order."""
    batch, channels, height, width = x.shape
    blocks = x.view(batch, channels, height // 8, 8, width // 8, 8)
    return blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * 64, height // 8, width // 8)


def _layer(state: State, name: str, x: Tensor, shift: int) -> Tensor:
    """(B, h, w, C): attention inside windows, which a shift moves, and an MLP; both residual."""
    height, width = x.shape[1:3]
    moved = _norm(state, f"{name}.norm1", x).roll((-shift, -shift), (1, 2))
    masks = region_mask(height) if shift else [torch.zeros(1)] * ((height // WINDOW) * (width // WINDOW))
    attended = torch.empty_like(moved)
    number = 0
    for top in range(0, height, WINDOW):
        for left in range(0, width, WINDOW):
            window = moved[:, top : top + WINDOW, left : left + WINDOW].flatten(1, 2)
            seen = _attention(state, f"{name}.attn", window, masks[number].to(x.dtype))
            attended[:, top : top + WINDOW, left : left + WINDOW] = seen.unflatten(1, (WINDOW, WINDOW))
            number += 1
    x = x + attended.roll((shift, shift), (1, 2))
    hidden = _linear(state, f"{name}.mlp.fc1", _norm(state, f"{name}.norm2", x))
    return x + _linear(state, f"{name}.mlp.fc2", 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))))


def _attention(state: State, name: str, tokens: Tensor, mask: Tensor) -> Tensor:
    qkv, heads = _linear(state, f"{name}.qkv", tokens), []
    bias = state[f"{name}.relative_position_bias_table"][positions()]  # (64, 64, heads)
    d = tokens.shape[-1] // HEADS
    for head in range(HEADS):
        q, k, v = (part[..., head * d : (head + 1) * d] for part in qkv.chunk(3, dim=-1))
        weights = torch.softmax(q @ k.mT / math.sqrt(d) + bias[..., head] + mask, dim=-1)
        heads.append(weights @ v)
    return _linear(state, f"{name}.proj", torch.cat(heads, dim=-1))


def positions() -> Tensor:
    """(64, 64) of the bias of one token for another, by their offset."""
    rows, columns = torch.arange(64) // WINDOW, torch.arange(64) % WINDOW
    down, right = rows[:, None] - rows + WINDOW - 1, columns[:, None] - columns + WINDOW - 1
    return down * (2 * WINDOW - 1) + right


def region_mask(side: int) -> list[Tensor]:
    """Of each window of a square map, shifted: -100 between tokens that were not neighbours before."""
    places = torch.arange(side)
    kind = (places >= side - WINDOW).long() + (places >= side - SHIFT).long()
    region = 3 * kind[:, None] + kind
    windows = [
        region[top : top + WINDOW, left : left + WINDOW].flatten()
        for top in range(0, side, WINDOW)
        for left in range(0, side, WINDOW)
    ]
    return [(window[:, None] != window).float() * -100 for window in windows]


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return centred * scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _conv(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def stored() -> dict[int, tuple[Tensor, float]]:
    """What `restored` gave, and the furthest that it came from that in float32, by the number of steps."""
    found = load_file(FILE)
    return {steps: (found[f"{steps}"], float(found[f"{steps} rounding"])) for steps in STEPS}


if __name__ == "__main__":
    faces = {steps: restored(steps) for steps in STEPS}
    rounding = {steps: (restored(steps, torch.float32) - faces[steps]).abs().max() for steps in STEPS}
    tensors = {f"{steps}": face.float() for steps, face in faces.items()}
    save_file(tensors | {f"{steps} rounding": furthest.float() for steps, furthest in rounding.items()}, FILE)
