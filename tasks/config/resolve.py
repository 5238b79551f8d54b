"""A run with its names resolved: every network decided, each with its checksum.

Resolved once, before the first row: weights may be fetched during a run, and two phases that each looked for themselves
could then use different networks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from bfr_models.errors import UsageError
from bfr_models.faces.detectors import DetectorChoice, choose_detector
from bfr_models.faces.recognisers import WHY_NONE, choose_recogniser
from bfr_models.metrics.identity_gates import IdentityGate, gate_of
from bfr_models.metrics.measures import Measures, choose_extra, choose_measures
from bfr_models.registry import ResolvedMethod, resolve_method
from bfr_models.types import NetworkChoice
from bfr_models.upscalers.choice import BackgroundChoice, choose_background
from tasks.config.care import Care, choose_care
from tasks.config.restore import RestoreRun
from tasks.storage.redaction import redact

_SEMANTIC = {
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
"""Fields that decide the output and need no resolving."""


_NOT_ENLARGED = (("upscale", 1), ("background", None))


@dataclass(frozen=True)
class PhotoSettings:
    """How faces are found in photos, and which of them are restored."""

    detector: DetectorChoice
    min_face: int
    max_faces: int
    reject_no_face: bool
    upscale: int | Literal["auto"] = 1
    background: BackgroundChoice | None = None  # None: Lanczos

    @property
    def description(self) -> dict[str, Any]:
        """What changes the output, as plain data. The path of the weights does not; their checksum does. Runs that
        enlarge nothing say nothing of it, as those from before it could be asked for."""
        described = asdict(self)
        del described["detector"]["weights"]
        return {name: value for name, value in described.items() if (name, value) not in _NOT_ENLARGED}


@dataclass(frozen=True)
class ResolvedRun:
    """A run with every name resolved. Made once by `resolve_run` and passed to every phase."""

    run: RestoreRun
    method: ResolvedMethod
    recogniser: NetworkChoice | None  # None: nothing scores identity
    gate: IdentityGate | None  # None: every restored face is kept, whatever its similarity
    photos: PhotoSettings | None  # None: each image is one face
    measures: Measures
    care: Care
    selection: Mapping[str, Any] | None = None  # what the run is limited to; None: all rows of the source
    begun_at: str | None = None  # the address that its source had at first, if that is its own: a run may be copied

    def decided(self, run: RestoreRun) -> ResolvedRun:
        """The same names for the run once more of it is decided: where its rows are, whether they are faces or photos,
        and what its destination was begun with."""
        _require_aligned(run, self.method)
        photos = _photos(run) if self.photos is None else self.photos
        return replace(self, run=run, photos=photos, care=choose_care(run, self.method))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the run's output, as stored in `plan/spec.json`: runs that differ here share no destination."""
        run = self.run
        assert run.input != "auto", "a run is prepared before its settings are stored"
        settings = {
            "source": self.begun_at or redact(run.source.rstrip("/")),
            "method": self.method.description,
            "fingerprint": self.method.fingerprint,
            "recogniser": None if self.recogniser is None else asdict(self.recogniser),
            "min_identity": None if self.gate is None else self.gate.threshold,
            "photos": None if self.photos is None else self.photos.description,
            "measures": asdict(self.measures),
            "selection": None if self.selection is None else self.selection["sha256"],
            "fid_reference": None if run.fid_reference is None else redact(run.fid_reference),
            **self.care.description,
            **run.model_dump(include=_SEMANTIC),
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))  # as it is read back from JSON, where tuples are lists
        return plain


def resolve_run(run: RestoreRun) -> ResolvedRun:
    """Resolves every name of a run, without loading a network. UsageError, which says what to do, for an unknown name
    and for a network that was requested but has no weights here. The detector is resolved once the input is decided
    (`tasks.runs.prepare`)."""
    method = resolve_method(run.method, run.preset, run.options, run.task, run.fidelity, run.effort)
    _require_aligned(run, method)
    recogniser = choose_recogniser(run.recogniser)
    gate = _gate(run, recogniser)
    return ResolvedRun(run, method, recogniser, gate, _photos(run), _measures(run), choose_care(run, method))


def _require_aligned(run: RestoreRun, method: ResolvedMethod) -> None:
    if method.draws_one_stream and run.input == "photos":
        raise UsageError(
            "expected --input faces with --noise authors, found photos: the stream goes from face to face in the order "
            "in which the authors' own detector finds them; leave --noise out, or give aligned faces"
        )


def _gate(run: RestoreRun, recogniser: NetworkChoice | None) -> IdentityGate | None:
    """UsageError if no recogniser measures the similarity, or one that the profile's threshold is not made for."""
    if run.min_identity is None:
        return None
    if recogniser is None:
        raise UsageError(f"expected a face recogniser for --min-identity {run.min_identity}, found none; {WHY_NONE}")
    return gate_of(run.min_identity, recogniser.name)


def _photos(run: RestoreRun) -> PhotoSettings | None:
    # The input may have been decided since these were asked for.
    if why := run.why_not_upscaled() or run.why_not_resized_back():
        raise UsageError(why)
    if run.input != "photos":
        return None
    detector = choose_detector(run.detector, run.detector_weights)
    background = choose_background(run.background, run.upscale)
    return PhotoSettings(detector, run.min_face, run.max_faces, run.reject_no_face, run.upscale, background)


def _measures(run: RestoreRun) -> Measures:
    extra = choose_extra(run.metrics, run.protocol)
    measures = choose_measures(run.lpips, run.fid, has_gt=run.gt_column is not None, extra=extra)
    has_reference = measures.distances or run.fid_reference is not None
    return replace(measures, distances=has_reference, keep_embeddings=run.keep_embeddings)
