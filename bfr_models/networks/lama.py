"""LaMa (arXiv 2109.07161): inpainting with fast Fourier convolutions (NeurIPS 2020), as DifFace estimates with it.

    cat[image, mask] -> conv 7x7 -> stride-2 conv x 3 -> FFC residual block x 18 -> transposed conv x 3 -> conv 7x7

A fast Fourier convolution keeps its channels in two parts. The local part l is convolved as usual; the global
part g goes through the spectrum of the whole image, so one layer sees all of it:

    l' = conv(l) + conv(g)            g' = conv(l) + spectral(g)

Attribute names are those of the published implementation, so that its state dicts load strictly.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import LaMaConfig
from bfr_models.networks.frozen_batch_norm import FrozenBatchNorm

Parts = tuple[Tensor, Tensor | None]
"""Local and global channels, (B, C_l, H, W) and (B, C_g, H, W) or none."""


class LaMa(nn.Module):
    """(B, 3, H, W) in [0, 1] with holes at 0 and (B, 1, H, W), 1 in the holes -> (B, 3, H, W) in [0, 1].

    H and W are multiples of 2 ** num_downsamples, and more than 3 of those.
    """

    def __init__(self, config: LaMaConfig) -> None:
        super().__init__()
        c = config
        widths = [c.channels * 2**i for i in range(c.num_downsamples + 1)]
        wide, narrow = widths[1:], widths[:-1]
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), _FFCNormAct(4, c.channels, 7, padding=0)]
        for i in range(c.num_downsamples):
            to_global = c.global_ratio if i == c.num_downsamples - 1 else 0.0
            layers.append(_FFCNormAct(narrow[i], wide[i], 3, stride=2, ratios=(0.0, to_global)))
        layers += [_FFCBlock(widths[-1], c.global_ratio) for _ in range(c.num_blocks)]
        layers.append(_Concat())
        for i in reversed(range(c.num_downsamples)):
            layers.append(nn.ConvTranspose2d(wide[i], narrow[i], 3, stride=2, padding=1, output_padding=1))
            layers += [FrozenBatchNorm(narrow[i]), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(c.channels, 3, 7)]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.sigmoid(self.model(torch.cat([image, mask], dim=1)))


class _FourierUnit(nn.Module):
    """A 1x1 convolution of the spectrum; real and imaginary part of a channel are neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.bn = FrozenBatchNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))  # (B, C, H, W/2 + 1, 2)
        spectrum = spectrum.movedim(-1, 2).reshape(batch, 2 * channels, height, -1)
        spectrum = F.relu(self.bn(self.conv_layer(spectrum)))
        spectrum = spectrum.view(batch, channels, 2, height, -1).movedim(2, -1).contiguous()
        return torch.fft.irfft2(torch.view_as_complex(spectrum), s=(height, width), norm="ortho")


class _SpectralTransform(nn.Module):
    """Half the channels, their Fourier unit added to them, and all the channels again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), FrozenBatchNorm(half), nn.ReLU())
        self.fu = _FourierUnit(half)
        self.conv2 = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return cast(Tensor, self.conv2(x + self.fu(x)))


class _FFC(nn.Module):
    """The fast Fourier convolution; a part that has no channels has no layers."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, padding: int, ratios: tuple[float, float]
    ) -> None:
        super().__init__()
        global_in, global_out = int(channels_in * ratios[0]), int(channels_out * ratios[1])
        local_in, local_out = channels_in - global_in, channels_out - global_out

        def conv(c_in: int, c_out: int) -> nn.Conv2d:
            return nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False, padding_mode="reflect")

        self.convl2l = conv(local_in, local_out)
        self.convl2g = conv(local_in, global_out) if global_out else None
        self.convg2l = conv(global_in, local_out) if global_in else None
        self.convg2g = _SpectralTransform(global_in) if global_in and global_out else None

    def forward(self, parts: Parts) -> Parts:
        local, remote = parts
        to_local = self.convl2l(local)
        to_global = self.convl2g(local) if self.convl2g is not None else None
        if remote is not None and self.convg2l is not None and self.convg2g is not None:
            to_local, to_global = to_local + self.convg2l(remote), to_global + self.convg2g(remote)
        return to_local, to_global


class _FFCNormAct(nn.Module):
    """FFC -> BatchNorm -> ReLU, each part by itself."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 1,
        ratios: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        super().__init__()
        global_out = int(channels_out * ratios[1])
        self.ffc = _FFC(channels_in, channels_out, kernel, stride, padding, ratios)
        self.bn_l = FrozenBatchNorm(channels_out - global_out)
        self.bn_g = FrozenBatchNorm(global_out) if global_out else None

    def forward(self, parts: Parts | Tensor) -> Parts:
        local, remote = self.ffc(parts if isinstance(parts, tuple) else (parts, None))
        return F.relu(self.bn_l(local)), None if self.bn_g is None else F.relu(self.bn_g(remote))


class _FFCBlock(nn.Module):
    """Two FFCs and a skip around them."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.conv1 = _FFCNormAct(channels, channels, 3, ratios=(ratio, ratio))
        self.conv2 = _FFCNormAct(channels, channels, 3, ratios=(ratio, ratio))

    def forward(self, parts: tuple[Tensor, Tensor]) -> Parts:
        local, remote = self.conv2(self.conv1(parts))
        return parts[0] + local, parts[1] + remote


class _Concat(nn.Module):
    def forward(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(parts, dim=1)
