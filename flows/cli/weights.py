"""`bfr weights`: the weight files that others publish. Only `fetch` downloads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bfr_models.weights.catalogue import WeightEntry
from flows.cli import show_machine
from flows.cli.command import run
from flows.cli.options import Debug, Json
from flows.cli.output import with_output_options

app = typer.Typer(help="List, fetch, verify and import weights.", no_args_is_help=True)

Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Names from `bfr weights list`, or their beginnings: difface/ffhq512."),
]


@app.command("list")
@with_output_options
def list_(as_json: Json = False, debug: Debug = False) -> None:
    """List weights: licence, size, sha256, and where they are on this machine."""

    def work() -> Any:
        from tasks.list_weights import list_weights

        return list_weights()

    run(work, show_machine.weights, as_json, debug)


@app.command(epilog="Example: `bfr weights fetch difface/ffhq512 --mirror s3://our-mirror/weights`")
@with_output_options
def fetch(
    names: Names,
    mirror: Annotated[
        str | None, typer.Option(help="Folder to fetch from, with the publishers' file names; any fsspec URL.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept licences that allow non-commercial use only.")
    ] = False,
    trust_on_first_use: Annotated[
        bool, typer.Option("--trust-on-first-use", help="Accept files of unknown sha256 and record it.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch weights into the cache (`BFR_WEIGHTS`) and check them. Running it again resumes."""

    def work() -> Any:
        from flows.progress.bars import ByteProgress
        from tasks.fetch_weights import fetch_weights

        return fetch_weights(
            names,
            _Consent(accept_licence),
            mirror=mirror,
            trust_on_first_use=trust_on_first_use,
            progress=ByteProgress,
        )

    run(work, show_machine.weights_here, as_json, debug)


@app.command()
@with_output_options
def verify(as_json: Json = False, debug: Debug = False) -> None:
    """Hash every weight file on this machine; exit code 1 if one is damaged."""

    def work() -> Any:
        from tasks.list_weights import verify_weights

        return verify_weights()

    run(work, show_machine.weights, as_json, debug, lambda rows: int(any(row["state"] == "damaged" for row in rows)))


@app.command("import", epilog="Example: `bfr weights import difface iddpm_ffhq512_ema500000.pth`")
@with_output_options
def import_(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="Method or library, such as difface, facexlib, recogniser, lpips.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Published checkpoint files.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Import published checkpoints from disk into the cache, converted without loss."""

    def work() -> Any:
        from tasks.import_weights import import_weights

        return import_weights(method, files)

    run(work, show_machine.weights_here, as_json, debug)


class _Consent:
    """Shows each licence once, and asks if a terminal is there to answer."""

    def __init__(self, accepted: bool) -> None:
        self._accepted = accepted
        self._answers: dict[str, bool] = {}

    def __call__(self, entry: WeightEntry) -> bool:
        if entry.licence_url not in self._answers:
            terms = f"under the {entry.licence}, for non-commercial use only: {entry.licence_url}"
            print(f"{entry.name} ({entry.what}) is {terms}", file=sys.stderr)
            self._answers[entry.licence_url] = self._accepted or self._ask()
        return self._answers[entry.licence_url]

    def _ask(self) -> bool:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        try:
            return typer.confirm("Do you accept it?", err=True)
        except typer.Abort:
            raise KeyboardInterrupt from None
