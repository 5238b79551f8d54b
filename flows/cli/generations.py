"""`bfr generations`: list them, choose the current one, remove old ones."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import run
from flows.cli.options import Debug, Json
from flows.cli.output import with_output_options

app = typer.Typer(help="Generations of a reprocessed dataset: list, switch, rollback, expire.", no_args_is_help=True)

Where = Annotated[str, typer.Argument(metavar="DST", help="The DST of `bfr reprocess`; any fsspec URL.")]


@app.command("list", epilog="Example: `bfr generations list s3://archive/restored`")
@with_output_options
def list_(destination: Where, as_json: Json = False, debug: Debug = False) -> None:
    """List generations: which one is current, and why others were held back."""

    def work() -> Any:
        from tasks.generations import list_generations

        return list_generations(destination)

    run(work, show.generations, as_json, debug)


@app.command(epilog="Example: `bfr generations switch s3://archive/restored 0002-difface-1a2b3c4d --force`")
@with_output_options
def switch(
    destination: Where,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Generation, as `list` shows it.")],
    force: Annotated[
        bool, typer.Option("--force", help="Switch even if a comparison or a rollback speaks against it.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a finished generation the current one."""

    def work() -> Any:
        from tasks.generations import switch_generation

        return {"current": switch_generation(destination, name, force=force).generation}

    run(work, show.current_generation, as_json, debug)


@app.command(epilog="Example: `bfr generations rollback s3://archive/restored`")
@with_output_options
def rollback(destination: Where, as_json: Json = False, debug: Debug = False) -> None:
    """Make the previous generation current again; schedules respect that."""

    def work() -> Any:
        from tasks.generations import rollback_generation

        return {"current": rollback_generation(destination).generation}

    run(work, show.current_generation, as_json, debug)


@app.command(epilog="Example: `bfr generations expire s3://archive/restored --keep 2`")
@with_output_options
def expire(
    destination: Where,
    keep: Annotated[int, typer.Option(min=1, help="Finished generations to keep, including the current one.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove old finished generations, never-current ones first; never the current one or one in progress."""

    def work() -> Any:
        from tasks.generations import expire_generations

        return {"expired": expire_generations(destination, keep)}

    run(work, show.expired, as_json, debug)
