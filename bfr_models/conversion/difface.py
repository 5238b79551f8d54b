"""DifFace's published checkpoints under our parameter names: nothing is changed, left over or missing.

    prior      guided-diffusion's U-Net: blocks in one row, counted through; here each level has its own
    estimator  SwinIR and LaMa: named as ours; only what the constructor computes is dropped

The authors' files hold the tensors bare or under `state_dict`, with or without the `module.` of a parallel wrapper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from bfr_models.conversion.strict import State, exactly, on_meta, tensors
from bfr_models.methods.difface_presets import ESTIMATOR512, PRIOR256, PRIOR512
from bfr_models.networks.configs import LaMaConfig, SwinIRConfig, UNetConfig
from bfr_models.networks.lama import LaMa
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.unet import UNet

_RESBLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "qkv": "to_qkv", "proj_out": "to_out.0"}


def convert_prior(state: Mapping[str, Any]) -> State:
    """`iddpm_ffhq512_ema500000.pth` as the parameters of `UNet(PRIOR512)`."""
    return convert_unet(state, PRIOR512)


def convert_estimator(state: Mapping[str, Any]) -> State:
    """`swinir_restoration512_L1.pth`, or `General_Face_ffhq512.pth`, as the parameters of `SwinIR(ESTIMATOR512)`."""
    return convert_swinir(state, ESTIMATOR512)


def convert_inpaint_prior(state: Mapping[str, Any]) -> State:
    """`iddpm_ffhq256_ema750000.pth` as the parameters of `UNet(PRIOR256)`."""
    return convert_unet(state, PRIOR256)


def convert_inpaint_estimator(state: Mapping[str, Any]) -> State:
    """`lama_inpainting256.pth` as the parameters of `LaMa(LaMaConfig())`."""
    return convert_lama(state, LaMaConfig())


def convert_unet(state: Mapping[str, Any], config: UNetConfig) -> State:
    """A guided-diffusion U-Net of this shape as the parameters of `UNet(config)`. UsageError lists what differs."""
    left, done = tensors(state), State()
    for theirs, ours in _unet_modules(config):
        for kind in ("weight", "bias"):
            tensor = left.pop(f"{theirs}.{kind}", None)
            if tensor is not None:
                done.update(_as_ours(f"net.{ours}", kind, tensor, config.head_dim))
    return exactly({**done, **left}, on_meta(UNet, config))


def convert_swinir(state: Mapping[str, Any], config: SwinIRConfig) -> State:
    """A published SwinIR of this shape as the parameters of `SwinIR(config)`. UsageError lists what differs.

    Its buffers are dropped: attention masks and position indices, which the constructor computes.
    """
    network = on_meta(SwinIR, config)
    buffers = {name for name, _ in network.named_buffers()}
    return exactly({name: tensor for name, tensor in tensors(state).items() if name not in buffers}, network)


def convert_lama(state: Mapping[str, Any], config: LaMaConfig) -> State:
    """A published LaMa generator of this shape as the parameters of `LaMa(config)`. UsageError lists what differs.

    The norms' batch counters are dropped.
    """
    network = on_meta(LaMa, config)
    norms = {name.removesuffix("running_var") for name, _ in network.named_parameters() if name.endswith("running_var")}
    counters = {f"{norm}num_batches_tracked" for norm in norms}
    return exactly({name: tensor for name, tensor in tensors(state).items() if name not in counters}, network)


def _unet_modules(c: UNetConfig) -> Iterator[tuple[str, str]]:
    """(their module, ours) for every module of the U-Net that has parameters."""
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "input_blocks.0.0", "conv_in"
    last, index = len(c.channels) - 1, 0
    for level, layers in enumerate(c.layers):
        ours = f"down_blocks.{level}"
        for layer in range(layers):
            index += 1
            yield from _block(f"input_blocks.{index}", ours, layer, level in c.attention_levels)
        if level < last:
            index += 1
            yield f"input_blocks.{index}.0.op", f"{ours}.downsamplers.0.conv"
    yield from _resblock("middle_block.0", "mid_block.resnets.0")
    yield from _attention("middle_block.1", "mid_block.attentions.0")
    yield from _resblock("middle_block.2", "mid_block.resnets.1")
    index = -1
    for level in reversed(range(len(c.channels))):
        ours, attention = f"up_blocks.{last - level}", level in c.attention_levels
        for layer in range(c.layers[level] + 1):
            index += 1
            yield from _block(f"output_blocks.{index}", ours, layer, attention)
        if level > 0:  # in their numbering part of the level's last block
            yield f"output_blocks.{index}.{2 if attention else 1}.conv", f"{ours}.upsamplers.0.conv"
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"


def _block(theirs: str, ours: str, layer: int, attention: bool) -> Iterator[tuple[str, str]]:
    yield from _resblock(f"{theirs}.0", f"{ours}.resnets.{layer}")
    if attention:
        yield from _attention(f"{theirs}.1", f"{ours}.attentions.{layer}")


def _resblock(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for their_layer, our_layer in _RESBLOCK.items():
        yield f"{theirs}.{their_layer}", f"{ours}.{our_layer}"


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for their_layer, our_layer in _ATTENTION.items():
        yield f"{theirs}.{their_layer}", f"{ours}.{our_layer}"


def _as_ours(module: str, kind: str, tensor: Tensor, head_dim: int) -> State:
    """One tensor of theirs as ours. Their attention is made of 1x1 convolutions, and the rows of its `qkv` are in the
    order [head][q, k, v][channel of the head]."""
    if module.endswith(".to_out.0"):
        return {f"{module}.{kind}": tensor.squeeze(-1)}
    if not module.endswith(".to_qkv") or tensor.shape[0] % (3 * head_dim):
        return {f"{module}.{kind}": tensor}
    parts = tensor.reshape(-1, 3, head_dim, *tensor.shape[1:]).unbind(1)
    return {
        f"{module.removesuffix('qkv')}{name}.{kind}": part.reshape(-1, *tensor.shape[1:2])
        for name, part in zip("qkv", parts, strict=True)
    }
