"""What a comparison of methods is asked to do, and its degraded faces."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.config.degrade import DegradeRun
from tasks.config.fields import Url
from tasks.config.restore import RestoreRun

_MEASURED = {"recogniser", "lpips", "metrics", "protocol", "fid_reference"}
_EVERY_RUNS = {"preset", "seed", "actors", "shard_rows", "allow_open_cluster", "engine"} | _MEASURED


class EvaluateRun(BaseModel):
    """One `bfr evaluate`: several methods on the same rows, with the same seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url
    destination: Url
    methods: tuple[str, ...] = Field(min_length=1, description="the first is what the others are compared with")
    preset: str | None = Field(None, description="of every method; each method's first by default")
    degrade: str | None = Field(None, description="degrade clean faces with this preset first")
    size: int | None = Field(None, ge=16, le=2048, description="resize to this side before degrading")
    column: str = "image"
    gt_column: str | None = None
    recogniser: str = "auto"
    lpips: str = "auto"
    metrics: tuple[str, ...] = ()
    protocol: str = "default"
    fid_reference: str | None = None
    seed: int = 0
    actors: int | None = Field(None, ge=1)
    shard_rows: int = Field(32, ge=1)
    overwrite: bool = Field(False, description="replace other degraded faces at the destination")
    allow_open_cluster: bool = False
    engine: Literal["ray", "local"] = "ray"

    @field_validator("methods")
    @classmethod
    def _are_different(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError("expected each method once")
        return methods

    @property
    def pairs(self) -> str:
        """Where the degraded faces go."""
        return f"{self.destination}/lq"

    def degradation(self) -> DegradeRun | None:
        """How the clean faces become pairs; None where the source has its own."""
        if self.degrade is None:
            return None
        settings = self.model_dump(include={"source", "size", "seed", "column", "overwrite"})
        return DegradeRun(**settings, destination=self.pairs, preset=self.degrade)

    def restorations(self) -> list[RestoreRun]:
        """One run per method, into folders of their names."""
        common = self.model_dump(include=_EVERY_RUNS)
        if self.degrade is None:
            common |= {"source": self.source, "column": self.column, "gt_column": self.gt_column}
        else:
            common |= {"source": self.pairs, "gt_column": "gt"}
        return [RestoreRun(**common, destination=f"{self.destination}/{name}", method=name) for name in self.methods]
