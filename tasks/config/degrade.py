"""What a degradation is asked to do."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.config.fields import Url


class DegradeRun(BaseModel):
    """One `bfr degrade`: a dataset of clean faces to one of (lq, gt) pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url
    destination: Url
    preset: str = "gfpgan"
    size: int | None = Field(None, ge=16, le=2048, description="resize to this side first")
    seed: int = 0
    column: str = "image"
    rows_per_file: int = Field(5000, ge=1)
    row_group_rows: int = Field(32, ge=1)
    overwrite: bool = Field(False, description="replace another dataset at the destination")
