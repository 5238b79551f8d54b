"""What a large photo costs beside the method, stage by stage; and pasting faces into a very large one.

    python benchmarks/photos.py --data faces512.parquet

Photos of 4000 x 3000 px with four faces of 800 px each, JPEG, restored by `estimator` and judged, one at a time on one
thread; no recogniser scores. The milliseconds are CPU time of a stage, the fastest of a few rounds. Everything but the
method is to take at most 800, and pasting eight faces of 1000 px into 8000 x 3422 px at most 500. "All of a worker"
counts its whole process over the same photos, reading, writing and waiting included, with a method that takes no time
and is not judged. Writes results/photos.md.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import cv2
import engine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sleeping_method
import torch
from header import header
from PIL import Image
from watching import watched

from bfr_models.faces.align import at_scale
from bfr_models.faces.detectors import DetectorChoice, load_detector
from bfr_models.faces.paste import paste
from bfr_models.faces.types import Matrix
from bfr_models.judge.decision import choose_judge
from bfr_models.pixels import Uint8Image, to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.types import FaceBatch
from bfr_models.upscalers.lanczos import enlarge
from tasks.config.care import MAX_HARM, Care
from tasks.config.resolve import PhotoSettings
from tasks.images.codec import Format, decode, encode
from tasks.runs.outcomes import RESTORED
from tasks.worker.decide import Case, Decision, load_decide
from tasks.worker.framing import FacesInPhotos
from tasks.worker.open_rows import OpenRow
from tasks.worker.read_shard import Row

RESULTS = Path(__file__).parent / "results"
FORMATS: tuple[Format, ...] = ("jpeg", "png")
WIDTH, HEIGHT, FACES, SIDE, TARGET = 4000, 3000, 4, 800, 800
SCAN, PASTED, PASTED_SIDE, PASTE_TARGET = (3422, 8000), 8, 1000, 500
PHOTOS, ROUNDS = 6, 4
T = TypeVar("T")


@dataclass
class Stopwatch:
    """The least CPU milliseconds of each stage."""

    least: dict[str, float] = field(default_factory=dict)

    def __call__(self, stage: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        result = work()
        self.least[stage] = min(self.least.get(stage, np.inf), 1000 * (time.process_time() - began))
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of aligned faces")
    parser.add_argument("--out", type=Path, default=RESULTS / "photos.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cells = pq.read_table(args.data, columns=["image"])["image"].to_pylist()[: FACES * PHOTOS]
    faces = [Image.open(io.BytesIO(cell["bytes"])).convert("RGB") for cell in cells]
    photos = [photo_of(faces[n :: len(faces) // FACES][:FACES], n) for n in range(PHOTOS)]
    lines = [*of_stages(photos[0]), ""]
    with tempfile.TemporaryDirectory() as scratch:
        lines += [*of_worker(photos, Path(scratch)), ""]
    taken = of_pasting(faces[:PASTED])
    lines.append(f"{PASTED} faces pasted into {SCAN[1]} x {SCAN[0]} px: {taken:.0f} ms (target {PASTE_TARGET})")
    print("\n".join(lines))
    args.out.write_text(header() + " ".join(__doc__.split("\n\n")[2].split()) + "\n\n" + "\n".join(lines) + "\n")


def photo_of(faces: Sequence[Image.Image], seed: int) -> bytes:
    """A JPEG with faces before a wall that has grain."""
    rng = np.random.default_rng(seed)
    light = Image.fromarray(rng.integers(60, 190, (30, 40, 3), dtype=np.uint8))
    wall = np.asarray(light.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    photo = (wall + rng.normal(0, 2, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8)
    for number, face in enumerate(faces):
        left, top = WIDTH // FACES * number + 100, 300 + 1500 * (number % 2)
        large = face.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        photo[top : top + SIDE, left : left + SIDE] = np.asarray(large)
    Image.fromarray(photo).save(file := io.BytesIO(), "JPEG", quality=92)
    return file.getvalue()


class Stages:
    """A worker's stages for one photo at a time."""

    def __init__(self) -> None:
        method, detector = resolve_method("estimator", "face128"), DetectorChoice("dlib")
        settings = PhotoSettings(detector, min_face=32, max_faces=500, reject_no_face=False)
        self._restorer = load_method(method)
        self._decide = load_decide(Care(choose_judge(method), MAX_HARM, 0.02, "input", "keep"))
        self._framing = FacesInPhotos(self._restorer.size, load_detector(detector, "cpu"), settings, "png", enlarge)

    def run(self, photo: bytes, watch: Stopwatch) -> int:
        """How many faces it has. All of them are replaced; no judge is asked."""
        framing, decide = self._framing, self._decide
        image = watch("decode", lambda: decode(photo))
        row = OpenRow(Row(0, "photo", 0), image)
        watch("detect", lambda: framing.find([row]))
        faces = list(row.todo)
        crops = watch("align", lambda: [framing.crop(row, face) for face in faces])
        ids, seeds = zip(*((face.id, face.seed) for face in faces), strict=True)
        restored = to_uint8(self._restorer.restore(FaceBatch(ids, torch.stack([c.lq for c in crops]), seeds)).images)
        natives = watch("align for the judge", lambda: [framing.native(row, face) for face in faces])
        cases = [Case(n, r, f.side or 0, f.seed) for n, r, f in zip(natives, restored, faces, strict=True)]
        drawn = watch("draw", lambda: [(case, decide.draw(case)) for case in cases])
        watch("judge", lambda: [decide.choose([one]) for one in drawn])
        for face, (_, pixels) in zip(faces, drawn, strict=True):
            face.outcome, face.decision = RESTORED, Decision(RESTORED, pixels)
        composed = watch("paste", lambda: framing.compose(row))
        watch("jpeg", lambda: encode(composed, "jpeg", 95, image))
        watch("png", lambda: encode(composed, "png", 95, image))
        return len(faces)


