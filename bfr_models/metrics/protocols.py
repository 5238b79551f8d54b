"""What a figure means: network, resize, colour, reference and unit of each metric, by protocol. Imports no torch.

Papers report one name for several numbers: FID against FFHQ or against the ground truth, identity as a cosine or as
an angle of one of three networks. A protocol is stored with every figure, and two figures compare when theirs agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bfr_models.errors import unknown

Reference = Literal["gt", "lq", "ffhq", "none"]
"""What the restored face is compared with: the ground truth, its degraded input, FFHQ's statistics, or nothing."""


@dataclass(frozen=True)
class MetricProtocol:
    """How one metric is measured. `network` is None where there is none, `resize` where images keep their size."""

    network: str | None
    resize: str | None
    colour: str
    reference: Reference
    unit: str
    better: Literal["higher", "lower"]


@dataclass(frozen=True)
class Protocol:
    """A paper's or a challenge's choice; `differs` lists its known errors, which are not repeated here."""

    name: str
    source: str
    metrics: Mapping[str, MetricProtocol]
    differs: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For run.json and tables."""
        metrics = {name: asdict(metric) for name, metric in self.metrics.items()}
        return {"name": self.name, "source": self.source, "metrics": metrics, "differs": self.differs}


_UINT8 = "RGB, 0 to 255, rounded, nothing cropped"
_SIGNED = "RGB, -1 to 1"
_LEVELS = "RGB, 0 to 255"
_BILINEAR = "bilinear to 299, no antialiasing"
_INCEPTION = "inception-2015-12-05"

_PSNR = MetricProtocol(None, None, _UINT8, "gt", "dB", "higher")
_SSIM = MetricProtocol(None, None, _UINT8, "gt", "1", "higher")
_LPIPS_VGG = MetricProtocol("lpips_vgg", None, _SIGNED, "gt", "1", "lower")
_FID_FFHQ = MetricProtocol(_INCEPTION, _BILINEAR, _LEVELS, "ffhq", "1", "lower")
_FID_GT = MetricProtocol(_INCEPTION, _BILINEAR, _LEVELS, "gt", "1", "lower")
_NIQE = MetricProtocol("niqe-pristine", None, "Y of 16 to 235, rounded", "none", "1", "lower")
_DEG = MetricProtocol(
    "arcface_resnet18", "whole crop, bilinear to 128, no antialiasing", "grey, -1 to 1", "gt", "degrees", "lower"
)
_LMD_98 = MetricProtocol("lmd_wflw_98", "bilinear to 256", "RGB, 0 to 1", "gt", "px at 512", "lower")
_PYIQA = "as pyiqa 0.1 does by default"


def _learned(network: str, better: Literal["higher", "lower"] = "higher") -> MetricProtocol:
    return MetricProtocol(network, _PYIQA, "RGB, 0 to 1", "none", "1", better)


DEFAULT = Protocol(
    "default",
    "this project: every metric that is here, over the pixels that were written",
    {
        "psnr": _PSNR,
        "ssim": _SSIM,
        "ms_ssim": _SSIM,
        "lpips": _LPIPS_VGG,
        "identity_similarity": MetricProtocol(
            "the run's recogniser", "aligned by one set of landmarks", "RGB", "lq", "cosine", "higher"
        ),
        "identity_similarity_gt": MetricProtocol(
            "the run's recogniser", "aligned by one set of landmarks", "RGB", "gt", "cosine", "higher"
        ),
        "identity_degrees": MetricProtocol(
            "the run's recogniser", "aligned by one set of landmarks", "RGB", "lq", "degrees", "lower"
        ),
        "identity_degrees_gt": MetricProtocol(
            "the run's recogniser", "aligned by one set of landmarks", "RGB", "gt", "degrees", "lower"
        ),
        "lmd_dlib_5": MetricProtocol("lmd_dlib_5", None, "RGB", "gt", "px", "lower"),
        "fid": _FID_GT,
        "niqe": _NIQE,
    },
)

VQFR = Protocol(
    "vqfr",
    "VQFR's metric_paper (arXiv 2205.06803), which CodeFormer and others use",
    {
        "psnr": _PSNR,
        "ssim": _SSIM,
        "lpips": _LPIPS_VGG,
        "deg": _DEG,
        "lmd": _LMD_98,
        "fid": _FID_FFHQ,
        "niqe": _NIQE,
    },
    "its PSNR and SSIM may first match mean and deviation to the ground truth, its pairs are not checked by name, and "
    "angles below 1 degree are left out of its mean",
)

DIFFACE = Protocol(
    "difface",
    "DifFace (arXiv 2212.06512), as its author describes it in issue 4 of its repository",
    {
        "psnr": _PSNR,
        "ssim": _SSIM,
        "lpips": _LPIPS_VGG,
        "ids": _DEG,
        "lmd": _LMD_98,
        "fid": _FID_GT,
    },
    "its PSNR and SSIM are those of pyiqa, whose colours the issue does not name; the angle is VQFR's",
)

NTIRE2025 = Protocol(
    "ntire2025",
    "NTIRE 2025 challenge on real-world face restoration (arXiv 2504.14600): its evaluation script",
    {
        "identity_similarity": MetricProtocol(
            "adaface_ir50_ms1mv2", "aligned to 112 by one set of landmarks", "BGR, -1 to 1", "lq", "cosine", "higher"
        ),
        "fid": _FID_FFHQ,
        "niqe": _NIQE,
        "clipiqa": _learned("clipiqa"),
        "maniqa": _learned("maniqa"),
        "musiq": _learned("musiq-koniq"),
        "q_align": _learned("q-align"),
    },
)

PROTOCOLS: Mapping[str, Protocol] = {p.name: p for p in (DEFAULT, VQFR, DIFFACE, NTIRE2025)}


def is_lower_better(metric: str) -> bool:
    """Whether a lower value of this metric, by its name in a run's statistics, is better."""
    known = DEFAULT.metrics.get(metric)
    return metric.startswith(("fid", "fd_")) if known is None else known.better == "lower"


def protocol(name: str) -> Protocol:
    """The protocol of that name; UsageError when there is none."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, list(PROTOCOLS))
    return PROTOCOLS[name]
