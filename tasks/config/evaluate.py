"""The settings of a comparison of methods, and the runs that it consists of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.config.degrade import DegradeRun
from tasks.config.fields import Url
from tasks.config.restore import RestoreRun

AS_PAPERS_DO = {"max_harm": 1.0, "size": "network", "grain": "clean"}
"""Settings of runs that compare methods: every face is the network's, whatever it is worth."""
_MEASURED = {"recogniser", "lpips", "metrics", "protocol", "fid_reference"}
# What differs between the runs is the method alone.
_SHARED = {"preset", "seed", "actors", "shard_rows", "allow_open_cluster", "engine"} | _MEASURED


class EvaluateRun(BaseModel):
    """One `bfr evaluate`: several methods on the same rows, with the same seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="dataset: (lq, gt) pairs, or clean faces together with `degrade`")
    destination: Url = Field(description="folder of the runs and their comparison; running again resumes")
    methods: tuple[str, ...] = Field(min_length=1, description="methods; the first is the baseline of the others")
    preset: str | None = Field(None, description="preset of every method; defaults to each method's first")
    degrade: str | None = Field(None, description="degradation to apply to clean faces first")
    size: int | None = Field(
        None, ge=16, le=2048, description="resize faces to this many pixels a side before degrading"
    )
    resize_back: bool = Field(False, description="write faces at the size of their input, as for `bfr restore`")
    column: str = Field("image", description="column with the images")
    gt_column: str | None = Field(None, description="column with the ground truth")
    recogniser: str = Field("auto", description="network that compares identities, as for `bfr restore`")
    lpips: str = Field("auto", description="backbone of LPIPS: vgg, alex, squeeze, none or auto")
    metrics: tuple[str, ...] = Field((), description="further metrics: ms_ssim, niqe, lmd")
    protocol: str = Field("default", description="protocol of the reported figures")
    fid_reference: Url | None = Field(None, description="reference set of the Fréchet distances; defaults to gt")
    seed: int = Field(0, description="seed of the degradation and of all methods")
    actors: int | None = Field(None, ge=1, description="exactly this many workers; by default as many as fit")
    shard_rows: int = Field(32, ge=1, description="rows per shard, in whole row groups")
    overwrite: bool = Field(False, description="replace other degraded faces at the destination")
    allow_open_cluster: bool = Field(
        False, description="do not warn of a Ray cluster that runs anyone's code, because it asks for no token"
    )
    engine: Literal["ray", "local"] = Field("ray", description="ray, or local: threads of this process")

    @field_validator("methods")
    @classmethod
    def _are_different(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError("expected each method once, found one twice")
        return methods

    @property
    def pairs(self) -> str:
        """The folder of the degraded faces."""
        return f"{self.destination}/lq"

    def degradation(self) -> DegradeRun | None:
        """How clean faces become pairs; None if the source has pairs already."""
        if self.degrade is None:
            return None
        settings = self.model_dump(include={"source", "size", "seed", "column", "overwrite"})
        return DegradeRun(**settings, destination=self.pairs, preset=self.degrade)

    def restorations(self) -> list[RestoreRun]:
        """One run per method, each into a folder named after it."""
        written = {"resize_back": True} if self.resize_back else AS_PAPERS_DO
        common = self.model_dump(include=_SHARED) | written | {"input": "faces"}
        if self.degrade is None:
            common |= {"source": self.source, "column": self.column, "gt_column": self.gt_column}
        else:
            common |= {"source": self.pairs, "gt_column": "gt"}
        return [RestoreRun(**common, destination=f"{self.destination}/{name}", method=name) for name in self.methods]
