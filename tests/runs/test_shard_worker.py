"""Runs from end to end on threads of this process: what goes in, what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bfr_models.pixels import resize, to_tensor, to_uint8
from bfr_models.rng import derive_seed
from tasks.config.resolve import resolve_run
from tasks.datasets.image_column import IMAGE
from tasks.explain_row import explain_row
from tests import faulty_methods, support
from tests.support import restored

pytestmark = pytest.mark.usefixtures("mean_colours")


def test_other_columns_are_carried_in_their_order_and_names_that_clash_move_aside(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("caption", pa.string()),
            ("image", IMAGE),
            ("width", pa.int64()),
            ("source_width", pa.string()),
            ("tags", pa.list_(pa.int8())),
            ("seed", pa.float64()),
        ]
    )
    rows = support.make_rows(6, caption="c", width=7, source_width="w", tags=[1, 2], seed=0.5)
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, schema=schema)
    _, data = restored(tmp_path)
    assert data.column_names[:5] == ["caption", "source_source_width", "source_width", "tags", "source_seed"]
    assert data.column_names[5:8] == ["id", "restored", "width"]
    assert data.schema.field("tags").type == pa.list_(pa.int8())
    assert data["source_source_width"].to_pylist() == [7] * 6 and data["source_width"].to_pylist() == ["w"] * 6
    assert data["source_seed"].to_pylist() == [0.5] * 6 and data["width"].to_pylist() == [support.SIDE] * 6


def test_rows_keep_their_order_and_their_default_ids_say_where_they_are(tmp_path: Path) -> None:
    for name, first in (("sub/b", 0), ("a", 10)):
        rows = [row | {"n": first + i} for i, row in enumerate(support.make_rows(10, first))]
        support.write_parquet(tmp_path / "src" / f"{name}.parquet", rows)
    _, data = restored(tmp_path)
    assert data["id"].to_pylist() == [f"{name}.parquet#{row}" for name in ("a", "sub/b") for row in range(10)]
    assert data["n"].to_pylist() == [*range(10, 20), *range(10)]
    assert data["seed"].to_pylist() == [derive_seed(0, row_id) for row_id in data["id"].to_pylist()]


def test_ids_may_be_integers_and_need_not_be_unique(tmp_path: Path) -> None:
    rows = [row | {"id": number} for row, number in zip(support.make_rows(6), [3, 1, 3, 2**40, 5, 5], strict=True)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    record, data = restored(tmp_path)
    assert data["id"].to_pylist() == ["3", "1", "3", str(2**40), "5", "5"]
    assert record["totals"]["restored"] == 6
    assert len({row["bytes"] for row in data["restored"].to_pylist()}) == 6


def test_a_column_of_bare_bytes_is_as_good_as_hugging_faces(tmp_path: Path) -> None:
    schema = pa.schema([("image", pa.large_binary())])
    rows = [{"image": row["image"]["bytes"]} for row in support.make_rows(4)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, schema=schema)
    assert restored(tmp_path)[1].num_rows == 4


def test_a_grey_face_stays_grey(faulty: str, tmp_path: Path) -> None:
    grey = np.repeat(support.portrait(0)[..., :1], 3, axis=2)
    rows = support.make_rows(2)
    rows[0]["image"]["bytes"] = support.encoded(grey)
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    out = [support.decoded(row["bytes"]) for row in restored(tmp_path, faulty)[1]["restored"].to_pylist()]
    assert np.ptp(out[0], axis=2).max() == 0 < np.ptp(out[1], axis=2).max()


def test_the_method_sees_a_resized_face_as_it_is_not_rounded_and_not_clipped(
    faulty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = np.indices((60, 60)).sum(axis=0)[..., None] // 10 % 2 * np.full(3, 255)
    support.write_parquet(
        tmp_path / "src" / "a.parquet", [{"image": {"bytes": support.encoded(checks.astype(np.uint8))}}]
    )
    seen: list[Any] = []
    restore = faulty_methods.Faulty.restore
    monkeypatch.setattr(faulty_methods.Faulty, "restore", lambda self, b: seen.append(b.images) or restore(self, b))
    _, data = restored(tmp_path, faulty, size="network")
    expected = resize(to_tensor(checks.astype(np.uint8))[None], faulty_methods.SIZE)
    assert torch.equal(seen[0], expected) and expected.max() > 1.05 and expected.min() < -1.05
    written = support.decoded(data["restored"][0].as_py()["bytes"])
    assert np.array_equal(written, to_uint8(expected.flip(-1))[0])


def test_a_face_that_lost_its_identity_keeps_its_pixels_and_the_row_says_so(faulty: str, tmp_path: Path) -> None:
    even = np.full((96, 96, 3), 120, np.uint8)  # is its own mirror image
    lopsided = even.copy()
    lopsided[:, :48] = (250, 10, 10)
    rows = support.make_rows(2)
    for row, pixels in zip(rows, (even, lopsided), strict=True):
        row["image"]["bytes"] = row["gt"] = support.encoded(pixels)
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    record, data = restored(tmp_path, faulty, min_identity=0.9, gt_column="gt")
    kept, lost = data.to_pylist()
    assert kept["faces"][0]["outcome"] == "restored" and kept["identity_similarity"] == 1
    assert lost["faces"][0]["outcome"] == "kept_original: identity below 0.9" and lost["identity_similarity"] < 0.9
    assert np.array_equal(support.decoded(lost["restored"]["bytes"]), lopsided)
    assert lost["identity_similarity_gt"] == 1 and lost["psnr"] == np.inf
    assert record["statistics"]["identity_similarity"]["min"] == pytest.approx(lost["identity_similarity"])


def test_statistics_and_totals_are_those_of_the_data_columns(faulty: str, tmp_path: Path) -> None:
    rows = [row | {"gt": support.encoded(support.portrait(i + 1))} for i, row in enumerate(support.make_rows(30))]
    rows[3]["gt"] = rows[3]["image"]["bytes"] = support.encoded(np.full((96, 96, 3), 120, np.uint8))  # psnr is inf
    rows[9]["image"]["bytes"] = b"broken"
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    record, data = restored(tmp_path, faulty, gt_column="gt")
    statistics = record["statistics"]
    assert (statistics["n_in"], statistics["n_restored"], statistics["n_rejected"]) == (30, 29, 1)
    for name in ("identity_similarity", "identity_similarity_gt", "psnr", "ssim"):
        values = data[name].to_numpy().astype(np.float64)
        values, found = values[np.isfinite(values)], statistics[name]
        assert found["n"] == len(values) == (28 if name == "psnr" else 29)
        assert (found["min"], found["max"]) == pytest.approx((values.min(), values.max()), rel=1e-6)
        assert found["mean"] == pytest.approx(values.mean(), rel=1e-6)
        assert found["std"] == pytest.approx(values.std(ddof=1), rel=1e-4, abs=1e-7)
        for p in (5, 50, 95):
            low, high = (np.percentile(values, p, method=m) for m in ("lower", "higher"))
            assert low - found["bin_width"] <= found[f"p{p:02d}"] <= high + found["bin_width"]
    assert statistics["fid"]["value"] is None and "Inception" in statistics["fid"]["why"]


def test_without_ground_truth_a_metric_says_why_it_is_not_there(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    record, data = restored(tmp_path)
    assert record["statistics"]["psnr"] == {"value": None, "why": "no ground truth: give --gt-column"}
    assert data["psnr"].to_pylist() == [None, None]


def test_ground_truth_that_does_not_decode_is_said_of_its_row(tmp_path: Path) -> None:
    rows = [row | {"gt": b"broken" if i else row["image"]["bytes"]} for i, row in enumerate(support.make_rows(2))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    assert restored(tmp_path, gt_column="gt")[0]["rejects"] == {"bad_gt": 1}


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 5}, {"shard_rows": 24}])
def test_bytes_depend_on_neither_batches_nor_shards(settings: dict[str, Any], tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(24))
    restored(tmp_path)
    restored(tmp_path, destination=str(tmp_path / "other"), **settings)
    assert support.restored_images(tmp_path / "other") == support.restored_images(tmp_path / "dst")


def test_a_diffusion_gives_equal_bytes_for_equal_batches_and_nearly_equal_ones_for_others(tmp_path: Path) -> None:
    """A convolution sums in an order that may depend on the batch, so other batches may differ in the last bit."""
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(8))
    options = {"steps": 2}
    restored(tmp_path, "difface", options=options, batch_size=4, max_harm=1)
    first = support.restored_images(tmp_path / "dst")
    for name, settings in (("same", {"shard_rows": 8, "batch_size": 4}), ("other", {"shard_rows": 8, "batch_size": 3})):
        restored(tmp_path, "difface", options=options, destination=str(tmp_path / name), max_harm=1, **settings)
    assert support.restored_images(tmp_path / "same") == first
    other = support.restored_images(tmp_path / "other")
    for row_id, data in first.items():
        difference = np.abs(support.decoded(data).astype(int) - support.decoded(other[row_id]))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_the_output_is_a_dataset_that_hugging_face_shows_as_pictures(tmp_path: Path) -> None:
    table = pq.read_table(support.write_parquet(tmp_path / "one.parquet", support.make_rows(4, label=1)))
    feature = {"_type": "ClassLabel", "names": ["young", "old"]}
    noted = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
    (tmp_path / "src").mkdir()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(noted)}), tmp_path / "src" / "a.parquet")
    _, data = restored(tmp_path, keep_input=True)
    features = json.loads(data.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "restored": {"_type": "Image"}, "label": feature}
    assert data.schema.field("restored").type == data.schema.field("image").type == IMAGE
    assert data["image"].to_pylist() == table["image"].to_pylist()
    assert support.decoded(data["restored"][0].as_py()["bytes"]).shape == (support.SIDE, support.SIDE, 3)


def test_a_commit_record_stays_small(tmp_path: Path) -> None:
    rows = [row | {"gt": support.encoded(support.portrait(i + 7))} for i, row in enumerate(support.make_rows(64))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    restored(tmp_path, shard_rows=64, gt_column="gt")
    (commit,) = (tmp_path / "dst" / "commits").glob("*.json")
    assert commit.stat().st_size < 10_000  # a third of it sums of embeddings


def test_a_run_records_what_made_it(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    record, data = restored(tmp_path, seed=5)
    run = support.make_run(tmp_path, seed=5)
    assert record == support.read_record(tmp_path / "dst")
    assert record["method"]["fingerprint"] == resolve_run(run).method.fingerprint == data["fingerprint"][0].as_py()
    assert (record["state"], record["seed"], record["method"]["name"]) == ("complete", 5, "passthrough")
    assert record["recogniser"] == {"name": "mean colours", "sha256": "0" * 64}
    assert (tmp_path / "dst" / "report" / "index.html").stat().st_size > 1000


@pytest.mark.parametrize(("method", "options", "precisions"), [
    ("estimator", {"precision": "auto"}, {"bf16": 4}),
    ("estimator", {}, {"fp32": 4}),
    ("passthrough", {}, {}),
])  # fmt: skip
def test_a_run_says_what_its_networks_computed_in(
    method: str, options: dict[str, str], precisions: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bfr_models.device.multiplies_bf16", lambda: True)
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    record, _ = restored(tmp_path, method, preset="face128", options=options, max_harm=1.0)
    assert record["precisions"] == precisions
    (row,) = explain_row(str(tmp_path / "dst"), "a.parquet#0")
    assert row["precision"] == next(iter(precisions), None)