def of_stages(photo: bytes) -> Iterator[str]:
    """A table: the stages of one photo, in each format that it may be written in."""
    stages, watch = Stages(), Stopwatch()
    counts = [stages.run(photo, watch) for _ in range(ROUNDS)]
    shared = {stage: taken for stage, taken in watch.least.items() if stage not in FORMATS}
    yield "| ms of a photo written as | " + " | ".join([*shared, "encode", "all", "target"]) + " |"
    yield "|---" * (len(shared) + 4) + "|"
    for form in FORMATS:
        taken = [*shared.values(), watch.least[form]]
        yield f"| {form}, {counts[0]} faces | " + " | ".join(f"{ms:.0f}" for ms in (*taken, sum(taken), TARGET)) + " |"


def of_worker(photos: Sequence[bytes], folder: Path) -> Iterator[str]:
    """A table: CPU of a whole worker a photo."""
    environment = sleeping_method.install(folder) | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    yield "| All of a worker, written as | ms a photo |"
    yield "|---|---|"
    for form in FORMATS:
        rows = {"id": [str(n) for n in range(len(photos))], "image": [{"bytes": p, "path": None} for p in photos]}
        pq.write_table(pa.table(rows), source := folder / f"{form}.parquet", row_group_size=1, compression="none")
        watched([sys.executable, __file__, "--worker", str(source), form], environment)
        yield f"| {form} | {source.with_suffix('.txt').read_text()} |"


def _measure_worker(source: Path, form: str) -> None:
    taken = engine.of_worker(source, {"preset": "face128", "input": "photos", "format": form, "shard_rows": 1})
    source.with_suffix(".txt").write_text(f"{taken:.0f}")


def of_pasting(faces: Sequence[Image.Image]) -> float:
    """Least CPU milliseconds."""
    scan = np.random.default_rng(0).integers(0, 256, (*SCAN, 3), dtype=np.uint8)
    placed: list[tuple[Uint8Image, Matrix, float]] = []
    for number, face in enumerate(faces):
        turn, place = np.radians(4.0 * number - 14), np.array([500.0 + 950 * number, 600 + 1700 * (number % 2)])
        linear = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
        matrix = np.concatenate([linear, np.reshape(np.full(2, PASTED_SIDE / 2) - linear @ place, (2, 1))], axis=1)
        placed.append((np.array(face), at_scale(matrix, face.width / PASTED_SIDE), 1.0))
    watch = Stopwatch()
    for _ in range(ROUNDS):
        watch("paste", lambda: paste(scan, placed))
    return watch.least["paste"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _measure_worker(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
