"""The settings of a training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.config.fields import Url
from tasks.storage.redaction import redact


class TrainRun(BaseModel):
    """One `bfr train`: one network of one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(description="a method")
    component: str = Field(description="a network of the method")
    data: Url = Field(description="Parquet dataset of aligned faces")
    out: Url = Field(description="folder for weights, checkpoint, metrics and samples")
    preset: str = Field("face128", description="preset of the method, which sets the size")
    workers: int = Field(
        1, ge=1, description="processes that share each batch, on a Ray cluster where there are several"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="cuda where there is one for each worker")
    steps: int | None = Field(None, ge=1, description="training steps; the recipe's by default")
    batch_size: int | None = Field(None, ge=1, description="faces per step, of all workers together")
    learning_rate: float | None = Field(None, gt=0, description="the recipe's by default")
    accumulate: int = Field(1, ge=1, description="parts, one after the other, that a worker takes its share in")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of the network's arithmetic; auto: bf16, or fp32 on a CPU that does not multiply that"
    )
    loaders: int = Field(1, ge=0, description="processes of each worker that prepare faces")
    log_every: int = Field(20, ge=1, description="steps between two lines of progress")
    evaluate_every: int = Field(500, ge=1, description="steps between two looks at held-out faces")
    checkpoint_minutes: float = Field(10.0, ge=0, description="minutes between two checkpoints")
    perceptual: Url | None = Field(None, description="SqueezeNet 1.1's weights, for perceptual losses")
    recogniser: Url | None = Field(None, description="a MobileFace's weights, for identity losses")
    irm_low: Url | None = Field(None, description="weights of DiffBFR's first model, to train its second on top of it")
    estimator: Url | None = Field(
        None, description="weights of the regression network that DiffBFR's chains start from, or face256 draws on"
    )
    initial: Url | None = Field(None, description="weights to start from")
    seed: int = Field(0, description="of everything that is random in the training")
    resume: bool = Field(False, description="go on from the checkpoint in `out`")

    @property
    def name(self) -> str:
        """Of the weight file, without suffix."""
        return f"{self.method}-{self.preset}-{self.component}"

    @property
    def title(self) -> str:
        return f"{self.name} to {redact(self.out)}"

    @property
    def settings(self) -> dict[str, Any]:
        """Those that the loop has, too."""
        return self.model_dump(
            include={
                "steps", "batch_size", "learning_rate", "accumulate", "precision", "loaders", "log_every",
                "evaluate_every", "checkpoint_minutes", "seed",
            }
        )  # fmt: skip
