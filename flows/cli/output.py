"""How a command speaks: `--quiet`, `--verbose` and `--log`, which every verb takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal

import typer

from flows.progress.output import begin

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel="Output")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", rich_help_panel="Output")]
Log = Annotated[
    Literal["text", "json"],
    typer.Option(
        help="Form of what is said on standard error: text, or one JSON object a line.", rich_help_panel="Output"
    ),
]


def with_output_options(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the three options."""

    @wraps(verb)
    def call(*arguments: Any, quiet: bool, verbose: bool, log: str, **named: Any) -> None:
        begin(verb.__name__.rstrip("_"), quiet=quiet, verbose=verbose, log=log)
        verb(*arguments, **named)

    own = inspect.signature(verb, eval_str=True)
    options = {"quiet": (Quiet, False), "verbose": (Verbose, False), "log": (Log, "text")}
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    call.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    return call
