"""`bfr generations`: which there are, which one counts, and back again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import show
from flows.cli.command import Debug, Json, run

app = typer.Typer(help="Generations of a reprocessed dataset: list, switch, rollback, expire.", no_args_is_help=True)

Where = Annotated[str, typer.Argument(metavar="DST", help="What `bfr reprocess` wrote; any fsspec URL.")]


@app.command("list", epilog="Example: `bfr generations list s3://archive/restored`")
def list_(destination: Where, as_json: Json = False, debug: Debug = False) -> None:
    """Which there are, which is current, and why one is not."""

    def work() -> Any:
        from tasks.generations import list_generations

        return list_generations(destination)

    run(work, show.generations, as_json, debug)


@app.command(epilog="Example: `bfr generations switch s3://archive/restored 0002-difface-1a2b3c4d --force`")
def switch(
    destination: Where,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `list` shows it.")],
    force: Annotated[
        bool, typer.Option("--force", help="Though the comparison or a rollback speaks against it.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Makes a finished generation the current one."""

    def work() -> Any:
        from tasks.generations import switch_generation

        return {"current": switch_generation(destination, name, force=force).generation}

    run(work, show.current_generation, as_json, debug)


@app.command(epilog="Example: `bfr generations rollback s3://archive/restored`")
def rollback(destination: Where, as_json: Json = False, debug: Debug = False) -> None:
    """Makes the generation before the current one current again; schedules leave it so."""

    def work() -> Any:
        from tasks.generations import rollback_generation

        return {"current": rollback_generation(destination).generation}

    run(work, show.current_generation, as_json, debug)


@app.command(epilog="Example: `bfr generations expire s3://archive/restored --keep 2`")
def expire(
    destination: Where,
    keep: Annotated[int, typer.Option(min=1, help="Finished generations that stay, the current one among them.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Removes finished generations, those first that never counted; never the current one, never one in progress."""

    def work() -> Any:
        from tasks.generations import expire_generations

        return {"expired": expire_generations(destination, keep)}

    run(work, show.expired, as_json, debug)
