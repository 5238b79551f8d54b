"""The same faces by the same networks: `bfr restore`, the plain script of the field, and a Ray Data pipeline.

    python benchmarks/peers.py --data faces512.parquet --method estimator --faces 102

`loop` is what a public script does: one picture at a time, decoded by Pillow, restored in float32, written as a PNG.
`ray data` reads the Parquet file, restores batches in a pool of one actor (`map_batches`), and writes Parquet; it needs
pandas (`pip install 'ray[data]'`), and is left out without, with a line that says so. `bfr` judges nothing and scores
nothing here, as they do not. Wall and CPU seconds are of whole processes, from start to end; memory is the highest sum
over all of them, in which what they share counts once. On a machine that does other things, too, believe the CPU
seconds. Writes results/peers.md.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import engine
import numpy as np
import pyarrow.parquet as pq
from header import header
from PIL import Image
from watching import Taken, watched

RESULTS = Path(__file__).parent / "results"
PRESET, SIZE, BATCH = "face128", 128, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of aligned faces")
    parser.add_argument("--methods", default="estimator,difface")
    parser.add_argument("--faces", default="102", help="how many, as 102,1000")
    args = parser.parse_args()
    if not _has_ray_data():
        print("Ray Data is left out: expected pandas beside Ray, found none; pip install 'ray[data]'", file=sys.stderr)
    lines = ["| method | faces | by | wall s | CPU s | memory MiB | faces/s |", "|---|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        for count in map(int, args.faces.split(",")):
            source = engine.write_faces(args.data, Path(scratch) / f"{count}.parquet", SIZE, "png", count)
            for method in args.methods.split(","):
                for name, command in _commands(source, method, Path(scratch)).items():
                    lines.append(_line(method, count, name, watched(command)))
                    print(lines[-1], flush=True)
    text = header() + " ".join(__doc__.split("\n\n")[2].split()) + "\n\n" + "\n".join(lines) + "\n"
    (RESULTS / "peers.md").write_text(text)


def _commands(source: Path, method: str, scratch: Path) -> dict[str, list[str]]:
    bfr = [sys.executable, "-c", "from flows.cli.main import main; main()"]
    plain = ["--max-harm", "1", "--recogniser", "none", "--fid", "none", "--lpips", "none", "--input", "faces"]
    commands = {"loop": [sys.executable, __file__, "--peer", "loop", str(source), method, str(scratch / "loop")]}
    if _has_ray_data():
        out = scratch / f"data-{method}-{source.stem}"
        commands["ray data"] = [sys.executable, __file__, "--peer", "ray data", str(source), method, str(out)]
    for name in ("local", "ray"):
        out = scratch / f"{name}-{method}-{source.stem}"
        restore = [*bfr, "restore", str(source), str(out), "--method", method, "--preset", PRESET, "--engine", name]
        commands[f"bfr {name}"] = [*restore, *plain]
    return commands


def _has_ray_data() -> bool:
    return find_spec("ray") is not None and find_spec("pandas") is not None


def _line(method: str, count: int, name: str, taken: Taken) -> str:
    figures = (f"{taken.wall:.1f}", f"{taken.cpu:.1f}", f"{taken.memory / 2**20:.0f}", f"{count / taken.wall:.1f}")
    return "| " + " | ".join((method, str(count), name, *figures)) + " |"


class Restored:
    """A method as both peers use it."""

    def __init__(self, method: str) -> None:
        from bfr_models.registry import load_method, resolve_method

        self._restorer = load_method(resolve_method(method, PRESET), "cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows with an `image` and an `id` each, as Ray Data gives them; the images restored."""
        import torch

        from bfr_models.pixels import to_tensor, to_uint8
        from bfr_models.types import FaceBatch

        pixels = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in batch["image"]]
        ids = tuple(str(name) for name in batch["id"])
        faces = FaceBatch(ids, torch.stack([to_tensor(face) for face in pixels]), tuple(range(len(ids))))
        return {"id": list(ids), "restored": [_png(face) for face in to_uint8(self._restorer.restore(faces).images)]}


def _png(face: Any) -> bytes:
    Image.fromarray(face).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def _loop(source: str, method: str, out: str) -> None:
    restored, folder = Restored(method), Path(out)
    folder.mkdir(exist_ok=True)
    for row in pq.read_table(source).to_pylist():
        found = restored({"id": [row["id"]], "image": [row["image"]]})
        (folder / f"{row['id']}.png").write_bytes(found["restored"][0])


def _ray_data(source: str, method: str, out: str) -> None:
    import ray

    data = ray.data.read_parquet(source)
    data.map_batches(Restored, fn_constructor_args=(method,), batch_size=BATCH, concurrency=1).write_parquet(out)


PEERS: dict[str, Callable[[str, str, str], None]] = {"loop": _loop, "ray data": _ray_data}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        PEERS[sys.argv[2]](*sys.argv[3:6])
    else:
        main()
