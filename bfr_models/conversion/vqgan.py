"""A VQGAN of latent diffusion's (CompVis) layout, such as vq-f4, under our parameter names: nothing is left over or
missing.

    theirs                                            ours, in diffusers' VQModel
    encoder.down.{i}.block.{j}, decoder.up.{i}...     levels from fine to coarse; the decoder's the other way round
    mid.block_1, mid.attn_1, mid.block_2              mid_block.resnets.0, .attentions.0, .resnets.1
    q, k, v, proj_out: 1x1 convolutions               linear layers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from bfr_models.conversion.strict import State, exactly, on_meta, tensors
from bfr_models.methods.clr_face_presets import CLR_FACE
from bfr_models.networks.configs import VQGANConfig
from bfr_models.networks.vqgan import VQGAN

_TRAINING = ("loss.", "model_ema.")
"""Prefixes of what only their training needs: the discriminator, LPIPS, a second copy."""


def convert_first_stage(state: Mapping[str, Tensor]) -> State:
    """A vq-f4 checkpoint as the parameters of ffhq512's VQGAN."""
    return convert_vqgan(state, next(preset.vqgan for preset in CLR_FACE if preset.name == "ffhq512"))


def convert_vqgan(state: Mapping[str, Tensor], config: VQGANConfig) -> State:
    """A published VQGAN of this shape as the parameters of `VQGAN(config)`. UsageError lists what differs."""
    left = {name: tensor for name, tensor in tensors(state).items() if not name.startswith(_TRAINING)}
    done = State()
    for theirs, ours in _modules(config):
        for kind in ("weight", "bias"):
            tensor = left.pop(f"{theirs}.{kind}", None)
            if tensor is not None:
                done[f"net.{ours}.{kind}"] = tensor.flatten(1) if _is_linear(ours) and tensor.ndim == 4 else tensor
    return exactly({**done, **left}, on_meta(VQGAN, config))


def _is_linear(module: str) -> bool:
    return ".attentions." in module and not module.endswith("group_norm")


def _modules(c: VQGANConfig) -> Iterator[tuple[str, str]]:
    """(their module, ours) for every module that has parameters."""
    last = len(c.channels) - 1
    for half, ours_half, theirs_levels, extra in (
        ("encoder", "down_blocks", "down", 0),
        ("decoder", "up_blocks", "up", 1),
    ):
        yield f"{half}.conv_in", f"{half}.conv_in"
        for level in range(last + 1):
            place = level if half == "encoder" else last - level
            for layer in range(c.layers_per_block + extra):
                yield from _resblock(
                    f"{half}.{theirs_levels}.{level}.block.{layer}", f"{half}.{ours_half}.{place}.resnets.{layer}"
                )
            if half == "encoder" and level < last:
                yield f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"
            if half == "decoder" and level > 0:
                yield f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{place}.upsamplers.0.conv"
        yield from _resblock(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0")
        attention = f"{half}.mid_block.attentions.0"
        yield f"{half}.mid.attn_1.norm", f"{attention}.group_norm"
        for theirs, ours in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            yield f"{half}.mid.attn_1.{theirs}", f"{attention}.{ours}"
        yield from _resblock(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1")
        yield f"{half}.norm_out", f"{half}.conv_norm_out"
        yield f"{half}.conv_out", f"{half}.conv_out"
    for same in ("quant_conv", "post_quant_conv", "quantize.embedding"):
        yield same, same


def _resblock(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for layer in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{theirs}.{layer}", f"{ours}.{layer}"
    yield f"{theirs}.nin_shortcut", f"{ours}.conv_shortcut"
