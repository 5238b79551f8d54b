"""The settings of a curation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bfr_models.errors import unknown
from tasks.config.fields import SimilarityAsked, Url
from tasks.storage.redaction import redact

AUTO: Literal["auto"] = "auto"
LOOKS = ("embedding", "inception", "perceptual")


class CurateRun(BaseModel):
    """One `bfr curate`. Its steps run in this order: profile, where, dedupe, stratify, top_k."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="a finished run, or generations (the current one is taken)")
    destination: Url = Field(description="folder of the curated dataset")
    where: str | None = Field(None, description="SQL condition on the run's columns")
    profile: str | None = Field(None, description="ready-made quality gates: archive or training-set")
    dedupe: SimilarityAsked | None = Field(
        None, description="cosine similarity from which two rows are near-duplicates; auto takes the features' mark"
    )
    dedupe_by: str = Field(
        "auto", description="embedding, inception or perceptual; auto takes the first that the run has"
    )
    by: str = Field("identity_similarity", description="column that ranks the rows; the highest value is best")
    ascending: bool = Field(False, description="the lowest value of `by` is best")
    top_k: int | None = Field(None, ge=1, description="keep the N best rows")
    stratify: str | None = Field(
        None, description="column to balance: keep the same number of rows per value; drop rows without a value"
    )
    per_stratum: int | None = Field(
        None, ge=1, description="rows per value of the `stratify` column; defaults to those of its rarest value"
    )
    seed: int = Field(0, description="seed of the stratified sample")
    format: Literal["parquet", "webdataset", "folder"] = Field("parquet", description="format of the curated dataset")

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if self.per_stratum is not None and self.stratify is None:
            raise ValueError("expected --stratify with --per-stratum, found none: name the column to balance")
        if self.dedupe_by not in ("auto", *LOOKS):
            raise ValueError(str(unknown("--dedupe-by", self.dedupe_by, ("auto", *LOOKS))))
        if f"{self.destination}/".startswith(f"{self.source.rstrip('/')}/"):
            raise ValueError(f"expected DST outside the run, found {redact(self.destination)}")
        return self
