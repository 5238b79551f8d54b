"""A real archive without ground truth: what becomes of its faces, by decade, and a sheet of some of each outcome.

    python benchmarks/real_archive.py --data archive.parquet --method difface --run DIR [--sheets DIR]

Restores the archive with the defaults into DIR (which resumes) and writes results/real_archive.md. `--sheets` gets a
picture for each outcome: faces before and after, at twice their size.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
from header import header
from PIL import Image

RESULTS = Path(__file__).parent / "results"
OUTCOMES = ("restored", "corrected", "kept_original", "skipped", "failed")
SHOWN, COLUMNS, TILE = 40, 8, 160
Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of photos with the column `congress`")
    parser.add_argument("--method", default="difface")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--sheets", type=Path, help="folder of the sheets")
    args = parser.parse_args()
    _restore(args.data, args.run, args.method)
    columns = ["id", "congress", "faces", "restored", "image"]
    rows = pads.dataset(args.run / "data", format="parquet").to_table(columns=columns).sort_by("id").to_pylist()
    record = json.loads((args.run / "run.json").read_text())
    faces = [(row, face) for row in rows for face in row["faces"]]
    lines = list(_table(rows, faces))
    totals = record["totals"]
    text = (
        f"{header()}`bfr restore --method {args.method} --input photos` with the defaults on {len(rows)} portraits "
        f"({totals['rejected']} more rejected) in {totals['wall_seconds']:.0f} s. There is no ground truth. Gain is "
        "the judge's, of the faces that were changed.\n\n"
    )
    (RESULTS / "real_archive.md").write_text(text + "\n".join(lines) + "\n")
    print("\n".join(lines))
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        for outcome in OUTCOMES:
            if chosen := [pair for pair in faces if pair[1]["outcome"].partition(":")[0] == outcome]:
                _sheet(chosen).save(args.sheets / f"{outcome}.png")


def _restore(source: Path, out: Path, method: str) -> None:
    bfr = str(Path(sys.executable).with_name("bfr"))
    command = [bfr, "restore", str(source), str(out), "--method", method, "--input", "photos", "--keep-input"]
    command += ["--max-rejects", "1", "--engine", "local"]
    subprocess.run(command, check=True)  # noqa: S603


def _table(rows: list[Facts], faces: list[tuple[Facts, Facts]]) -> Iterator[str]:
    photos = Counter(_decade(row) for row in rows)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    gains: dict[str, list[float]] = defaultdict(list)
    without = Counter(_decade(row) for row in rows if not row["faces"])
    for row, face in faces:
        outcome = face["outcome"].partition(":")[0]
        for decade in (_decade(row), "all"):
            counts[decade][outcome] += 1
            if outcome in ("restored", "corrected"):
                gains[decade].append(face["gain"])
    photos["all"], without["all"] = photos.total(), without.total()
    head = f"| decade | photos | no face | {' | '.join(OUTCOMES)} | mean gain |"
    yield from (head, "|---" * (len(OUTCOMES) + 4) + "|")
    for decade in sorted(photos):
        of = " | ".join(str(counts[decade][outcome]) for outcome in OUTCOMES)
        gain = f"{np.mean(gains[decade]):.2f}" if gains[decade] else "-"
        yield f"| {decade} | {photos[decade]} | {without[decade]} | {of} | {gain} |"


def _decade(row: Facts) -> str:
    return f"{(1787 + 2 * row['congress']) // 10 * 10}s"


def _sheet(faces: list[tuple[Facts, Facts]]) -> Image.Image:
    places = np.linspace(0, len(faces) - 1, min(SHOWN, len(faces))).astype(int)
    tiles = [_tile(*faces[place]) for place in places]
    tiles += [Image.new("RGB", (2 * TILE, TILE))] * (-len(tiles) % COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 2 * TILE, len(tiles) // COLUMNS * TILE))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % COLUMNS * 2 * TILE, number // COLUMNS * TILE))
    return sheet


def _tile(row: Facts, face: Facts) -> Image.Image:
    """The square around a face, half as large again as its box, before and after."""
    left, top, right, bottom = face["box"]
    reach, x, y = 0.75 * max(right - left, bottom - top), (left + right) / 2, (top + bottom) / 2
    place = tuple(round(edge) for edge in (x - reach, y - reach, x + reach, y + reach))
    tile = Image.new("RGB", (2 * TILE, TILE))
    for column, name in enumerate(("image", "restored")):
        photo = Image.open(io.BytesIO(row[name]["bytes"])).convert("RGB")
        tile.paste(photo.crop(place).resize((TILE, TILE), Image.Resampling.BICUBIC), (column * TILE, 0))
    return tile


if __name__ == "__main__":
    main()
