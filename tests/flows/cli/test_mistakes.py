"""Mistakes that people make: told on one screen, as expected / found / what to do, before anything slow is imported.

One fresh process makes all of those that end before any work, one after the other, and notes after each what it has
imported so far.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from flows.evaluate_methods import evaluate_without_prefect
from flows.reprocess import reprocess_without_prefect
from tasks.assess_dataset import assess_dataset
from tasks.config.assess import AssessRun
from tasks.config.evaluate import EvaluateRun
from tasks.config.reprocess import ReprocessRun
from tests import support

SLOW = ("torch", "prefect", "ray", "diffusers")
SECONDS, LINES, WIDTH = 6.0, 15, 100  # of CPU: a busy machine takes twice as many

# (name, arguments, exit code, what the message has to say)
EARLY: tuple[tuple[str, str, int, tuple[str, ...]], ...] = (
    ("no method", "restore faces out", 2, ("expected --method (", "`bfr methods` lists them", "found none")),
    ("a method misspelt", "restore faces out --method diface", 2, ("unknown method 'diface'", "mean 'difface'?")),
    ("a preset misspelt", "restore faces out --method difface --preset fase128", 2, ("did you mean 'face128'?",)),
    ("an option's value misspelt", "restore faces out --method difface --sampler dim", 2, ("known: ddim, dpm++",)),
    ("a choice misspelt", "restore faces out --method difface --input photo", 2,
     ("expected --input auto or faces or photos, found 'photo'; did you mean 'photos'?",)),
    ("a column misspelt", "restore faces out --method difface --column imgae", 2,
     ("expected an image column 'imgae', found the columns image", "--column; did you mean 'image'?")),
    ("a column of text", "restore faces out --method difface --column age", 2,
     ("expected images in column 'age'", "found int64", "--column")),
    ("a path misspelt", "restore face out --method difface", 2,
     ("expected files at", "found nothing; check the path", "mean 'faces'?")),
    ("not a Parquet", "restore notes.parquet out --method difface", 2, ("expected a Parquet file at", "notes.parquet")),
    ("a folder of texts", "restore texts out --method difface", 2, ("expected *.parquet files at", "found 1 files")),
    ("a destination that is a file", "restore faces notes.parquet --method difface", 2,
     ("expected a folder at", "found a file; correct the path")),
    ("a destination inside the source", "restore faces faces/out --method difface", 2, ("a destination outside",)),
    ("a source that is empty", "restore '' out --method difface", 2, ("SRC: expected a path or a URL, found",)),
    ("a destination that is empty", "restore faces '' --method difface", 2, ("DST: expected a path or a URL",)),
    ("pack: a destination that is empty", "pack faces ''", 2, ("expected a path or a URL, found an empty one",)),
    ("demo: a destination that is empty", "demo --out ''", 2, ("expected a path or a URL, found an empty one",)),
    ("verify of an empty path", "verify ''", 2, ("expected a path or a URL, found an empty one",)),
    ("a code of rejects misspelt", "restore faces done --method passthrough --retry-rejected undecodeable", 2,
     ("expected --retry-rejected missing or undecodable or", "found 'undecodeable'; did you mean 'undecodable'?")),
    ("a destination whose disk is gone", "restore faces gone --method difface", 2,
     ("expected a folder at", "found a link to /no/disk/here/faces, where nothing is; mount or make that")),
    ("curate: a destination whose disk is gone", "curate done gone", 2, ("found a link to /no/disk/here/faces,",)),
    ("demo: a destination whose disk is gone", "demo --out gone", 2, ("found a link to /no/disk/here/faces,",)),
    ("another seed on a finished run", "restore faces done --method passthrough --seed 3", 2,
     ("seed: expected 0, found 3", "use another destination, or the same settings")),
    ("another method on a finished run", "restore faces done --method estimator", 2, ("expected \"passthrough\"",)),
    ("faces resized back, and not", "restore faces out --method difface --resize-back --size network", 2,
     ("expected no --size network with --resize-back, found both", "leave one of them out")),
    ("photos resized back", "restore faces out --method difface --resize-back --input photos", 2,
     ("expected --input faces with --resize-back, found photos",)),
    ("a share of two", "restore faces out --method difface --max-rejects 2", 2,
     ("expected --max-rejects as less than or equal to 1, found 2",)),
    ("a setting misspelt in a file", "restore faces out --config run.yaml", 2,
     ("expected a setting of this command, found 'sead'; did you mean 'seed'?",)),
    ("a profile of identity misspelt", "restore faces out --method difface --min-identity celeb", 2,
     ("expected a number from -1 to 1, or one of the profiles celeba",)),
    ("evaluate: a method misspelt", "evaluate faces out --methods passthrough,diface", 2, ("mean 'difface'?",)),
    ("evaluate: a column misspelt", "evaluate faces out --methods passthrough --gt-column imag", 2,
     ("expected an image column 'imag'", "did you mean 'image'?")),
    ("evaluate: a degradation misspelt", "evaluate faces out --methods passthrough --degrade gpfgan", 2,
     ("unknown degradation preset 'gpfgan'", "did you mean 'gfpgan'?")),
    ("evaluate: a metric misspelt", "evaluate faces out --methods passthrough --metrics nique", 2, ("mean 'niqe'?",)),
    ("demo: a method misspelt", "demo --out d --methods diface", 2, ("did you mean 'difface'?",)),
    ("no such flag", "restore faces out --methud difface", 2, ("No such option", "--method")),
    ("verify of a dataset", "verify faces", 2, ("expected a run at", "found no plan there")),
    ("explain of a row that is not there", "explain done nobody", 2, ("expected a row with the id 'nobody'",)),
    ("weights misspelt", "weights fetch difface/ffhq51", 2, ("did you mean 'difface/ffhq512",)),
    ("assess: a method misspelt", "assess faces out --method diface", 2, ("mean 'difface'?",)),
    ("assess: a column misspelt", "assess faces out --column imgae", 2, ("did you mean 'image'?",)),
    ("assess: a path misspelt", "assess face out", 2, ("found nothing; check the path", "mean 'faces'?")),
    ("assess: a destination in use", "assess faces texts", 2, ("expected an empty folder at", "found a.txt")),
    ("score: a column misspelt", "score faces out --column restord", 2, ("expected an image column 'restord'",)),
    ("score: a path misspelt", "score face out", 2, ("found nothing; check the path", "mean 'faces'?")),
    ("score: a metric misspelt", "score faces out --column image --metrics nique", 2, ("mean 'niqe'?",)),
    ("degrade: a preset misspelt", "degrade faces out --preset gpfgan", 2, ("did you mean 'gfpgan'?",)),
    ("degrade: a column misspelt", "degrade faces out --column imgae", 2, ("did you mean 'image'?",)),
    ("degrade: a destination in use", "degrade faces texts", 2, ("expected an empty folder or", "a.txt")),
    ("curate: no run", "curate faces out", 2, ("expected a", "run at", "faces")),
    ("curate: a column misspelt", "curate done out --where outcom=1", 2, ("outcom",)),
    ("curate: a ranking misspelt", "curate done out --by identity_similarty", 2, ("identity_similarty",)),
    ("curate: a similarity of two", "curate done out --dedupe 2", 2,
     ("error: --dedupe: expected a similarity above 0 and of at most 1, or auto, found '2'",)),
    ("reprocess: a method misspelt", "reprocess faces out --method diface", 2, ("mean 'difface'?",)),
    ("reprocess: a column misspelt", "reprocess faces out --method difface --set column=imgae", 2, ("mean 'image'?",)),
    ("reprocess: a path misspelt", "reprocess face out --method difface", 2, ("check the path", "mean 'faces'?")),
    ("a finished run again", "restore faces done --method passthrough", 0, ("nothing to do: ", "12 rows in")),
    ("a finished reprocess again", "reprocess faces kept --method passthrough --set engine=local", 0,
     ("nothing to do: ", "is current and finished")),
    ("a finished evaluate again", "evaluate faces compared --methods passthrough --gt-column image --engine local", 0,
     ("nothing to do: ", "compared is finished")),
    ("a finished assessment again", "assess faces assessed --method passthrough", 0, ("nothing to do: ", "assessed")),
)  # fmt: skip

SCRIPT = f"""
import contextlib, io, json, sys, time
from flows.cli.app import app
for arguments in json.load(sys.stdin):
    out, began = io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            app(arguments, prog_name="bfr")
        except SystemExit as end:
            code = end.code
    slow = [name for name in {SLOW} if name in sys.modules]
    print(json.dumps(dict(code=code, said=out.getvalue(), seconds=time.process_time() - began, slow=slow)))
