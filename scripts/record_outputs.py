"""What the commands write, as digests: to show that a change of the code changes no byte of a run.

    python scripts/record_outputs.py --faces faces256.parquet --photos photos.parquet --out before.json
    (check out the other commit)
    python scripts/record_outputs.py --faces faces256.parquet --photos photos.parquet --out after.json
    python scripts/record_outputs.py --compare before.json after.json

Runs pack, degrade, restore (each method; faces and photos; threads and Ray), evaluate, curate, reprocess, fid, score,
verify, explain and report on a few rows in one scratch folder, which both records must share: shard ids depend on the
paths and times of the input files. Left out are times, host names, versions and random names of attempts; inputs that a
command makes for itself (evaluate's pairs) get new shard ids each time, which are left out, too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRATCH = Path(tempfile.gettempdir()) / "bfr-record"
INPUT, RUNS = SCRATCH / "in", SCRATCH / "runs"

VOLATILE = {
    "accelerator_seconds", "attempt", "bytes", "bytes_per_row", "committed", "finished", "machine", "process",
    "seconds", "seconds_per_row", "sha256", "started", "versions", "wall_seconds", "written",
}  # fmt: skip
"""Keys and columns that are new each time. A file's size and digest follow from the column `seconds` in it."""

MASKS = (
    (re.compile(r"-[0-9a-f]{12}(?=\.parquet)"), "-ATTEMPT"),
    (re.compile(r'"[0-9a-f]{32}"'), '"WRITER"'),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00:00|Z| UTC)?"), "TIME"),
    (re.compile(r"\d+(\.\d+)? (s|min|h|ms|faces/s|rows/s)\b"), "DURATION"),
    (re.compile(r'"seconds(_per_row)?": [0-9.e-]+'), "SECONDS"),
)
OWN_INPUT = (
    (re.compile(r"\b[0-9a-f]{20}\b"), "SHARD"),
    (re.compile(r"\b\d+-\d{19}\b"), "VERSION"),
    (re.compile(r'"embedding_sums": \{[^}]*\}'), "SUMS"),  # they name their shard
)
TIMED_TABLES = {"table.md", "table.tex", "table.json", "index.html"}  # of evaluate: they show seconds per face

LOCAL = ("--engine", "local")
FACES = (INPUT / "lq", "--gt-column", "gt", "--shard-rows", 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, help="Parquet of clean aligned faces")
    parser.add_argument("--photos", type=Path, help="Parquet of whole photos")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    args = parser.parse_args()
    if args.compare:
        sys.exit(compare(*(json.loads(path.read_text()) for path in args.compare)))
    if not INPUT.exists():
        make_input(args.faces, args.photos)
    args.out.write_text(json.dumps(record(), indent=2) + "\n")


