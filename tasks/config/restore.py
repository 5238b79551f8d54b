"""The settings of a run, which the command line, YAML files and Prefect's forms fill in."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from bfr_models.errors import RejectionCode
from bfr_models.methods.effort import Effort
from bfr_models.methods.preset import Task
from tasks.config.fields import BatchSizeAsked, MinIdentity, UpscaleAsked, Url
from tasks.storage.redaction import redact


class RestoreRun(BaseModel):
    """One `bfr restore`: restores every row of a dataset with one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Url = Field(description="dataset: a folder, a glob or one Parquet file; a local path or any fsspec URL")
    destination: Url = Field(description="folder of the run; running again resumes")
    method: str = Field(description="restoration method; `bfr methods` lists them")
    preset: str | None = Field(None, description="the method's size and weights; defaults to its first preset")
    options: dict[str, bool | str | int | float] = Field(default_factory=dict, description="the method's own options")
    fidelity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="how close to what a face shows, from 0 to 1, instead of the method's options; 0.5 is the preset",
    )
    effort: Effort = Field(
        "standard", description="draft, standard or best: how many network calls a face gets; standard is the preset"
    )
    task: Task = Field("restore", description="restore, or inpaint: fill only the holes marked in mask_column")
    input: Literal["auto", "faces", "photos"] = Field(
        "auto", description="aligned faces, or photos with any number of faces; auto: by a look at the first rows"
    )
    column: str = Field("image", description="column with the images")
    gt_column: str | None = Field(None, description="column with the ground truth, for PSNR, SSIM and identity")
    mask_column: str | None = Field(
        None, description="column with the mask of each image: white where it is damaged, black where it is intact"
    )
    seed: int = Field(0, description="each face gets its own seed, derived from this one and the row's id")
    format: Literal["png", "webp", "jpeg"] = Field("png", description="format of the restored images")
    quality: int = Field(95, ge=1, le=100, description="quality of webp and jpeg")
    keep_input: bool = Field(False, description="copy the input image into the output")
    recogniser: Literal["auto", "arcface", "adaface", "dlib", "none"] = Field(
        "auto",
        description="network that compares identities; auto: arcface if its weights are here, else dlib, else none",
    )
    min_identity: MinIdentity | None = Field(
        None,
        description="identity similarity to the input below which a face keeps its original pixels: a number from -1 "
        "to 1, or a profile (its threshold is for AdaFace)",
    )
    max_harm: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of all faces that may come out worse than they went in; "
        "defaults to 0.02 where a judge knows the method's networks; 1: every face is replaced, unjudged",
    )
    min_gain: float = Field(
        0.02,
        ge=0,
        le=1,
        description="share of a face's perceptual distance to a clean one that restoring must be expected to take away",
    )
    size: Literal["input", "network"] | None = Field(
        None, description="side of a restored face that is an image by itself: the input's (default) or the network's"
    )
    resize_back: bool = Field(
        False,
        description="write aligned faces as DifFace's authors do: every face as the network gives it, unjudged and "
        "without grain, at the size of its input",
    )
    grain: Literal["keep", "clean"] | None = Field(
        None,
        description="keep: a restored face gets the grain of its photo; clean: it stays smooth; defaults to keep where "
        "faces are judged",
    )
    detector: Literal["dlib", "retinaface"] = Field("dlib", description="network that finds the faces in photos")
    detector_weights: Url | None = Field(
        None, description="file of the detector's weights; defaults to the fetched one"
    )
    min_face: int = Field(32, ge=1, description="side of the smallest face crop to restore, in the photo's pixels")
    max_faces: int = Field(
        500, ge=1, description="most faces to restore in one photo; the others are recorded as skipped"
    )
    upscale: UpscaleAsked = Field(
        1,
        description="how much larger to write photos: 1, 2, 4, or auto: as large as their faces have detail; less "
        "where the image would become too large to write",
    )
    background: Literal["lanczos", "realesrgan"] = Field(
        "lanczos", description="what enlarges the photo around the faces: a filter, or Real-ESRGAN's network"
    )
    select: Url | None = Field(
        None, description="restore only these rows: an assessment of `bfr assess`, or Parquet with a column id"
    )
    select_where: str | None = Field(
        None, description="SQL condition on the columns of `select`; by default what a restore would change"
    )
    reject_no_face: bool = Field(False, description="reject photos without a face, instead of passing them through")
    lpips: str = Field(
        "auto", description="backbone of LPIPS: vgg, alex, squeeze or none; auto: the first with weights here"
    )
    metrics: tuple[str, ...] = Field((), description="further metrics: ms_ssim, niqe, lmd")
    protocol: str = Field(
        "default", description="protocol of the figures in run.json: default, vqfr, difface or ntire2025"
    )
    fid: str = Field("auto", description="inception or none; auto: inception if its weights are here")
    fid_reference: Url | None = Field(
        None, description="reference set of the Fréchet distances: a dataset, a run or .npz statistics; defaults to gt"
    )
    keep_embeddings: bool = Field(False, description="store the recogniser's embeddings, which are biometric data")
    max_rejects: float = Field(0.05, ge=0, le=1, description="share of rejected rows above which the exit code is 3")
    retry_rejected: tuple[RejectionCode, ...] = Field((), description="rejection codes of rows to try again")
    retire_deleted: bool = Field(
        False, description="drop the rows of files that are gone from the source; by default they stay"
    )
    leave_out_damaged: bool = Field(
        False, description="go on without unreadable source files, and name them; by default they end the run"
    )
    deep: bool = Field(
        False, description="check the sha256 of what is done before going on; by default presence and size"
    )
    accept_code_change: bool = Field(
        False, description="go on with a run that other code began; by default it is refused"
    )
    shard_timeout: float | None = Field(
        None, gt=0, description="seconds after which a shard counts as hung; defaults to 20 x the longest so far"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what the workers run on; auto: GPUs if there are some when the run begins"
    )
    actors: int | None = Field(None, ge=1, description="exactly this many workers; by default as many as fit")
    min_actors: int | None = Field(
        None, ge=1, description="workers to wait for even while there is no room for them; defaults to 1"
    )
    max_actors: int | None = Field(None, ge=1, description="workers at most; by default as many as fit")
    gpus_per_actor: float | None = Field(
        None, ge=0, description="GPUs per worker; defaults to 1 if the cluster has GPUs"
    )
    cpus_per_actor: float | None = Field(
        None, gt=0, description="CPUs per worker; without GPUs one worker per node by default, and on all its CPUs"
    )
    start_timeout: float = Field(
        600.0, gt=0, description="seconds until a first worker must be ready: placed in the cluster, the method loaded"
    )
    batch_size: BatchSizeAsked | None = Field(
        None,
        description="faces per call of the networks; defaults to 8, on a GPU to 16; auto finds the fastest that fits",
    )
    shard_rows: int = Field(32, ge=1, description="rows per shard, in whole row groups")
    trace: str | None = Field(
        None, description="file for a trace of the workers' stages, as Chrome and Perfetto read it"
    )
    allow_open_cluster: bool = Field(
        False, description="do not warn of a Ray cluster that runs anyone's code, because it asks for no token"
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="serve the run's figures for Prometheus on this port; off by default"
    )
    metrics_address: str = Field("127.0.0.1", description="address that the figures are served on")
    engine: Literal["ray", "local"] = Field("ray", description="ray, or local: threads of this process")

    @model_validator(mode="before")
    @classmethod
    def _aligned(cls, given: Any) -> Any:
        """Ground truth and masks are those of aligned faces."""
        if (
            isinstance(given, dict)
            and given.get("input", "auto") == "auto"
            and (given.get("gt_column") or given.get("mask_column"))
        ):
            return {**given, "input": "faces"}
        return given

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if (self.task == "inpaint") != (self.mask_column is not None):
            raise ValueError("expected --mask-column with --task inpaint, and only with it")
        if self.task == "inpaint" and self.input == "photos":
            raise ValueError(
                "expected --input faces with --task inpaint, found photos: it fills holes in aligned faces only"
            )
        if self.input == "photos" and self.gt_column is not None:
            raise ValueError(
                "expected no --gt-column with --input photos, found one: ground truth is compared face by face"
            )
        if why := self.why_not_upscaled() or self.why_not_resized_back():
            raise ValueError(why)
        if self.background != "lanczos" and self.upscale == 1:
            raise ValueError(f"expected --upscale 2, 4 or auto with --background {self.background}, found 1")
        if self.select_where is not None and self.select is None:
            raise ValueError("expected --select with --select-where, found none: name the assessment to select from")
        if self.detector_weights is not None and self.detector == "dlib":
            raise ValueError("expected no --detector-weights with --detector dlib, found some: it brings its own")
        if why := self.why_no_such_workers():
            raise ValueError(why)
        if self.engine == "local" and self.shard_timeout is not None:
            raise ValueError(
                "expected no --shard-timeout with --engine local, found one: threads that hang cannot be killed; use "
                "--engine ray"
            )
        return self

    def why_not_upscaled(self) -> str | None:
        """What is wrong with writing aligned faces larger; None if nobody asked for that."""
        if self.upscale == 1 or self.input != "faces":
            return None
        return (
            f"expected --input photos with --upscale {self.upscale}, found {self.input}: aligned faces are not "
            "enlarged; a preset with a larger size, with --size network, gives larger ones"
        )

    def why_not_resized_back(self) -> str | None:
        """What is in the way of faces as the authors write them; None if nothing is, or nobody asked for that."""
        if not self.resize_back:
            return None
        if self.input == "photos":
            return "expected --input faces with --resize-back, found photos: faces are pasted into them at their scale"
        others = {
            "--task inpaint": self.task == "inpaint",
            "--size network": self.size == "network",
            "--grain keep": self.grain == "keep",
            f"--max-harm {self.max_harm or 0:g}": self.max_harm not in (None, 1),
        }
        if found := [flag for flag, is_given in others.items() if is_given]:
            return (
                f"expected no {found[0]} with --resize-back, found both: it writes every face as the network gives it, "
                "at the size of its input; leave one of them out"
            )
        return None

    def why_no_such_workers(self) -> str | None:
        """What is wrong with the workers that were asked for; None if nothing is."""
        if self.actors is not None and (self.min_actors or self.max_actors):
            return "expected --actors, or --min-actors and --max-actors, found both: --actors is both at once"
        if (self.min_actors or 1) > (self.max_actors or self.min_actors or 1):
            return f"expected --min-actors up to --max-actors {self.max_actors}, found {self.min_actors}"
        if self.gpus_per_actor is not None and self.device == ("cuda" if self.gpus_per_actor == 0 else "cpu"):
            return f"expected --gpus-per-actor that fits --device {self.device}, found {self.gpus_per_actor:g}"
        return None

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings as JSON, without what may be secret in their URLs."""
        places = {"source": redact(self.source), "destination": redact(self.destination)}
        places |= {"select": redact(self.select)} if self.select is not None else {}
        return self.model_dump(mode="json") | places

    @property
    def title(self) -> str:
        """The run's name in Prefect."""
        return f"{self.method} of {redact(self.source)}"
