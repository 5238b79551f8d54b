"""`bfr export`: the files back that a run's images came from, in their tree, under their names, in their formats.

    <path>                the image: byte for byte if nothing in it changed, else its own format with the new pixels
    <path>.json           what became of its faces, the scores, and what made it
    <path>.png            beside what cannot take new pixels (GIF, animations): that stays as it was
    <shard>-00.tar        with `webdataset`, all of these in tar files
    .bfr-export/          how far the export is

Needs the source as it was, or a run that kept its input: a run holds no image's own bytes otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from bfr_models.errors import UsageError
from tasks.export.make import Made
from tasks.export.names import safe_path, with_ending, with_suffix
from tasks.export.parallel import Result, made_in_order
from tasks.export.pictures import Picture, pictures_of
from tasks.export.progress import CHANGED, MISSING, Done, Exported, Progress
from tasks.export.rows import ExportRun, open_export
from tasks.export.sidecar import sidecar
from tasks.export.webdataset import TarFiles, extension_of, key_of
from tasks.storage.redaction import redact, redact_text
from tasks.storage.store import Store

_SHOWN = 100  # examples in a report


@dataclass
class _Report:
    written: int = 0
    bytes: int = 0
    states: Counter[str] = field(default_factory=Counter)
    missing: list[dict[str, str]] = field(default_factory=list)
    renamed: list[dict[str, str]] = field(default_factory=list)
    noted: int = 0


def export_run(
    source: str,
    destination: str,
    *,
    only: Literal["changed", "approved"] | None = None,
    suffix: str = "",
    webdataset: bool = False,
    overwrite: bool = False,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Exports a finished run; a second call writes what is missing. `suffix` is put into the names of changed images;
    `show` is told how many rows are done, and of how many.

    With `webdataset`, each shard of the run becomes one or more tar files; a sample there is an image and its record.

    Faces that a review wants to keep as they were have the input's pixels again. `only`: leaves out images in which
    nothing is changed; with `approved`, no face is changed that nobody has approved.

    UsageError, before anything is written, for a run that is not finished, and for a folder with something else in it.
    """
    if set(suffix) & set("/\\\0"):
        raise UsageError(f"expected a suffix that can be part of a file name, found {suffix!r}")
    run, store = open_export(source, only_approved=only == "approved"), Store(destination)
    if f"{store.url()}/".startswith(f"{run.store.url()}/"):
        raise UsageError(f"expected a folder outside of the run {source}, found {destination}; choose another one")
    store.require_writable()
    asked: dict[str, Any] = {"only": only, "suffix": suffix}
    asked |= {"decisions": run.reviews.digest} if run.reviews.digest else {}
    asked |= {"webdataset": True} if webdataset else {}
    progress = Progress(store, run, asked, overwrite=overwrite)
    export = _Export(run, store, progress, only, suffix, webdataset)
    rows, total = 0, sum(shard.rows for shard, _ in run.shards)
    show(rows, total)
    for number in run.newest_first:
        export.shard(number)
        rows += run.shards[number][0].rows
        show(rows, total)
    report = export.report
    return {
        "run": redact(run.store.url()),
        "folder": redact(store.url()),
        "images": report.states.total(),
        **{state: report.states[state] for state in ("changed", "unchanged", "rejected", "missing")},
        "written": report.written,
        "bytes": report.bytes,
        "superseded": sum(len(run.superseded_in(number)) for number in range(len(run.shards))),
        "outdated_decisions": len(run.reviews.outdated),
        "noted": report.noted,
        "renamed": report.renamed,
        "not_exported": report.missing,
    }


@dataclass(frozen=True)
class _Export:
    run: ExportRun
    store: Store
    progress: Progress
    only: str | None
    suffix: str
    webdataset: bool
    report: _Report = field(default_factory=_Report)

    def shard(self, number: int) -> None:
        """Exports the images that begin in a shard, but for those that are there."""
        before = self.progress.done(number)
        if before and all(map(self.progress.is_there, before)):
            self.report.states.update(one.state for one in before)
            return
        done: Done = []
        shard, entry = self.run.shards[number]
        tars = TarFiles(self.store, f"{shard.commit}-{entry['attempt']}") if self.webdataset else None

        def is_missing(place: int) -> bool:
            return tars is not None or place >= len(before) or not self.progress.is_there(before[place])

        pictures = ((picture, is_missing(place)) for place, picture in enumerate(pictures_of(self.run, number)))
        for picture, made in made_in_order(self.run, pictures):
            was = before[len(done)] if len(done) < len(before) else None
            done.append(was if made is None and was else self._exported(picture, made, was, tars))
        if tars is not None:
            tars.close()
            self.report.written += tars.written
            self.report.bytes += tars.bytes
        self.report.states.update(one.state for one in done)
        self.progress.note(number, done)

    def _exported(self, picture: Picture, made: Result, was: Exported | None, tars: TarFiles | None) -> Exported:
        """Writes one image, into a tar file if these are wanted; `was` has the names that an earlier call gave."""
        if not isinstance(made, Made):
            if len(self.report.missing) < _SHOWN:
                why = made.detail if made else ""
                self.report.missing.append({"id": picture.rows[0].id, "why": redact_text(why)})
            return Exported(MISSING)
        if self.only and made.state != CHANGED:
            return Exported(made.state)
        contents = [*([made.data] if made.data is not None else []), *made.beside.values()]
        self.report.noted += bool(made.notes)
        if tars is not None:
            key = was.key if was and was.key else self.progress.names.give(key_of(self._wanted(picture, made)))
            endings = [*([extension_of(picture.name)] if made.data is not None else []), *made.beside]
            files = {f"{key}{ending}": data for ending, data in zip(endings, contents, strict=True)}
            record = sidecar(self.run, picture, made.state, files, made.notes)
            return Exported(made.state, [tars.add({**files, f"{key}.json": record})], key)
        names = was.files if was and was.files else self._names(picture, made)
        files = dict(zip(names, contents, strict=False))
        record = sidecar(self.run, picture, made.state, files, made.notes)
        for path, data in {**files, names[-1]: record}.items():  # the record last
            self.store.write(path, data)
            self.report.written += 1
            self.report.bytes += len(data)
        return Exported(made.state, names)

    def _wanted(self, picture: Picture, made: Made) -> str:
        """The name that an image would have if it were alone."""
        wanted = safe_path(picture.name)
        return with_suffix(wanted, self.suffix) if made.state == CHANGED and self.suffix else wanted

    def _names(self, picture: Picture, made: Made) -> list[str]:
        """Names for an image, what is put beside it, and its record."""
        give = self.progress.names.give
        name = give(self._wanted(picture, made))
        if name != picture.name and not self.suffix and len(self.report.renamed) < _SHOWN:
            self.report.renamed.append({"name": picture.name, "as": name})
        own = [name] if made.data is not None else []
        return [*own, *(give(with_ending(name, ending)) for ending in made.beside), give(with_ending(name, ".json"))]