"""


@dataclass(frozen=True)
class Told:
    code: int
    said: str
    seconds: float
    slow: list[str]


class Uncounted(nullcontext[Any]):
    """Progress that nobody sees."""

    def __enter__(self) -> Any:
        return self

    def advance(self, rows: int) -> None: ...


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Told]]:
    """What each early mistake came to, by its name."""
    folder = tmp_path_factory.mktemp("mistakes")
    support.write_parquet(folder / "faces" / "a.parquet", [row | {"age": 30} for row in support.make_rows(12)])
    run = support.make_run(folder, source=str(folder / "faces"), destination=str(folder / "done"), shard_rows=32)
    support.finished_run(run)
    places = {"source": "faces", "method": "passthrough", "engine": "local"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # what a command is given, it stores
        reprocess_without_prefect(ReprocessRun(**places, destination="kept"))
        compared = EvaluateRun(
            source="faces", destination="compared", methods=["passthrough"], gt_column="image", engine="local"
        )
        evaluate_without_prefect(compared)
        assess_dataset(AssessRun(source="faces", destination="assessed", method="passthrough"), lambda *_: Uncounted())
    (folder / "notes.parquet").write_text("no Parquet")
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("no image")
    (folder / "gone").symlink_to("/no/disk/here/faces")
    (folder / "run.yaml").write_text("{method: difface, sead: 3}")
    asked = json.dumps([shlex.split(arguments) for _, arguments, _, _ in EARLY])
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=asked, cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(support.ROOT), "BFR_WEIGHTS": str(folder / "weights")},
    )  # fmt: skip
    found = [Told(**json.loads(line)) for line in ran.stdout.splitlines()]
    yield {name: one for (name, *_), one in zip(EARLY, found, strict=True)}
    assert not (folder / "out").exists() and not (folder / "d").exists()


@pytest.mark.parametrize(("name", "code", "words"), [(name, code, words) for name, _, code, words in EARLY])
def test_a_mistake_is_told_at_once_on_one_screen(
    name: str, code: int, words: tuple[str, ...], told: dict[str, Told]
) -> None:
    found = told[name]
    assert found.code == code, found.said
    said = " ".join(found.said.replace("│", " ").split())
    assert all(word in said for word in words), said
    assert "Traceback" not in said and "Store(" not in said and "Input should" not in said
    assert sum(1 + len(line) // WIDTH for line in found.said.splitlines()) <= LINES, found.said
    assert found.slow == [] and found.seconds < SECONDS
