"""The settings of an assessment."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.config.care import MAX_HARM
from tasks.config.fields import Url
from tasks.config.restore import RestoreRun
from tasks.storage.redaction import redact

_SHARED = ("source", "destination", "method", "preset", "input", "column", "seed", "shard_rows",
           "detector", "detector_weights", "min_face", "max_faces")  # fmt: skip


class AssessRun(BaseModel):
    """One `bfr assess`: looks at every picture of a dataset, and restores none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="dataset, as for `bfr restore`")
    destination: Url = Field(description="folder of the assessment; running again resumes")
    method: str = Field("difface", description="the restoration method to assess for")
    preset: str | None = Field(None, description="its preset; defaults to the method's first")
    input: Literal["auto", "faces", "photos"] = Field("auto", description="as for `bfr restore`")
    column: str = Field("image", description="column with the images")
    detector: Literal["dlib", "retinaface"] = Field("dlib", description="network that finds the faces in photos")
    detector_weights: str | None = Field(None, description="file of the detector's weights")
    min_face: int = Field(32, ge=1, description="side of the smallest face crop to restore, in the photo's pixels")
    max_faces: int = Field(500, ge=1, description="most faces to restore in one photo")
    max_harm: float = Field(MAX_HARM, ge=0, le=1, description="share of all faces that may come out worse")
    min_gain: float = Field(0.02, ge=0, le=1, description="predicted gain from which a face is restored")
    limit: int | None = Field(None, ge=1, description="look at the first N rows only")
    sample: int | None = Field(None, ge=1, description="look at N rows only, drawn at random")
    seed: int = Field(0, description="seed of the sample")
    shard_rows: int = Field(32, ge=1, description="rows read at a time, in whole row groups")
    threads: int | None = Field(None, ge=1, description="shards at a time; defaults to one per processor")

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if self.limit is not None and self.sample is not None:
            raise ValueError("expected --limit or --sample, found both")
        if f"{self.destination}/".startswith(f"{self.source.rstrip('/')}/"):
            raise ValueError(f"expected a destination outside the source, found {redact(self.destination)}")
        return self

    @property
    def restoration(self) -> RestoreRun:
        """The run that this assesses for, without what costs time and changes no decision."""
        shared = self.model_dump(include=set(_SHARED))
        return RestoreRun(**shared, recogniser="none", lpips="none", fid="none", engine="local")

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings as JSON, without what may be secret in their URLs."""
        places = {"source": redact(self.source), "destination": redact(self.destination)}
        return self.model_dump(mode="json") | places
