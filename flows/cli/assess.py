"""`bfr assess`: what is in a dataset, and what a restore would do with it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import show_pictures
from flows.cli.command import run as command
from flows.cli.options import Debug, Destination, Json, PresetName, ShardRows, SourceOrFiles, asked_for
from tasks.storage.redaction import redact
from tasks.storage.waits import say

if TYPE_CHECKING:
    from tasks.config.assess import AssessRun


def assess(
    context: typer.Context,
    source: SourceOrFiles,
    destination: Destination,
    method: Annotated[str | None, typer.Option(help="Method to assess for; difface by default.")] = None,
    preset: PresetName = None,
    input_: Annotated[str | None, typer.Option("--input", help="auto (default), faces or photos.")] = None,
    column: Annotated[str | None, typer.Option(help="Image column; `image` by default.")] = None,
    limit: Annotated[int | None, typer.Option(help="Look at the first N rows only.")] = None,
    sample: Annotated[int | None, typer.Option(help="Look at N rows only, drawn at random.")] = None,
    max_harm: Annotated[
        float | None, typer.Option(help="Share of all faces that may come out worse; 0.02 by default.")
    ] = None,
    min_gain: Annotated[
        float | None, typer.Option(help="Least predicted gain of a restored face; 0.02 by default.")
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Detector for photos: dlib (default) or retinaface.")] = None,
    detector_weights: Annotated[str | None, typer.Option(help="Detector weights file.")] = None,
    min_face: Annotated[int | None, typer.Option(help="Smallest face square to restore, px; 32 by default.")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Most faces to restore per photo; 500 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sample.")] = None,
    shard_rows: ShardRows = None,
    threads: Annotated[int | None, typer.Option(help="Shards at a time; one per processor by default.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what is wrong with each face, and what a restore would do. Restores nothing; running it again resumes."""

    def work() -> Any:
        from tasks.assess_dataset import assess_dataset, finished_assessment
        from tasks.config.assess import AssessRun

        asked = asked_for(context, AssessRun)
        say(f"{redact(asked.source)} -> {redact(asked.destination)}: assessed for {asked.method}")
        asked = _packed(asked)
        if (finished := finished_assessment(asked)) is not None:
            say(f"nothing to do: {redact(asked.destination)} is assessed, and {redact(asked.source)} has nothing new")
            return finished
        from flows.progress.bars import RowProgress

        found = assess_dataset(asked, RowProgress)
        if found["took_it_for"]:
            print(found["took_it_for"], file=sys.stderr)
        return found

    command(work, show_pictures.assessed, as_json, debug)


def _packed(asked: AssessRun) -> AssessRun:
    """The assessment of a dataset: files are packed into it first, once, as a run packs its own."""
    from tasks.assess_dataset import require_place
    from tasks.config.resolve import resolve_run
    from tasks.pack_pictures import files_of_run

    resolve_run(asked.restoration)
    files = files_of_run(asked.source, asked.destination)
    if files is None:
        return asked
    require_place(asked)
    show_pictures.packed(files, files.pack())
    return asked.model_copy(update={"source": files.url})
