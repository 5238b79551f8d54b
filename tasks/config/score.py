"""The settings of a scoring."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.config.fields import Url


class ScoreRun(BaseModel):
    """One `bfr score`: scores the restored faces of any dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="dataset with the restored faces")
    destination: Url = Field(description="folder of the scores")
    column: str = Field("restored", description="column with the restored faces")
    lq_column: str | None = Field(
        None, description="column with the degraded faces, for the identity similarity to them"
    )
    gt_column: str | None = Field(None, description="column with the ground truth, for all other scores")
    recogniser: str = Field("auto", description="network that compares identities, as for `bfr restore`")
    lpips: str = Field("auto", description="backbone of LPIPS: vgg, alex, squeeze, none or auto")
    metrics: tuple[str, ...] = Field((), description="further metrics: ms_ssim, niqe, lmd")
    protocol: str = Field("default", description="protocol of the reported figures")
    overwrite: bool = Field(False, description="replace another dataset at the destination")
