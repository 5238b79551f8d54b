"""The settings of a reprocessing."""

from __future__ import annotations

from pydantic import Field

from tasks.config.restore import RestoreRun


class ReprocessRun(RestoreRun):
    """One `bfr reprocess`: restores a dataset again as it changes, in generations below `destination`."""

    retire_deleted: bool = Field(True, description="drop the rows of files that are gone from the source")
    leave_out_damaged: bool = Field(
        True, description="go on without unreadable source files: name them, and try them again the next time"
    )
    accept_code_change: bool = Field(
        True, description="go on after an upgrade, as a schedule must; each commit names the code that made its rows"
    )
    max_identity_drop: float = Field(
        0.01, ge=0, le=2, description="how much mean identity a new generation may lose and still become current"
    )
    max_fid_rise: float = Field(0.1, ge=0, description="by what share its Fréchet distances may rise: 0.1 is 10 %")
    keep_generations: int = Field(
        2, ge=1, description="finished generations to keep, including the current one; one held back comes on top"
    )
    gpu_pool: str | None = Field(None, description="Prefect concurrency limit to hold while faces are being restored")
    credentials: str | None = Field(None, description="Prefect block with the credentials of the object store")

    def generation(self, address: str) -> RestoreRun:
        """The run of the generation at this address."""
        settings = self.model_dump(include=set(RestoreRun.model_fields))
        return RestoreRun(**settings | {"destination": address})
