"""One reviewer at work on one run: what the page is told, and what it may ask for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bfr_models.errors import UsageError, unknown
from bfr_models.methods.fidelity import DIALS
from bfr_models.metrics.identity_scale import scale_of
from bfr_models.registry import methods, resolve_method
from tasks.export.rows import ExportRun
from tasks.report.identity_words import face_word
from tasks.review.faces import Faces, Filter, Row
from tasks.runs.reviews import REDO, VERDICTS, Decision, FaceKey, Redo
from tasks.storage.redaction import redact

if TYPE_CHECKING:
    from tasks.review.pictures import Pictures

REFRESH_SECONDS = 4.0  # until what other reviewers have decided is looked for again
_SHOWN = ("face", "id", "outcome", "changed", "place", "year", "folder", "key", "method", "fidelity", "verdict", "side")
_DIGITS = ("identity", "gain", "spread", "harm", "sharpness", "doubt")


class Session:
    """Reads the run, and writes decisions in the name of one reviewer. Any number of threads."""

    def __init__(self, run: ExportRun, reviewer: str, year_column: str | None = None) -> None:
        self.run, self.reviewer = run, reviewer
        self.faces = Faces(run, year_column)
        self._pictures: Pictures | None = None
        self._reviews, self._lock = run.reviews, threading.Lock()
        self._refreshed = time.monotonic()
        self._recogniser = (run.record.get("recogniser") or {}).get("name")

    @property
    def pictures(self) -> Pictures:
        """The run's images. What reads them is imported for the first one: the list of faces does not wait for it."""
        with self._lock:
            if self._pictures is None:
                from tasks.review.pictures import Pictures

                self._pictures = Pictures(self.run)
            return self._pictures

    def open(self) -> None:
        """Begins to read the faces."""
        self.faces.open()
        with self._lock:
            self._note(self._reviews.current)
            self._reviews.bundle()

    def refresh(self) -> None:
        """Takes in what others have decided, unless that was done a moment ago."""
        with self._lock:
            if time.monotonic() - self._refreshed >= REFRESH_SECONDS:
                self._note(self._reviews.refresh())
                self._refreshed = time.monotonic()

    def about(self) -> dict[str, Any]:
        """The run, and what can be done with its faces."""
        method, scale = self.run.record["method"], scale_of(self._recogniser)
        return {
            "run": redact(self.run.store.url()),
            "method": f"{method['name']} ({method['preset']})",
            "photos": self.run.asked("input") == "photos",
            "enlarged": self.run.asked("upscale", 1) != 1 or self.run.asked("size") == "network",
            "reviewer": self.reviewer,
            "methods": [{"name": name, "dial": self._has_dial(name)} for name in methods() if name != "passthrough"],
            "own_method": method["name"],
            "verdicts": VERDICTS,
            "scale": asdict(scale) if scale else None,
            **self.faces.facts(),
        }

    def progress(self, asked: Filter) -> dict[str, Any]:
        """How much is decided: by whom, and of the faces that a filter shows."""
        self.refresh()
        with self._lock:
            counts, own = self._reviews.counts(), self._reviews.counts(self.reviewer)
            outdated = len(self._reviews.outdated)
        return {
            "counts": counts,
            "own": own,
            "outdated": outdated,
            "filter": self.faces.count(asked),
            "read": [self.faces.files_read, len(self.run.shards)],
            "failed": self.faces.failed,
        }

    def page(self, asked: Filter, after: tuple[float, int] | None, limit: int) -> list[dict[str, Any]]:
        """The next faces of a filter."""
        self.refresh()
        return self._told(self.faces.page(asked, after, limit))

    def image(self, face: int) -> dict[str, Any]:
        """All faces of the image that a face is in, with their boxes, and the image's size."""
        (row,) = self.faces.rows([face])
        width, height = self.pictures.size(row)
        beside = self.faces.beside(row)
        boxes = [[one[edge] for edge in ("x0", "y0", "x1", "y1")] for one in beside]
        told = [told | {"box": box} for told, box in zip(self._told(beside), boxes, strict=True)]
        return {"width": width, "height": height, "faces": told}

    def row(self, face: int) -> Row:
        """A face by its number. UsageError if it does not exist."""
        (row,) = self.faces.rows([face])
        return row

    def decide(self, faces: Sequence[int], verdict: str, redo: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Decides about faces, and returns them once it is written."""
        if verdict not in VERDICTS:
            raise unknown("verdict", verdict, VERDICTS)
        if not faces:
            raise UsageError("expected a face to decide about, found none")
        how = self._redo(redo or {}) if verdict == REDO else None
        rows = self.faces.rows(faces)
        decisions = [Decision(self.faces.key(row), row["id"], verdict, how, self.faces.data(row)) for row in rows]
        with self._lock:
            self._note(self._reviews.decide(self.reviewer, decisions))
        return self._told(self.faces.rows(faces))

    def undo(self) -> list[dict[str, Any]]:
        """Takes back this reviewer's last decision; the faces that it was about."""
        with self._lock:
            touched = self._reviews.undo(self.reviewer)
            self._note(touched)
        return self._told(self.faces.of_keys(touched))

    def result(self) -> dict[str, Any]:
        """What is decided at the end of a session."""
        with self._lock:
            self._note(self._reviews.refresh())
            self._reviews.bundle()
            counts, own = self._reviews.counts(), self._reviews.counts(self.reviewer)
            outdated = len(self._reviews.outdated)
        run = redact(self.run.store.url())
        return {"run": run, "reviewer": self.reviewer, "decisions": counts, "own": own, "outdated": outdated}

    def _has_dial(self, method: str) -> bool:
        preset = self._preset(method) or methods()[method].presets[0].name
        return (method, preset) in DIALS

    def _preset(self, method: str) -> str | None:
        """The preset that the method would be used with again; None: its first."""
        own: Mapping[str, Any] = self.run.record["method"]
        return str(own["preset"]) if method == own["name"] else None

    def _redo(self, asked: Mapping[str, Any]) -> Redo:
        """How a face is to be restored again. UsageError for what no run could do."""
        method, fidelity = asked.get("method"), asked.get("fidelity")
        if not isinstance(method, str) or not isinstance(fidelity, int | float | None):
            raise UsageError(f"expected the name of a method and a fidelity from 0 to 1, found {dict(asked)}")
        if fidelity is not None and not 0 <= fidelity <= 1:
            raise UsageError(f"expected a fidelity from 0 to 1, found {fidelity}")
        resolve_method(method, self._preset(method), fidelity=fidelity)
        return Redo(method, None if fidelity is None else float(fidelity))

    def _note(self, touched: Iterable[FaceKey]) -> None:
        self.faces.note({key: self._reviews.current.get(key) for key in touched})

    def _told(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        return [self._face(row) for row in rows]

    def _face(self, row: Row) -> dict[str, Any]:
        numbers = {name: None if row[name] is None else round(row[name], 4) for name in _DIGITS}
        measured = {"identity_similarity": row["identity"], "side": row["side"], "box": None, "landmarks": None}
        word = face_word(measured, self._recogniser)
        return {name: row.get(name) for name in _SHOWN} | numbers | {"by": row["by_whom"], "word": word}
