"""RetinaFace (arXiv:1905.00641) as facexlib has it, on MobileNet 0.25 or ResNet-50: boxes and landmarks in one pass.

    photo -> body: features at strides 8, 16, 32 -> FPN: coarse ones added to fine ones -> SSH: wider views of each
          -> heads: for each of two anchors per place a score, a box, five landmarks

Attribute names are those of the published checkpoints, which load strictly. Nothing of torchvision is needed.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Body = Literal["mobilenet0.25", "resnet50"]

ANCHORS = 2  # per place of a feature map


class RetinaFace(nn.Module):
    """(B, 3, H, W), BGR levels minus the mean, H and W multiples of 32 ->

    (B, n) scores in [0, 1], (B, n, 4) box offsets, (B, n, 10) landmark offsets, for the n anchors of all three
    strides, row by row.
    """

    def __init__(self, body: Body) -> None:
        super().__init__()
        channels, inner = (64, 64) if body == "mobilenet0.25" else (512, 256)
        self.body = _MobileNet() if body == "mobilenet0.25" else _ResNet50()
        self.fpn = _FPN((channels, 2 * channels, 4 * channels), inner)
        self.ssh1, self.ssh2, self.ssh3 = (_SSH(inner) for _ in range(3))
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(_Head(inner, numbers) for _ in range(3)) for numbers in (2, 4, 10)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.fpn(self.body(x))
        views = (self.ssh1(fine), self.ssh2(middle), self.ssh3(coarse))
        classes, boxes, landmarks = (
            torch.cat([head(view) for head, view in zip(heads, views, strict=True)], dim=1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        )
        return F.softmax(classes, dim=-1)[..., 1], boxes, landmarks


class _Head(nn.Module):
    def __init__(self, channels: int, numbers: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(channels, ANCHORS * numbers, 1)
        self.numbers = numbers

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, self.numbers))


class _FPN(nn.Module):
    def __init__(self, channels: tuple[int, int, int], inner: int) -> None:
        super().__init__()
        slope = _slope(inner)
        self.output1, self.output2, self.output3 = (_conv(c, inner, kernel=1, slope=slope) for c in channels)
        self.merge1, self.merge2 = (_conv(inner, inner, slope=slope) for _ in range(2))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.output1(features[0]), self.output2(features[1]), self.output3(features[2])
        middle = self.merge2(middle + F.interpolate(coarse, middle.shape[-2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, fine.shape[-2:], mode="nearest"))
        return fine, middle, coarse


class _SSH(nn.Module):
    """Views of 3 x 3, 5 x 5 and 7 x 7, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter, slope = channels // 2, channels // 4, _slope(channels)
        self.conv3X3 = _conv(channels, half)
        self.conv5X5_1 = _conv(channels, quarter, slope=slope)
        self.conv5X5_2 = _conv(quarter, quarter)
        self.conv7X7_2 = _conv(quarter, quarter, slope=slope)
        self.conv7x7_3 = _conv(quarter, quarter)

    def forward(self, x: Tensor) -> Tensor:
        wider = self.conv5X5_1(x)
        views = (self.conv3X3(x), self.conv5X5_2(wider), self.conv7x7_3(self.conv7X7_2(wider)))
        return F.relu(torch.cat(views, dim=1))


class _MobileNet(nn.Module):
    """MobileNet v1 at a quarter of its width."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            _conv(3, 8, stride=2, slope=0.1), _separable(8, 16), _separable(16, 32, 2), _separable(32, 32),
            _separable(32, 64, 2), _separable(64, 64),
        )  # fmt: skip
        self.stage2 = nn.Sequential(_separable(64, 128, 2), *(_separable(128, 128) for _ in range(5)))
        self.stage3 = nn.Sequential(_separable(128, 256, 2), _separable(256, 256))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stage1(x)
        middle = self.stage2(fine)
        return [fine, middle, self.stage3(middle)]


class _ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _bottlenecks(3, 64, 64, 1)
        self.layer2 = _bottlenecks(4, 256, 128, 2)
        self.layer3 = _bottlenecks(6, 512, 256, 2)
        self.layer4 = _bottlenecks(3, 1024, 512, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        fine = self.layer2(self.layer1(x))
        middle = self.layer3(fine)
        return [fine, middle, self.layer4(middle)]


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, 4 * inner, 1, bias=False), nn.BatchNorm2d(4 * inner)
        self.downsample: nn.Module = nn.Identity()
        if channels != 4 * inner:
            shortcut = nn.Conv2d(channels, 4 * inner, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * inner))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _bottlenecks(count: int, channels: int, inner: int, stride: int) -> nn.Sequential:
    rest = (_Bottleneck(4 * inner, inner, 1) for _ in range(count - 1))
    return nn.Sequential(_Bottleneck(channels, inner, stride), *rest)


def _conv(channels: int, out: int, kernel: int = 3, stride: int = 1, slope: float | None = None) -> nn.Sequential:
    """A convolution and a batch norm; with a `slope`, a leaky ReLU."""
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    activation = [] if slope is None else [nn.LeakyReLU(slope, inplace=True)]
    return nn.Sequential(conv, nn.BatchNorm2d(out), *activation)


def _separable(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """A convolution of each channel by itself, then one across them."""
    depthwise = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(channels), nn.LeakyReLU(0.1, inplace=True), *_conv(channels, out, 1, slope=0.1)
    )


def _slope(channels: int) -> float:
    """The small network's ReLUs leak, the large one's do not."""
    return 0.1 if channels <= 64 else 0.0
