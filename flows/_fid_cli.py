"""`bfr fid`: the distance between two sets of faces."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows import _show
from flows._command import Debug, Json
from flows._command import run as command

Faces = Annotated[str, typer.Argument(help="Dataset, finished run, or .npz with mu and sigma; any fsspec URL.")]


def fid(
    a: Faces,
    b: Faces,
    features: Annotated[str, typer.Option(help="auto, inception, arcface, adaface or dlib.")] = "auto",
    preprocessing: Annotated[str, typer.Option(help="Of the Inception: pytorch-fid or clean-fid.")] = "pytorch-fid",
    column: Annotated[str | None, typer.Option(help="The picture column; `restored` or `image` by default.")] = None,
    kernel: Annotated[bool, typer.Option("--kernel", help="KID, precision and recall too.")] = False,
    save: Annotated[str | None, typer.Option(help="Write B's statistics there, as .npz.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fréchet distance between two datasets, runs or saved statistics: FID, or fd_<network>."""

    def work() -> Any:
        from tasks.measure_distance import measure_distance

        return measure_distance(
            a, b, features=features, preprocessing=preprocessing, column=column, kernel=kernel, save=save
        )

    command(work, _show.fid, as_json, debug)
