"""What a curation is asked to do."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.config.fields import Url
from tasks.storage.redaction import redact

LOOKS = ("embedding", "inception", "perceptual")


class CurateRun(BaseModel):
    """One `bfr curate`. Its steps, in this order: profile, where, dedupe, stratify, top_k."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="a finished run, or generations of which the current one is taken")
    destination: Url = Field(description="where the dataset goes")
    where: str | None = Field(None, description="SQL condition over the run's columns")
    profile: str | None = Field(None, description="ready-made quality gates: archive or training-set")
    dedupe: float | None = Field(None, gt=0, le=1, description="cosine from which two rows are near-duplicates")
    dedupe_by: str = Field("auto", description="embedding, inception or perceptual; the first that the run has")
    by: str = Field("identity_similarity", description="the column that says which rows are better")
    ascending: bool = Field(False, description="the lowest value of `by` is the best")
    top_k: int | None = Field(None, ge=1, description="keep the best so many")
    stratify: str | None = Field(None, description="column: as many rows of each of its values; none without one")
    per_stratum: int | None = Field(None, ge=1, description="rows of each value; as many as the rarest has by default")
    seed: int = Field(0, description="of the sample")
    format: Literal["parquet", "webdataset", "folder"] = "parquet"

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if self.per_stratum is not None and self.stratify is None:
            raise ValueError("expected a column to stratify by with per_stratum, found none")
        if self.dedupe_by not in ("auto", *LOOKS):
            raise ValueError(f"unknown dedupe_by {self.dedupe_by!r}; known: auto, {', '.join(LOOKS)}")
        if f"{self.destination}/".startswith(f"{self.source.rstrip('/')}/"):
            raise ValueError(f"expected a destination outside of the run, found {redact(self.destination)}")
        return self
