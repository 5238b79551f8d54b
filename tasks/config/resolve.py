"""What a run comes to: every name decided, networks with their checksums."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from bfr_models.errors import UsageError
from bfr_models.faces.detectors import DetectorChoice, choose_detector
from bfr_models.faces.recognisers import WHY_NONE, choose_recogniser
from bfr_models.metrics.identity_gates import IdentityGate, gate_of
from bfr_models.metrics.measures import Measures, choose_extra, choose_measures
from bfr_models.registry import ResolvedMethod
from bfr_models.types import NetworkChoice
from tasks.config.restore import RestoreRun
from tasks.storage.redaction import redact


@dataclass(frozen=True)
class PhotoSettings:
    """How faces are found in photos, and which of them are restored."""

    detector: DetectorChoice
    min_face: int
    max_faces: int
    reject_no_face: bool

    @property
    def description(self) -> dict[str, Any]:
        """What changes the output, as plain data: where the weights are does not."""
        described = asdict(self)
        del described["detector"]["weights"]
        return described


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold pictures."""

    image: str
    gt: str | None = None
    mask: str | None = None


def settings_of(run: RestoreRun) -> dict[str, Any]:
    """What decides the run's output, as `plan/spec.json` holds it. UsageError if it cannot be done."""
    resolved = run.resolve()
    semantic = semantic_settings(
        run, resolved, run_recogniser(run), run_gate(run), photo_settings(run), run_measures(run)
    )
    settings: dict[str, Any] = json.loads(json.dumps({"source": redact(run.source.rstrip("/")), **semantic}))
    return settings


def semantic_settings(
    run: RestoreRun,
    resolved: ResolvedMethod,
    recogniser: NetworkChoice | None,
    gate: IdentityGate | None,
    photos: PhotoSettings | None,
    measures: Measures,
) -> dict[str, Any]:
    """All that decides the bytes of a run's output: two runs that differ here must not share a destination."""
    return {
        "method": resolved.description,
        "fingerprint": resolved.fingerprint,
        "recogniser": None if recogniser is None else asdict(recogniser),
        "min_identity": None if gate is None else gate.threshold,
        "photos": None if photos is None else photos.description,
        "measures": asdict(measures),
        "fid_reference": None if run.fid_reference is None else redact(run.fid_reference),
        **run.model_dump(
            include={
                "task",
                "input",
                "seed",
                "column",
                "gt_column",
                "mask_column",
                "format",
                "quality",
                "keep_input",
                "shard_rows",
            }
        ),
    }


def run_recogniser(run: RestoreRun) -> NetworkChoice | None:
    """What scores a run; None where nothing does."""
    return choose_recogniser(run.recogniser)


def run_gate(run: RestoreRun) -> IdentityGate | None:
    """The similarity below which a run's faces keep their input pixels; None where all are taken. UsageError when
    nothing measures it, or another recogniser than the profile's."""
    if run.min_identity is None:
        return None
    choice = run_recogniser(run)
    if choice is None:
        raise UsageError(f"expected a face recogniser for min_identity {run.min_identity}, found none; {WHY_NONE}")
    return gate_of(run.min_identity, choice.name)


def photo_settings(run: RestoreRun) -> PhotoSettings | None:
    """How a run finds faces in photos; None where each picture is one face."""
    if run.input == "faces":
        return None
    detector = choose_detector(run.detector, run.detector_weights)
    return PhotoSettings(detector, run.min_face, run.max_faces, run.reject_no_face)


def run_measures(run: RestoreRun) -> Measures:
    """What a run measures; UsageError, which says what to do, when a network that was asked for is not here."""
    extra = choose_extra(run.metrics, run.protocol)
    measures = choose_measures(run.lpips, run.fid, has_gt=run.gt_column is not None, extra=extra)
    has_reference = measures.distances or run.fid_reference is not None
    return replace(measures, distances=has_reference, keep_embeddings=run.keep_embeddings)
