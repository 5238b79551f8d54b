"""Runs every benchmark that needs no data but what the packages ship, and writes one page: `make bench`.

    python benchmarks/bench.py [--only engine.py,photos.py]

The faces are the two portraits of `bfr demo`. Sizes are such that all takes less than an hour on two idle cores; for
the figures in the other files of results/, see each benchmark's own command. A benchmark that fails is named, and the
others go on. Writes results/bench.md, and leaves the others' results as they are.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from header import header
from PIL import Image

from bfr_models.faces.align import align
from bfr_models.faces.dlib_models import DlibDetector
from tasks.make_demo_faces import PORTRAITS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SIDE, FACES, LIMIT = 512, 24, 1200  # px, rows of data, seconds that one benchmark may take
DATA = "FACES"
COMMANDS = (
    ("inference.py", "--methods", "estimator,difface", "--batches", "1,8", "--rounds", "4"),
    ("engine.py", "--data", DATA, "--seconds", "30", "--rates", "9,45"),
    ("photos.py", "--data", DATA),
    ("peers.py", "--data", DATA, "--faces", "102"),
    ("engine_overhead.py", "--rows", "10000,50000"),
    ("many_shards.py", "--shards", "2000"),
    ("scaling.py", "--parts", "actors", "--shards", "32", "--seconds", "2"),
    ("feature_statistics.py",),
    ("training_cost.py",),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of benchmarks, with commas")
    args = parser.parse_args()
    only = args.only.split(",") if args.only else [name for name, *_ in COMMANDS]
    parts, failed = [header().rstrip() + f" Load {os.getloadavg()[2]:.1f} over the last 15 minutes.\n"], []
    with tempfile.TemporaryDirectory() as scratch:
        data = portraits(Path(scratch) / "faces.parquet")
        for name, *flags in COMMANDS:
            if name not in only:
                continue
            began = time.monotonic()
            text = result_of([name, *(str(data) if flag == DATA else flag for flag in flags)])
            failed += [] if text else [name]
            took = f"{time.monotonic() - began:.0f} s" if text else "failed"
            parts.append(f"## {name} ({took})\n\n{text or ''}")
            (RESULTS / "bench.md").write_text("\n".join(parts))
    print(RESULTS / "bench.md")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def portraits(path: Path) -> Path:
    """The faces of the two portraits, aligned, over and over."""
    detector, faces = DlibDetector(), []
    for _, package, file in PORTRAITS:
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None, f"expected {package}, which is installed for the tests"
        photo = np.asarray(Image.open(Path(spec.origin).parent / file).convert("RGB"))
        face, _ = align(photo, detector.detect(photo)[0].landmarks, detector.template, SIDE)
        Image.fromarray(face).save(png := io.BytesIO(), "PNG")
        faces.append({"bytes": png.getvalue(), "path": None})
    ids = [str(number) for number in range(FACES)]
    pq.write_table(pa.table({"id": ids, "image": [faces[n % len(faces)] for n in range(FACES)]}), path)
    return path


def result_of(command: list[str]) -> str | None:
    """What a benchmark writes; None if it fails. Its result is then as it was before."""
    results = {path: path.read_bytes() for path in RESULTS.iterdir() if path.is_file()}
    try:
        done = subprocess.run([sys.executable, HERE / command[0], *command[1:]], check=False, timeout=LIMIT)  # noqa: S603
        names = [Path(command[0]).with_suffix(end).name for end in (".md", ".json")]
        found = next((RESULTS / name for name in names if (RESULTS / name).exists()), None)
        return found.read_text() if found and not done.returncode else None
    except subprocess.TimeoutExpired:
        return None
    finally:
        for path in RESULTS.iterdir():
            if path in results:
                path.write_bytes(results[path])
            elif path.is_file():
                path.unlink()


if __name__ == "__main__":
    main()
