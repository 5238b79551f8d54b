"""The `bfr` command: the table of its verbs, each with an example.

Every verb writes its result to standard output (with --json as one document) and everything else to standard error
(`output.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from flows.cli import (
    assess,
    curate,
    datasets,
    evaluate,
    export,
    generations,
    machine,
    reprocess,
    restore,
    review,
    runs,
    score,
    submit,
    train,
    weights,
)
from flows.cli.command import Commands
from flows.cli.output import with_output_options
from flows.cli.supervisor import supervise

VERBS: tuple[tuple[Callable[..., None], str], ...] = (
    (datasets.demo, "Example: `bfr demo --out demo`"),
    (datasets.pack, "Example: `bfr pack scans/ s3://archive/faces`"),
    (datasets.degrade, "Example: `bfr degrade faces/ pairs/ --preset gfpgan --size 128 --seed 0`"),
    (restore.restore, "Examples: `bfr restore pairs/ out/ --method difface --gt-column gt`; `--input photos`"),
    (assess.assess, "Example: `bfr assess photos/ assessed/`, then `bfr restore photos/ out/ --select assessed/`"),
    (
        evaluate.evaluate,
        "Example: `bfr evaluate faces/ out/ --methods passthrough,estimator,difface --degrade gfpgan`",
    ),
    (review.review, "Example: `bfr review restored/`, then `bfr export restored/ files/ --only approved`"),
    (export.export, "Examples: `bfr export restored/ files/`; `--only changed --suffix _restored`"),
    (curate.curate, "Example: `bfr curate restored/ best/ --where 'identity_similarity > 0.9' --dedupe auto`"),
    (reprocess.reprocess, "Example: `bfr reprocess s3://inbox s3://archive/restored --method difface`"),
    (reprocess.deploy, 'Example: `bfr deploy s3://inbox s3://archive/restored --method difface --cron "0 3 * * *"`'),
    (runs.verify, "Example: `bfr verify s3://archive/restored --json`"),
    (runs.repair, "Example: `bfr repair s3://archive/restored`"),
    (runs.vacuum, "Example: `bfr vacuum s3://archive/restored --older-than 1d --dry-run`"),
    (runs.explain, "Example: `bfr explain restored/ faces.parquet#17`"),
    (runs.report, "Example: `bfr report restored/`"),
    (score.fid, "Examples: `bfr fid out/ faces/`; `bfr fid out/ ffhq.npz --features inception`"),
    (score.score, "Example: `bfr score theirs/ scores/ --column output --lq-column input --gt-column gt`"),
    (machine.methods, "Example: `bfr methods --json`"),
    (machine.doctor, "Examples: `bfr doctor`; `bfr doctor --cluster --store s3://restored/faces`"),
    (
        submit.submit,
        "Examples: `bfr submit restore s3://scans s3://restored --method difface`; `bfr submit --list`",
    ),
    (train.train, "Example: `bfr train difface prior --data faces/ --out runs/prior`"),
)

app = typer.Typer(
    name="bfr",
    cls=Commands,
    help="Blind face restoration at archive scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for verb, example in VERBS:
    # What follows COMMAND of `bfr submit` are that command's options.
    passed_on = {"allow_interspersed_args": verb is not submit.submit}
    app.command(epilog=example, context_settings=passed_on)(with_output_options(verb))
app.add_typer(weights.app, name="weights")
app.add_typer(generations.app, name="generations")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"bfr {version('bfr-pipeline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options that stand before a verb; the text above is the command's help."""


def main() -> None:
    """As `flows.cli.main.main`, for a caller that has imported this already."""
    supervise(app)
