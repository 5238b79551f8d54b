"""What a run is asked to do: the models that the command line, YAML files and Prefect's forms fill in."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from bfr_models.methods.preset import Task
from tasks.config.fields import BatchSizeAsked, MinIdentity, StoredRedacted, Url
from tasks.storage.redaction import redact


class RestoreRun(BaseModel):
    """One `bfr restore`: every row of a dataset through one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="dataset: a folder, a glob or one Parquet file, local or any fsspec URL")
    destination: Url = Field(description="folder of the run; running again resumes")
    method: str
    preset: str | None = Field(None, description="named size and weights of the method; its first by default")
    options: dict[str, bool | str | int | float] = Field(default_factory=dict, description="the method's own options")
    task: Task = Field("restore", description="or inpaint: fill the holes that mask_column names, keep all else")
    input: Literal["faces", "photos"] = Field("faces", description="aligned faces, or photos with any number of them")
    column: str = Field("image", description="the picture column")
    gt_column: str | None = Field(None, description="column with the ground truth, for PSNR, SSIM and identity")
    mask_column: str | None = Field(
        None, description="column with the mask of each picture: white where it is scratched, black where it is known"
    )
    seed: int = 0
    format: Literal["png", "webp", "jpeg"] = "png"
    quality: int = Field(95, ge=1, le=100, description="of webp and jpeg")
    keep_input: bool = Field(False, description="carry the input picture into the output")
    recogniser: Literal["auto", "arcface", "adaface", "dlib", "none"] = Field(
        "auto", description="what compares faces; auto is arcface where its weights are here, else dlib, else none"
    )
    min_identity: MinIdentity | None = Field(
        None,
        description="similarity to the input below which a face keeps its pixels: a number from -1 to 1, or a profile, "
        "whose threshold is AdaFace's",
    )
    detector: Literal["dlib", "retinaface"] = Field("dlib", description="what finds the faces in photos")
    detector_weights: str | None = Field(
        None, description="file of the detector's weights; the fetched ones by default"
    )
    min_face: int = Field(32, ge=1, description="side of the smallest face square to restore, in the photo's pixels")
    max_faces: int = Field(500, ge=1, description="most faces to restore in one photo; the others are named as skipped")
    reject_no_face: bool = Field(False, description="reject photos without a face, instead of passing them through")
    lpips: str = Field("auto", description="vgg, alex, squeeze or none; by default the first whose weights are here")
    metrics: tuple[str, ...] = Field((), description="measured as well: ms_ssim, niqe, lmd")
    protocol: str = Field("default", description="whose figures run.json holds: default, vqfr, difface or ntire2025")
    fid: str = Field("auto", description="inception or none; by default where its weights are here")
    fid_reference: Annotated[str, StoredRedacted] | None = Field(
        None, description="what restored faces are compared with: a dataset, a run, or .npz statistics; gt by default"
    )
    keep_embeddings: bool = Field(False, description="store the recogniser's vectors, which are biometric data")
    max_rejects: float = Field(0.05, ge=0, le=1, description="share of rejected rows above which the exit code is 3")
    retry_rejected: tuple[str, ...] = Field((), description="codes: rows that were rejected so are tried again")
    retire_deleted: bool = Field(
        False, description="rows of files that the source no longer holds leave the run; by default they stay"
    )
    leave_out_damaged: bool = Field(
        False, description="go on without source files that do not read, and name them; by default they end the run"
    )
    shard_timeout: float | None = Field(
        None, gt=0, description="seconds until a worker is taken to hang; 20 x the longest shard so far by default"
    )
    start_timeout: float = Field(
        600.0, gt=0, description="seconds until a first worker must be ready: placed in the cluster, the method loaded"
    )
    actors: int | None = Field(None, ge=1, description="workers; one per GPU, or one, by default")
    gpus_per_actor: float | None = Field(None, ge=0, description="1 where the cluster has GPUs by default")
    batch_size: BatchSizeAsked | None = Field(
        None,
        description="faces per call of the networks: 8, on a GPU 16, by default; auto finds what is fastest and fits",
    )
    shard_rows: int = Field(32, ge=1, description="rows per shard, rounded up to whole row groups")
    engine: Literal["ray", "local"] = Field("ray", description="'local' runs in threads of this process")

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if (self.task == "inpaint") != (self.mask_column is not None):
            raise ValueError("expected a mask_column with task inpaint, and with it alone")
        if self.task == "inpaint" and self.input == "photos":
            raise ValueError("expected input faces with task inpaint: holes are filled in aligned faces")
        if self.input == "photos" and self.gt_column is not None:
            raise ValueError("expected no gt_column with input photos: ground truth is compared face by face")
        if self.detector_weights is not None and self.detector == "dlib":
            raise ValueError("expected no detector_weights with detector dlib, which brings its own")
        if self.engine == "local" and self.shard_timeout is not None:
            raise ValueError(
                "expected no shard_timeout with engine local: threads that hang cannot be killed; use engine ray"
            )
        return self

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.method} of {redact(self.source)}"
