"""CLR-Face at a size that tests train and run in seconds."""

from __future__ import annotations

from dataclasses import replace

from bfr_models.methods.clr_face_presets import CLRFaceOptions, CLRFacePreset
from bfr_models.networks.configs import LatentMaskConfig, MobileFaceConfig, SwinIRConfig, UNetConfig, VQGANConfig

SIZE = 32
TINY = CLRFacePreset(
    "tiny",
    SIZE,
    "-",
    options=CLRFaceOptions(),
    weights={name: f"clr_face-tiny-{name}" for name in ("vqgan", "score", "irn", "mask", "recogniser")},
    vqgan=VQGANConfig((16, 16), 1, codes=64, norm_groups=4, mid_attention=True, unshuffle=2),
    score=UNetConfig(8, (8, 16), head_dim=8, norm_groups=4, condition_channels=3),
    irn=SwinIRConfig(
        unshuffle=2,
        embed_dim=12,
        depths=(2,),
        num_heads=3,
        drop_path=0.0,
        img_size=16,
        num_feat=8,
    ),
    mask=LatentMaskConfig(channels=8, layers=2),
    recogniser=MobileFaceConfig(
        stem=8, stages=((8, 8, 8, 1, 4), (8, 8, 8, 1, 4), (8, 8, 8, 2, 4)), head=16, embedding=256
    ),
    max_time=0.8,
)
SEES_ESTIMATE = replace(TINY, score=replace(TINY.score, condition_channels=6))
