"""What a reprocessing is asked to do."""

from __future__ import annotations

from pydantic import Field

from tasks.config.restore import RestoreRun


class ReprocessRun(RestoreRun):
    """One `bfr reprocess`: a dataset restored again as it changes, in generations below `destination`."""

    retire_deleted: bool = Field(True, description="rows of files that the source no longer holds leave the result")
    leave_out_damaged: bool = Field(
        True, description="go on without source files that do not read, name them, and try them again the next time"
    )
    max_identity_drop: float = Field(
        0.01, ge=0, le=2, description="mean identity that a new generation may lose and still become current"
    )
    max_fid_rise: float = Field(
        0.1, ge=0, description="share by which its Fréchet distance may rise: 0.1 is ten per cent"
    )
    keep_generations: int = Field(
        2, ge=1, description="finished generations that stay, the current one among them; one held back is extra"
    )
    gpu_pool: str | None = Field(None, description="Prefect's concurrency limit to hold while faces are restored")
    credentials: str | None = Field(None, description="Prefect block with the object store's keys")

    def generation(self, address: str) -> RestoreRun:
        """The run of the generation that lies there."""
        settings = self.model_dump(include=set(RestoreRun.model_fields))
        return RestoreRun(**settings | {"destination": address})