def make_input(faces: Path, photos: Path) -> None:
    (INPUT / "images" / "sub").mkdir(parents=True)
    table = pq.read_table(faces).slice(0, 6)
    pq.write_table(table, INPUT / "clean.parquet", row_group_size=2)
    pq.write_table(pq.read_table(photos).slice(0, 3), INPUT / "photos.parquet", row_group_size=1)
    for number, row in enumerate(table["image"].to_pylist()[:4]):
        image = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
        image.save(INPUT / "images" / f"{number}.jpg", quality=90, dpi=(300, 300))
        image.convert("L").save(INPUT / "images" / "sub" / f"{number}.png")
    image.save(INPUT / "images" / "pages.tiff", save_all=True, append_images=[image.rotate(90)])
    (INPUT / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    bfr("degrade", INPUT / "clean.parquet", INPUT / "lq", "--size", 128, "--row-group-rows", 2)


def record() -> dict[str, list[str]]:
    """Path below the runs' folder, or command -> digests of what is there."""
    shutil.rmtree(RUNS, ignore_errors=True)
    said = {"pack": bfr("pack", INPUT / "images", RUNS / "pack", "--row-group-rows", 3)}
    said["degrade"] = bfr(
        "degrade", INPUT / "clean.parquet", RUNS / "degrade", "--preset", "difface_test", "--size", 128
    )
    more = ("--metrics", "ms_ssim,niqe", "--keep-input", "--keep-embeddings", *LOCAL)
    said["passthrough"] = restore("passthrough", *FACES, *more)
    for method in ("estimator", "difface", "diffbfr", "clr_face"):
        said[method] = restore(method, *FACES, *LOCAL)
    said["ray"] = restore("difface", *FACES, "--format", "webp", name="ray")
    photos = (INPUT / "photos.parquet", "--input", "photos", "--shard-rows", 1)
    said["photos"] = restore("difface", *photos, "--min-identity", 0.9, *LOCAL, name="photos")
    said["ray_photos"] = restore("estimator", *photos, name="ray_photos")
    methods = ("--methods", "passthrough,estimator", "--degrade", "gfpgan", "--size", 128)
    said["evaluate"] = bfr("evaluate", INPUT / "clean.parquet", RUNS / "evaluate", *methods, *LOCAL)
    finished = RUNS / "passthrough"
    said["curate"] = bfr("curate", finished, RUNS / "curate", "--where", "identity_similarity > 0.5", "--dedupe", 0.99)
    said["folder"] = bfr("curate", finished, RUNS / "folder", "--top-k", 3, "--by", "psnr", "--format", "folder")
    for method in ("passthrough", "estimator"):
        settings = ("--method", method, "--set", "engine=local", "--set", "gt_column=gt")
        said[f"reprocess {method}"] = bfr("reprocess", INPUT / "lq", RUNS / "reprocess", *settings)
    said["fid"] = bfr("fid", finished, RUNS / "estimator")
    said["score"] = bfr("score", INPUT / "lq", RUNS / "score", "--column", "image", "--gt-column", "gt")
    said["verify"] = bfr("verify", RUNS / "difface")
    said["report"] = bfr("report", RUNS / "difface")
    said["done again"] = restore("difface", *FACES, *LOCAL)
    said["mixture"] = restore("difface", *FACES, *LOCAL, "--seed", 5)
    found = defaultdict[str, list[str]](list)
    for path in sorted(RUNS.rglob("*")):
        if path.is_file():
            found[_masked(str(path.relative_to(RUNS)), "evaluate" in path.parts)].append(digest(path))
    spoken = {f"said by {name}": [_sha256(_document(text))] for name, text in said.items()}
    return {name: sorted(digests) for name, digests in found.items()} | spoken


def restore(method: str, source: Path, *words: object, name: str | None = None) -> str:
    return bfr("restore", source, RUNS / (name or method), "--method", method, *words)


def bfr(*words: object) -> str:
    """What a command says on standard output, whatever its exit code, which is part of it."""
    module = "flows.cli.app" if (ROOT / "flows/cli/app.py").exists() else "flows.cli"  # before and after the move
    code = f"import sys; sys.argv[0] = 'bfr'; from {module} import main; main()"
    command = [sys.executable, "-c", code, *map(str, words), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    print(done.returncode, *words, file=sys.stderr, flush=True)
    return f"{done.stdout}\n{done.returncode}"


def digest(path: Path) -> str:
    """A file's content without what is volatile in it; of Parquet also types, metadata and encodings."""
    data, is_own = path.read_bytes(), "evaluate" in path.parts
    if path.suffix == ".parquet":
        return _sha256(_masked(_parquet(data), is_own))
    if path.suffix == ".json":
        return _sha256(_masked(_document(data.decode()), is_own))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return hashlib.sha256(data).hexdigest()
    if path.name in TIMED_TABLES and is_own:
        text = re.sub(r"\d+\.\d\d\b", "NUMBER", text)
    return _sha256(_masked(text, is_own))


def _parquet(data: bytes) -> str:
    file = pq.ParquetFile(io.BytesIO(data))
    table = file.read()
    table = table.drop_columns([name for name in table.column_names if name in VOLATILE])
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    columns = [(g.num_rows, g.column(i).compression, str(g.column(i).encodings)) for g in groups
               for i in range(file.metadata.num_columns)]  # fmt: skip
    schema = file.schema_arrow
    return f"{schema} {schema.metadata} {columns} {json.dumps(table.to_pylist(), default=_plain)}"


def _plain(value: object) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _document(text: str) -> str:
    try:
        document, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        return text
    return json.dumps(_stable(document)) + text[end:]


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        volatile = VOLATILE if "path" in value else VOLATILE - {"sha256"}  # weights have theirs, too
        return {_masked(key): _stable(inner) for key, inner in value.items() if key not in volatile}
    if isinstance(value, list):
        return [_stable(inner) for inner in value]
    return _masked(value) if isinstance(value, str) else value


def _masked(text: str, is_own_input: bool = False) -> str:
    for pattern, name in MASKS + (OWN_INPUT if is_own_input else ()):
        text = pattern.sub(name, text)
    return text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def compare(before: dict[str, list[str]], after: dict[str, list[str]]) -> int:
    """Prints what differs; the exit code."""
    differing = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    print(f"{len(before | after) - len(differing)} equal, {len(differing)} not", *differing, sep="\n  ")
    return 1 if differing else 0


if __name__ == "__main__":
    main()
