"""The settings of a degradation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.config.fields import Url


class DegradeRun(BaseModel):
    """One `bfr degrade`: turns a dataset of clean faces into one of (lq, gt) pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="dataset of clean faces")
    destination: Url = Field(description="folder of the pairs")
    preset: str = Field("gfpgan", description="named degradation")
    size: int | None = Field(None, ge=16, le=2048, description="resize faces to this many pixels a side first")
    seed: int = Field(0, description="seed of the random degradations")
    column: str = Field("image", description="column with the images")
    rows_per_file: int = Field(5000, ge=1, description="rows per Parquet file")
    row_group_rows: int = Field(32, ge=1, description="rows per row group")
    overwrite: bool = Field(False, description="replace another dataset at the destination")
