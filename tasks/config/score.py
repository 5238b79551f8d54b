"""What a scoring is asked to do."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.config.fields import Url


class ScoreRun(BaseModel):
    """One `bfr score`: a dataset that holds restored faces, and what they are compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url
    destination: Url
    column: str = Field("restored", description="the restored faces")
    lq_column: str | None = Field(None, description="what was restored, for the identity similarity to it")
    gt_column: str | None = Field(None, description="the ground truth, for all other scores")
    recogniser: str = "auto"
    lpips: str = "auto"
    metrics: tuple[str, ...] = ()
    protocol: str = "default"
    overwrite: bool = Field(False, description="replace another dataset at the destination")
