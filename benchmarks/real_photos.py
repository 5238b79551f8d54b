"""Real photos of low quality, without ground truth: identity to the input, sharpness, NIQE, and a sheet of faces.

    python benchmarks/real_photos.py --data photos.parquet [--credit "Who took them: their licence."]

Runs `bfr restore --input photos` with every method on the same photos and writes results/real_photos.md. With --credit
it also writes results/real_photos.jpg: some of the faces, before and after each method.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
from PIL import Image, ImageOps
from PIL.Image import Resampling

from bfr_models.metrics.fidelity import sharpness
from bfr_models.metrics.niqe import niqe
from bfr_models.pixels import Uint8Image

RESULTS = Path(__file__).parent / "results"
METHODS = ("passthrough", "estimator", "difface", "diffbfr", "clr_face")
SIZE, SHOWN = 128, 12
NIQE_SIZE = 256  # faces are brought to: the measure wants blocks of 96 px
Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of photographs")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--credit", help="of the photographs, below a sheet of some faces")
    args = parser.parse_args()
    lines: list[str] = []
    columns: list[tuple[Uint8Image, ...]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for method in args.methods.split(","):
            out = Path(scratch) / method
            _restore(args.data, out, method)
            record, rows = json.loads((out / "run.json").read_text()), _rows(out)
            before, after = zip(*(pair for row in rows for pair in _faces(row)), strict=True)
            gain = np.mean([sharpness(face) for face in after]) / np.mean([sharpness(face) for face in before])
            seconds = float(np.mean([row["seconds"] for row in rows]))
            if not columns:
                columns.append(before)
                lines.append(f"| as found | | {len(before)} | 1.000 | 1.00 | {_niqe(before):.2f} | |")
            lines.append(_line(method, record, len(before), float(gain), _niqe(after), seconds))
            print(lines[-1], flush=True)
            columns.append(after)
    header = "| method | photos restored | faces restored | identity to the input | sharpness | NIQE | s/photo |"
    text = (
        f"{header()}`bfr restore --input photos`, preset face128. There is no ground truth. "
        "Identity is dlib's cosine to the face before; sharpness that of the faces' "
        "squares in the photograph's own pixels, over the input's; NIQE (lower is better) that of the squares, "
        f"brought to {NIQE_SIZE} px by Pillow's bicubic filter.\n\n"
    )
    text += "\n".join([header, "|---" * 7 + "|", *lines]) + "\n"
    if args.credit:
        _sheet(columns).save(RESULTS / "real_photos.jpg", quality=88)
        text += f"\nSome of the faces, from above: as found, then by each method in the table's order. {args.credit}\n"
        text += "\n![faces before and after](real_photos.jpg)\n"
    (RESULTS / "real_photos.md").write_text(text)


def _sheet(columns: list[tuple[Uint8Image, ...]]) -> Image.Image:
    places = np.linspace(0, len(columns[0]) - 1, SHOWN).astype(int)
    tiles = [[np.asarray(Image.fromarray(c[i]).resize((SIZE, SIZE))) for i in places] for c in columns]
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in tiles]))


def _restore(source: Path, out: Path, method: str) -> None:
    bfr = str(Path(sys.executable).with_name("bfr"))
    command = [bfr, "restore", str(source), str(out), "--method", method, "--input", "photos", "--keep-input"]
    command += ["--max-harm", "1"]  # every face, whatever it is worth
    command += ["--max-rejects", "1", "--fid", "none", "--lpips", "none"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


def _rows(out: Path) -> list[Facts]:
    columns = ["id", "image", "restored", "faces", "seconds"]
    return pads.dataset(out / "data", format="parquet").to_table(columns=columns).sort_by("id").to_pylist()


def _faces(row: Facts) -> list[tuple[Any, Any]]:
    """(before, after) for each restored face: the square around it, in the photo's own pixels."""
    before, after = (np.asarray(_open(row[name])) for name in ("image", "restored"))
    pairs = []
    for face in row["faces"]:
        if face["outcome"] == "restored":
            left, top, right, bottom = (max(0, round(place)) for place in face["box"])
            pairs.append((before[top:bottom, left:right], after[top:bottom, left:right]))
    return pairs


def _open(cell: Facts) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(cell["bytes"]))).convert("RGB")


def _niqe(faces: Sequence[Uint8Image]) -> float:
    """The mean over the faces with enough texture for NIQE."""
    enlarged = (np.asarray(Image.fromarray(face).resize((NIQE_SIZE, NIQE_SIZE), Resampling.BICUBIC)) for face in faces)
    return float(np.mean([value for face in enlarged if (value := niqe(face).value) is not None]))


def _line(method: str, record: Facts, faces: int, gain: float, natural: float, seconds: float) -> str:
    totals, identity = record["totals"], record["statistics"]["identity_similarity"]["mean"]
    done = f"{totals['restored']} of {totals['rows']}"
    return f"| {method} | {done} | {faces} | {identity:.3f} | {gain:.2f} | {natural:.2f} | {seconds:.2f} |"


if __name__ == "__main__":
    main()
