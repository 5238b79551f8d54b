"""Looks at the rows of a shard: their faces, what is wrong with them, and what a restore would do. Changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from bfr_models.errors import RowError
from bfr_models.faces.detectors import load_detector
from bfr_models.faces.grain import grain_of
from bfr_models.judge.judge import Judge
from bfr_models.judge.verdict import Damage
from bfr_models.pixels import Uint8Image
from bfr_models.upscalers.lanczos import enlarge
from tasks.assessment.outcomes import (
    CORRECTED,
    FAILED,
    KEPT,
    NONE_FOUND,
    NOT_JUDGED,
    OVER_THE_CAP,
    REJECTED,
    RESTORED,
    TOO_LARGE,
    TOO_SMALL,
    Limits,
    face_outcome,
    picture_outcome,
    severity,
)
from tasks.assessment.picture_hash import picture_hash
from tasks.assessment.units import Piece
from tasks.config.resolve import ResolvedRun
from tasks.runs.outcomes import why_kept
from tasks.runs.shards import Shard
from tasks.worker import framing
from tasks.worker.framing import FacesInPhotos, Framing, WholeImages
from tasks.worker.job import Order, make_job
from tasks.worker.open_rows import Face, OpenRow, open_row
from tasks.worker.read_shard import Row, ShardInput, read_shard
from tasks.worker.windows import windows

BATCH = 16  # faces that the judge sees at once
LARGER_PRESET = "ffhq512"

_SKIPPED = {framing.TOO_SMALL: TOO_SMALL, framing.OVER_THE_CAP: OVER_THE_CAP}


class Assessor:
    """Holds the detector and the judge. Several threads may call `assess` at once."""

    def __init__(self, resolved: ResolvedRun, judge: Judge | None, limits: Limits, device: str) -> None:
        self._job = make_job(resolved, device, None)
        self._judge, self._limits = judge, limits
        self._preset = resolved.method.preset.name
        photos = resolved.photos
        self.framing: Framing = (
            FacesInPhotos(limits.size, load_detector(photos.detector, device), photos, resolved.run.format, enlarge)
            if photos
            else WholeImages(limits.size)
        )
        self._accelerator = threading.Lock()
        self._large_image = threading.Lock()  # two large images decoded at once might not fit into memory

    def assess(self, piece: Piece) -> list[dict[str, Any]]:
        """A row of `table.SCHEMA` for each row of the piece, in order; what does not decode has the reason."""
        source = read_shard(Order(piece.shard), self._job)
        rows = source.rows if piece.picks is None else [source.rows[index] for index in piece.picks]
        found = {row.index: _rejected(row.error) for row in rows if row.error is not None}
        for window in windows(source, (row for row in rows if row.error is None)):
            with self._large_image if window.is_large else nullcontext():
                found |= self._assess_window(source, window.rows)
        shard = piece.shard
        return [
            {"id": row.id, **found[row.index], "source_file": shard.name, "source_row": shard.first_row + row.index}
            for row in rows
        ]

    def show(self, shard: Shard, index: int) -> tuple[Uint8Image, list[Uint8Image | None]]:
        """The picture of a row, and the crop of each of its faces, at the picture's own scale. RowError if it does not
        decode."""
        source = read_shard(Order(shard), self._job)
        row = open_row(source, source.rows[index], self._limits.size)
        self.framing.find([row])
        crops = [self.framing.native(row, face) if face.side is not None else None for face in row.faces]
        return row.image.pixels, crops

    def _assess_window(self, source: ShardInput, rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        opened = _opened(source, rows, found, self._limits.size)
        self.framing.find(opened)
        for row in opened:
            if row.error is not None:
                found[row.row.index] = _rejected(row.error)
        opened = [row for row in opened if row.error is None]
        crops = [(face, self.framing.native(row, face)) for row in opened for face in row.todo]
        seen = dict(zip((id(face) for face, _ in crops), self._judged([crop for _, crop in crops]), strict=True))
        measured = {
            id(face): self._measured(crop, face.side or len(crop), seen[id(face)]) for face, crop in crops
        }  # by identity: a face's id need not be unique
        for row in opened:
            faces = [_placed(face) | (measured.get(id(face)) or _skipped(face)) for face in row.faces]
            found[row.row.index] = _seen(row, faces)
        return found

    def _judged(self, crops: Sequence[Uint8Image]) -> list[Damage | None]:
        if self._judge is None:
            return [None] * len(crops)
        damage: list[Damage | None] = []
        with self._accelerator:
            for start in range(0, len(crops), BATCH):
                damage += self._judge.assess(crops[start : start + BATCH])
        return damage

    def _measured(self, crop: Uint8Image, side: float, damage: Damage | None) -> dict[str, Any]:
        grain = max(grain_of(crop).luma)
        if damage is None:
            reason = "no judge knows these networks: a restore replaces every face"
            return {"side": side, "grain": grain, "outcome": NOT_JUDGED, "preset": self._preset, "reason": reason}
        outcome, verdict = face_outcome(damage, side, self._limits), damage.verdict
        presets = {RESTORED: self._preset, CORRECTED: self._preset, TOO_LARGE: LARGER_PRESET}
        why = why_kept(verdict.gain, self._limits.min_gain)
        reasons = {
            KEPT: f"{why} (gain {verdict.gain:.2f}, harm {verdict.harm:.2f})",
            TOO_LARGE: f"damaged, and too large for {self._limits.size} px",
        }
        return {
            "side": side,
            "blur": damage.blur,
            "noise": damage.noise,
            "compression": damage.compression,
            "severity": severity(damage.blur, damage.noise, damage.compression),
            "grain": grain,
            "gain": verdict.gain,
            "spread": verdict.spread,
            "harm": verdict.harm,
            "outcome": outcome,
            "preset": presets.get(outcome),
            "reason": reasons.get(outcome),
        }


def _opened(source: ShardInput, rows: Sequence[Row], failed: dict[int, dict[str, Any]], size: int) -> list[OpenRow]:
    """The rows that decode; the others are added to `failed`."""
    opened = []
    for row in rows:
        try:
            opened.append(open_row(source, row, size))
        except RowError as error:
            failed[row.index] = _rejected(error)
    return opened


def _placed(face: Face) -> dict[str, Any]:
    return {"box": list(face.box), "landmarks": face.landmarks, "score": face.score}


def _skipped(face: Face) -> dict[str, Any]:
    return {"outcome": _SKIPPED.get(face.outcome or "", FAILED), "reason": face.outcome, "side": face.side}


def _seen(row: OpenRow, faces: list[dict[str, Any]]) -> dict[str, Any]:
    height, width = row.image.pixels.shape[:2]
    outcome = picture_outcome([face["outcome"] for face in faces])
    return {
        "outcome": outcome,
        "error": None,
        "reason": next((face["reason"] for face in faces if face["outcome"] == outcome), None)
        if outcome != NONE_FOUND
        else "no face was found",
        "width": width,
        "height": height,
        "faces": faces,
        "faces_found": len(faces),
        "severity": max((face["severity"] for face in faces if face.get("severity") is not None), default=None),
        "side": max((face["side"] for face in faces if face.get("side") is not None), default=None),
        "hash": picture_hash(row.image.pixels),
    }


def _rejected(error: RowError) -> dict[str, Any]:
    return {"outcome": REJECTED, "error": error.code, "reason": error.detail, "faces": [], "faces_found": 0}
