"""The published networks a second time: as lists of tensor names and shapes, and as functions of such tensors.

Written from descriptions of the architectures, one tensor after the other and without `nn.Module`, so that nothing
is shared with the code under test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class GuidedDiffusion:
    """A U-Net as its authors configure it: attention is listed by resolution, channels as multiples."""

    image_size: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: tuple[int, ...]
    attention_resolutions: tuple[int, ...]
    num_head_channels: int
    groups: int = 32


FFHQ512 = GuidedDiffusion(512, 32, (1, 2, 4, 8, 8, 16, 16), (1, 2, 2, 2, 2, 3, 4), (32, 16, 8), 64)
FFHQ256 = GuidedDiffusion(256, 128, (1, 1, 2, 2, 4, 4), (2,) * 6, (16, 8), 64)


def random_state(shapes: Shapes, seed: int, dtype: torch.dtype = torch.float32) -> State:
    """Every tensor random, those that training starts from zero included; variances positive, counters whole."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 4
        tensor = torch.randn(shape, generator=generator, dtype=dtype) / math.sqrt(fan_in)
        if name.endswith("running_var"):
            tensor = tensor.abs() + 0.5
        state[name] = torch.tensor(7) if name.endswith("num_batches_tracked") else tensor
    return state


def _layer(name: str, *weight: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


# guided-diffusion's U-Net


def unet_shapes(c: GuidedDiffusion) -> Shapes:  # noqa: C901 - one loop down, one up, as the networks are built
    """In the order of the checkpoint."""
    time = 4 * c.model_channels

    def resblock(name: str, c_in: int, c_out: int) -> Shapes:
        skip = _layer(f"{name}.skip_connection", c_out, c_in, 1, 1) if c_in != c_out else {}
        return {
            **_layer(f"{name}.in_layers.0", c_in), **_layer(f"{name}.in_layers.2", c_out, c_in, 3, 3),
            **_layer(f"{name}.emb_layers.1", 2 * c_out, time),
            **_layer(f"{name}.out_layers.0", c_out), **_layer(f"{name}.out_layers.3", c_out, c_out, 3, 3), **skip,
        }  # fmt: skip

    def attention(name: str, ch: int) -> Shapes:
        return {
            **_layer(f"{name}.norm", ch), **_layer(f"{name}.qkv", 3 * ch, ch, 1),
            **_layer(f"{name}.proj_out", ch, ch, 1),
        }  # fmt: skip

    shapes = _layer("time_embed.0", time, c.model_channels) | _layer("time_embed.2", time, time)
    shapes |= _layer("input_blocks.0.0", c.model_channels, 3, 3, 3)
    skips, ch, side, i = [c.model_channels], c.model_channels, c.image_size, 1
    for level, mult in enumerate(c.channel_mult):
        for _ in range(c.num_res_blocks[level]):
            shapes |= resblock(f"input_blocks.{i}.0", ch, mult * c.model_channels)
            ch = mult * c.model_channels
            if side in c.attention_resolutions:
                shapes |= attention(f"input_blocks.{i}.1", ch)
            skips.append(ch)
            i += 1
        if level < len(c.channel_mult) - 1:
            shapes |= _layer(f"input_blocks.{i}.0.op", ch, ch, 3, 3)
            skips.append(ch)
            side //= 2
            i += 1
    shapes |= resblock("middle_block.0", ch, ch) | attention("middle_block.1", ch) | resblock("middle_block.2", ch, ch)
    i = 0
    for level in reversed(range(len(c.channel_mult))):
        for block in range(c.num_res_blocks[level] + 1):
            shapes |= resblock(f"output_blocks.{i}.0", ch + skips.pop(), c.channel_mult[level] * c.model_channels)
            ch, part = c.channel_mult[level] * c.model_channels, 1
            if side in c.attention_resolutions:
                shapes |= attention(f"output_blocks.{i}.1", ch)
                part = 2
            if level and block == c.num_res_blocks[level]:
                shapes |= _layer(f"output_blocks.{i}.{part}.conv", ch, ch, 3, 3)
                side *= 2
            i += 1
    return shapes | _layer("out.0", ch) | _layer("out.2", 6, c.model_channels, 3, 3)


def unet(state: State, c: GuidedDiffusion, x: Tensor, timesteps: Tensor) -> Tensor:
    """(B, 3, H, W), (B,) -> (B, 6, H, W)."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(c.model_channels // 2, dtype=torch.float32)
                            / (c.model_channels // 2))  # fmt: skip
    angles = timesteps[:, None].float() * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
    embedding = _linear(state, "time_embed.2", F.silu(_linear(state, "time_embed.0", embedding)))
    h, skips = x, []
    for i in range(_count(state, "input_blocks")):
        h = _run(state, c, f"input_blocks.{i}", h, embedding)
        skips.append(h)
    h = _run(state, c, "middle_block", h, embedding)
    for i in range(_count(state, "output_blocks")):
        h = _run(state, c, f"output_blocks.{i}", torch.cat([h, skips.pop()], dim=1), embedding)
    assert not skips
    return _conv(state, "out.2", F.silu(_norm(state, c, "out.0", h)))


def _count(state: State, kind: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(kind))


def _run(state: State, c: GuidedDiffusion, block: str, h: Tensor, embedding: Tensor) -> Tensor:
    """The modules of one block, one after the other; what each is can be told from its tensors."""
    for part in range(3):
        name = f"{block}.{part}"
        if f"{name}.in_layers.0.weight" in state:
            h = _resblock(state, c, name, h, embedding)
        elif f"{name}.qkv.weight" in state:
            h = h + _legacy_attention(state, c, name, h)
        elif f"{name}.op.weight" in state:
            h = F.conv2d(h, state[f"{name}.op.weight"], state[f"{name}.op.bias"], stride=2, padding=1)
        elif f"{name}.conv.weight" in state:
            h = _conv(state, f"{name}.conv", h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        elif f"{name}.weight" in state:
            h = _conv(state, name, h)
    return h


def _resblock(state: State, c: GuidedDiffusion, name: str, x: Tensor, embedding: Tensor) -> Tensor:
    h = _conv(state, f"{name}.in_layers.2", F.silu(_norm(state, c, f"{name}.in_layers.0", x)))
    scale, shift = _linear(state, f"{name}.emb_layers.1", F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
    h = _norm(state, c, f"{name}.out_layers.0", h) * (1 + scale) + shift
    h = _conv(state, f"{name}.out_layers.3", F.silu(h))
    return h + (_conv(state, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in state else x)


def _legacy_attention(state: State, c: GuidedDiffusion, name: str, x: Tensor) -> Tensor:
    """Head by head; the rows of a head are q, then k, then v."""
    d, pixels = c.num_head_channels, _norm(state, c, f"{name}.norm", x).flatten(2)
    qkv = F.conv1d(pixels, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
    heads = []
    for first in range(0, qkv.shape[1], 3 * d):
        q, k, v = (qkv[:, first + i * d : first + (i + 1) * d] for i in range(3))
        weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(d), dim=2)
        heads.append(torch.einsum("bts,bcs->bct", weights, v))
    out = F.conv1d(torch.cat(heads, dim=1), state[f"{name}.proj_out.weight"], state[f"{name}.proj_out.bias"])
    return out.view_as(x)


def _norm(state: State, c: GuidedDiffusion, name: str, x: Tensor) -> Tensor:
    groups = x.reshape(x.shape[0], c.groups, -1)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, unbiased=False)
    normed = ((groups - mean) / torch.sqrt(variance + 1e-5)).view_as(x)
    return normed * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def _conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


# SwinIR


def swinir_shapes() -> Shapes:
    """DifFace's: 8 RSTB of 6 layers, 180 channels, windows of 8 on 64 x 64 tokens; buffers included."""
    shapes = _layer("conv_first.1", 180, 3 * 8**2, 3, 3) | _layer("patch_embed.norm", 180)
    for i in range(8):
        for j in range(6):
            name = f"layers.{i}.residual_group.blocks.{j}"
            shapes |= {f"{name}.attn_mask": (64, 64, 64)} if j % 2 else {}
            shapes |= _layer(f"{name}.norm1", 180) | _layer(f"{name}.norm2", 180)
            shapes |= {
                f"{name}.attn.relative_position_bias_table": (15 * 15, 6),
                f"{name}.attn.relative_position_index": (64, 64),
            }
            shapes |= _layer(f"{name}.attn.qkv", 540, 180) | _layer(f"{name}.attn.proj", 180, 180)
            shapes |= _layer(f"{name}.mlp.fc1", 360, 180) | _layer(f"{name}.mlp.fc2", 180, 360)
        shapes |= _layer(f"layers.{i}.conv", 180, 180, 3, 3)
    shapes |= _layer("norm", 180) | _layer("conv_after_body", 180, 180, 3, 3)
    shapes |= _layer("conv_before_upsample.0", 64, 180, 3, 3)
    for name in ("conv_up1", "conv_up2", "conv_up3", "conv_hr"):
        shapes |= _layer(name, 64, 64, 3, 3)
    return shapes | _layer("conv_last", 3, 64, 3, 3)


# LaMa


def lama_shapes(ngf: int = 64, n_downsampling: int = 3, n_blocks: int = 18, ratio: float = 0.75) -> Shapes:
    def norm(name: str, ch: int) -> Shapes:
        statistics = {f"{name}.running_mean": (ch,), f"{name}.running_var": (ch,), f"{name}.num_batches_tracked": ()}
        return {**_layer(name, ch), **statistics}

    shapes: Shapes = {"model.1.ffc.convl2l.weight": (ngf, 4, 7, 7), **norm("model.1.bn_l", ngf)}
    ch, layer = ngf, 2
    for i in range(n_downsampling):
        to_global = int(2 * ch * ratio) if i == n_downsampling - 1 else 0
        shapes |= {f"model.{layer}.ffc.convl2l.weight": (2 * ch - to_global, ch, 3, 3)}
        if to_global:
            shapes |= {
                f"model.{layer}.ffc.convl2g.weight": (to_global, ch, 3, 3),
                **norm(f"model.{layer}.bn_g", to_global),
            }
        shapes |= norm(f"model.{layer}.bn_l", 2 * ch - to_global)
        ch, layer = 2 * ch, layer + 1
    far, near = int(ch * ratio), ch - int(ch * ratio)
    for _ in range(n_blocks):
        for conv in ("conv1", "conv2"):
            name = f"model.{layer}.{conv}"
            shapes |= {
                f"{name}.ffc.convl2l.weight": (near, near, 3, 3),
                f"{name}.ffc.convl2g.weight": (far, near, 3, 3),
                f"{name}.ffc.convg2l.weight": (near, far, 3, 3),
                f"{name}.ffc.convg2g.conv1.0.weight": (far // 2, far, 1, 1),
                **norm(f"{name}.ffc.convg2g.conv1.1", far // 2),
                f"{name}.ffc.convg2g.fu.conv_layer.weight": (far, far, 1, 1),
                **norm(f"{name}.ffc.convg2g.fu.bn", far),
                f"{name}.ffc.convg2g.conv2.weight": (far, far // 2, 1, 1),
                **norm(f"{name}.bn_l", near),
                **norm(f"{name}.bn_g", far),
            }
        layer += 1
    layer += 1  # the concatenation
    for _ in range(n_downsampling):
        shapes |= {f"model.{layer}.weight": (ch, ch // 2, 3, 3), f"model.{layer}.bias": (ch // 2,)}
        shapes |= norm(f"model.{layer + 1}", ch // 2)
        ch, layer = ch // 2, layer + 3
    return shapes | _layer(f"model.{layer + 1}", 3, ngf, 7, 7)


def lama(state: State, n_downsampling: int, n_blocks: int, picture: Tensor, mask: Tensor) -> Tensor:
    """Layer by layer, spectra by the definition of the Fourier transform."""

    def padded_conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        pad = weight.shape[-1] // 2
        return F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), weight, state.get(f"{name}.bias"), stride=stride)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{kind}"][:, None, None] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def spectral(name: str, x: Tensor) -> Tensor:
        x = norm(f"{name}.conv1.1", _conv(state, f"{name}.conv1.0", x)).relu()
        real, imaginary = dft(x)
        pairs = torch.stack([real, imaginary], dim=2).flatten(1, 2)  # re, im of channel 0, then of channel 1, ...
        pairs = norm(f"{name}.fu.bn", _conv(state, f"{name}.fu.conv_layer", pairs)).relu()
        x = x + inverse_dft(pairs[:, 0::2], pairs[:, 1::2], x.shape[-1])
        return _conv(state, f"{name}.conv2", x)

    def ffc_block(name: str, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        near, far = (
            padded_conv(f"{name}.ffc.convl2l", near) + padded_conv(f"{name}.ffc.convg2l", far),
            padded_conv(f"{name}.ffc.convl2g", near) + spectral(f"{name}.ffc.convg2g", far),
        )
        return norm(f"{name}.bn_l", near).relu(), norm(f"{name}.bn_g", far).relu()

    x = norm("model.1.bn_l", padded_conv("model.1.ffc.convl2l", torch.cat([picture, mask], dim=1))).relu()
    for layer in range(2, 1 + n_downsampling):
        x = norm(f"model.{layer}.bn_l", padded_conv(f"model.{layer}.ffc.convl2l", x, 2)).relu()
    name = f"model.{1 + n_downsampling}"
    near = norm(f"{name}.bn_l", padded_conv(f"{name}.ffc.convl2l", x, 2)).relu()
    far = norm(f"{name}.bn_g", padded_conv(f"{name}.ffc.convl2g", x, 2)).relu()
    for layer in range(2 + n_downsampling, 2 + n_downsampling + n_blocks):
        inner = ffc_block(f"model.{layer}.conv1", near, far)
        inner = ffc_block(f"model.{layer}.conv2", *inner)
        near, far = near + inner[0], far + inner[1]
    x, layer = torch.cat([near, far], dim=1), 3 + n_downsampling + n_blocks
    for _ in range(n_downsampling):
        weight, bias = state[f"model.{layer}.weight"], state[f"model.{layer}.bias"]
        x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        x, layer = norm(f"model.{layer + 1}", x).relu(), layer + 3
    return 1 / (1 + torch.exp(-padded_conv(f"model.{layer + 1}", x)))


def _waves(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    angles = 2 * math.pi * torch.arange(n, dtype=dtype)[:, None] * torch.arange(n, dtype=dtype) / n
    return angles.cos() / math.sqrt(n), angles.sin() / math.sqrt(n)


def dft(x: Tensor) -> tuple[Tensor, Tensor]:
    """The orthonormal spectrum of (..., H, W) real pictures, its non-negative horizontal frequencies."""
    (cos_w, sin_w), (cos_h, sin_h) = _waves(x.shape[-1], x.dtype), _waves(x.shape[-2], x.dtype)
    real, imaginary = x @ cos_w, -x @ sin_w
    real, imaginary = cos_h @ real + sin_h @ imaginary, cos_h @ imaginary - sin_h @ real
    half = x.shape[-1] // 2 + 1
    return real[..., :half], imaginary[..., :half]


def inverse_dft(real: Tensor, imaginary: Tensor, width: int) -> Tensor:
    """Back to real pictures; the other half of the spectrum is the conjugate of this one."""
    cos_h, sin_h = _waves(real.shape[-2], real.dtype)
    real, imaginary = cos_h @ real - sin_h @ imaginary, cos_h @ imaginary + sin_h @ real
    cos_w, sin_w = (wave[: width // 2 + 1] for wave in _waves(width, real.dtype))
    twice = torch.full((width // 2 + 1, 1), 2.0, dtype=real.dtype)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return real @ (twice * cos_w) - imaginary @ (twice * sin_w)
