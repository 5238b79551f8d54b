"""The networks' shapes as data. Importing this costs nothing: methods are listed and checked without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class SwinIRConfig:
    """Defaults: DifFace's regression network at 512 px, 15,792,587 parameters."""

    unshuffle: int = 8  # s: a power of two; the transformer works at 1/s of the side
    embed_dim: int = 180
    depths: tuple[int, ...] = (6,) * 8  # attention layers per RSTB
    num_heads: int = 6
    window_size: int = 8
    mlp_ratio: float = 2.0
    num_feat: int = 64  # channels of the upsampling tail
    drop_path: float = 0.1  # stochastic depth of the last layer, while training
    img_size: int = 64  # transformer tokens per side that the stored masks are for

    @property
    def luck(self) -> tuple[int, int]:
        """Random numbers of one image by which branches are dropped: two of each attention layer."""
        return sum(self.depths), 2


@dataclass(frozen=True)
class UNetEstimatorConfig:
    """A convolutional U-Net behind a pixel-unshuffle of 4, which restores."""

    channels: tuple[int, ...] = (64, 128, 256)  # per level, from a quarter of the side down
    blocks: tuple[int, ...] = (1, 1, 2)  # residual blocks of a level, on the way down and again on the way up
    half_channels: int = 24  # of the tail, at half of the side
    full_channels: int = 16  # and at full size
    coarsest: int = 8  # side of the coarsest level's map that is learned per place, for faces of 128 px


@dataclass(frozen=True)
class DetailConfig:
    """A convolutional U-Net behind a pixel-unshuffle of 4, which draws a restored face at twice its side."""

    channels: tuple[int, ...] = (48, 96)  # per level, from a quarter of the side down
    blocks: tuple[int, ...] = (1, 2)  # residual blocks of a level, on the way down and again on the way up
    half_channels: int = 16  # of the tail, at half of the side
    full_channels: int = 8  # and at full size
    estimator: UNetEstimatorConfig = field(default_factory=UNetEstimatorConfig)  # whose faces it knows


@dataclass(frozen=True)
class UNetConfig:
    """A diffusion U-Net of the guided-diffusion family."""

    sample_size: int  # side of the images, px
    channels: tuple[int, ...]  # per level, from fine to coarse; multiples of `norm_groups`
    layers_per_block: int | tuple[int, ...] = 1  # of all levels, or of each; one more on the way up
    attention_levels: tuple[int, ...] = ()  # levels with self-attention, beside the middle block
    head_dim: int = 32
    norm_groups: int = 32
    unshuffle: int = 1  # the network works on (3 s^2, H/s, W/s)
    condition_channels: int = 0  # channels of an image concatenated to the input
    learn_sigma: bool = False  # 3 more output channels: the variance, between its bounds
    scale_shift: bool = True  # how the timestep enters a residual block; else it is added, as latent diffusion has it

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks of each level on the way down."""
        depth = self.layers_per_block
        return (depth,) * len(self.channels) if isinstance(depth, int) else depth


@dataclass(frozen=True)
class LaMaConfig:
    """Defaults: DifFace's inpainting estimator at 256 px, 50,975,875 trainable parameters."""

    channels: int = 64  # at full resolution; doubled at each downsampling
    num_downsamples: int = 3
    num_blocks: int = 18
    global_ratio: float = 0.75  # share of the channels that go through the Fourier transform


@dataclass(frozen=True)
class VQGANConfig:
    """Defaults: latent diffusion's vq-f4 at 512 px, 55,322,782 parameters."""

    channels: tuple[int, ...] = (128, 256, 512)  # per level, from fine to coarse; multiples of `norm_groups`
    layers_per_block: int = 2  # residual blocks of a level in the encoder; the decoder has one more
    latent_channels: int = 3
    codes: int = 8192
    norm_groups: int = 32
    mid_attention: bool = True
    unshuffle: int = 1  # the network works on (3 s^2, H/s, W/s)

    @property
    def factor(self) -> int:
        """Pixels of the image along one of the latent."""
        return self.unshuffle * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class LatentMaskConfig:
    """A small convolutional network over two latents."""

    channels: int = 64
    layers: int = 4


@dataclass(frozen=True)
class MobileFaceConfig:
    """Defaults: Open Model Zoo's face-reidentification-retail-0095, 1,106,814 parameters."""

    stem: int = 64
    # of each: channels, expansion of the first block, expansion of the others, blocks, squeezed channels
    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (64, 128, 128, 5, 8),
        (128, 256, 256, 7, 16),
        (128, 512, 256, 3, 16),
    )
    head: int = 512
    embedding: int = 256


@dataclass(frozen=True)
class RRDBNetConfig:
    """Defaults: Real-ESRGAN's x4plus, 16,697,987 parameters."""

    factor: Literal[2, 4] = 4
    channels: int = 64
    growth: int = 32  # channels that each layer of a dense block adds
    blocks: int = 23
