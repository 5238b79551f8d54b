"""Whole photos through a run: which faces are restored, what becomes of the others, and what stays untouched."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from bfr_models.errors import UsageError
from bfr_models.faces.align import align
from bfr_models.pixels import Uint8Image
from flows.restore_dataset import restore_without_prefect
from tasks.worker import windows
from tests import faulty_methods, support
from tests.tiled_photos import TILE, find_tiles, photo

EDGE = 0.15  # of a crop, over which it is blended in


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch, faulty: str) -> str:
    """The name of a method that mirrors faces; they are found by `TileDetector`."""
    support.use_mean_colours(monkeypatch)
    find_tiles(monkeypatch)
    return faulty


def restored(
    folder: Path, pictures: dict[str, bytes], method: str, **settings: Any
) -> tuple[dict[str, Any], list[Any]]:
    """(run.json, the data rows) of a run over encoded photos by id."""
    rows = [{"id": name, "image": {"bytes": data, "path": None}} for name, data in pictures.items()]
    support.write_parquet(folder / "src" / "a.parquet", rows)
    run = support.make_run(folder, method, **{"input": "photos", **settings})
    record = restore_without_prefect(run)
    data = Path(run.destination) / "data"
    return record, support.read_table(data).to_pylist() if any(data.glob("*")) else []


def outcomes(row: dict[str, Any]) -> list[str]:
    return [face["outcome"] for face in row["faces"]]


def inner(pixels: Uint8Image, place: int = 0, columns: int = 3) -> Uint8Image:
    """The part of a tile that is nothing but the restored face."""
    edge = int(EDGE * TILE) + 2
    y, x = TILE * (place // columns), TILE * (place % columns)
    return pixels[y + edge : y + TILE - edge, x + edge : x + TILE - edge]


def test_every_face_is_restored_in_its_place_and_nothing_else_changes(tiles: str, tmp_path: Path) -> None:
    before = photo(1, 2, None, None, 5, None)
    record, (row,) = restored(tmp_path, {"a": support.encoded(before)}, tiles)
    after = support.decoded(row["restored"]["bytes"])
    assert after.shape == before.shape and (row["height"], row["width"]) == before.shape[:2]
    for place, number in ((0, 1), (1, 2), (4, 5)):
        mirrored = inner(support.portrait(number, TILE))[:, ::-1]
        assert np.abs(inner(after, place).astype(int) - mirrored).mean() < 2  # sharp edges ring a little
    kept = np.ones(before.shape[:2], bool)
    for y, x in ((0, 0), (0, TILE), (TILE, TILE)):
        kept[y : y + TILE, x : x + TILE] = False
    np.testing.assert_array_equal(after[kept], before[kept])
    assert outcomes(row) == ["restored"] * 3 and row["faces_found"] == 3
    assert row["faces"][1]["box"] == [TILE, 0, 2 * TILE, TILE] and len(row["faces"][1]["landmarks"]) == 10
    assert row["identity_similarity"] == min(face["identity_similarity"] for face in row["faces"])
    assert record["totals"]["faces"] == 3 and record["outcomes"] == {"restored": 3}
    assert (tmp_path / "dst" / "report" / "index.html").read_text().count("data:image/webp") >= 2


def test_a_photo_without_faces_passes_through_untouched_or_is_rejected(tiles: str, tmp_path: Path) -> None:
    pictures = {"none": support.encoded(photo(None)), "one": support.encoded(photo(3))}
    record, (none, one) = restored(tmp_path, pictures, tiles)
    assert (none["faces"], none["faces_found"], none["identity_similarity"]) == ([], 0, None)
    np.testing.assert_array_equal(support.decoded(none["restored"]["bytes"]), photo(None))
    assert one["faces_found"] == 1 and record["totals"]["faces"] == 1
    record, (one,) = restored(tmp_path, pictures, tiles, reject_no_face=True, destination=str(tmp_path / "strict"))
    assert one["id"] == "one" and record["rejects"] == {"no_face": 1}
    support.assert_whole(tmp_path / "strict", 2)


def test_small_and_supernumerary_faces_are_named_and_left(tiles: str, tmp_path: Path) -> None:
    before = photo(1, 2, 3)
    pictures = {"a": support.encoded(before)}
    for settings, expected in (
        ({"min_face": TILE + 1}, ["skipped: too small"] * 3),
        ({"min_face": TILE}, ["restored"] * 3),
        ({"max_faces": 2}, ["restored", "restored", "skipped: over the cap"]),
    ):
        destination = str(tmp_path / str(settings))
        record, (row,) = restored(tmp_path, pictures, tiles, destination=destination, **settings)
        assert outcomes(row) == expected and row["faces_found"] == 3
        after = support.decoded(row["restored"]["bytes"])
        for place, outcome in enumerate(expected):
            assert np.array_equal(inner(after, place), inner(before, place)) == outcome.startswith("skipped")
        assert record["outcomes"].get("skipped", 0) == sum(name.startswith("skipped") for name in expected)


def test_a_face_that_lost_its_identity_keeps_its_pixels(tiles: str, tmp_path: Path) -> None:
    before = photo(1, None, None)
    before[:TILE, 2 * TILE : 3 * TILE] = 120  # is its own mirror image
    before[:TILE, TILE : 2 * TILE] = 120
    before[:TILE, TILE : TILE + TILE // 2 - 4] = (250, 10, 10)
    _, (row,) = restored(tmp_path, {"a": support.encoded(before)}, tiles, min_identity=0.9)
    assert outcomes(row) == ["restored", "kept_original: identity below 0.9", "restored"]
    after = support.decoded(row["restored"]["bytes"])
    np.testing.assert_array_equal(after[:TILE, TILE : 2 * TILE], before[:TILE, TILE : 2 * TILE])
    assert row["identity_similarity"] == row["faces"][1]["identity_similarity"] < 0.9


@pytest.mark.parametrize("fault", ["raises", "nan", "shrinks"])
def test_a_method_that_fails_on_one_face_costs_only_that_face(
    fault: str, tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.worker import framing

    def named(**fields: Any) -> Any:
        name = fields["id"]
        return made(**{**fields, "id": f"{fault} {name}" if name in ("a#face1", "b#face0") else name})

    made = framing.Face
    monkeypatch.setattr(framing, "Face", named)
    before = {"a": photo(1, 2, 3), "b": photo(4)}
    record, (row,) = restored(tmp_path, {name: support.encoded(p) for name, p in before.items()}, tiles)
    first, second, third = outcomes(row)
    assert (first, third) == ("restored", "restored") and second.startswith("failed: method_failed")
    np.testing.assert_array_equal(inner(support.decoded(row["restored"]["bytes"]), 1), inner(before["a"], 1))
    assert record["rejects"] == {"method_failed": 1}  # of b's faces none could be restored
    support.assert_whole(tmp_path / "dst", 2)


def test_landmarks_that_span_no_face_and_a_detector_that_fails_cost_no_other_face(tiles: str, tmp_path: Path) -> None:
    odd, broken = photo(1, None, 3), photo(1)
    odd[:TILE, TILE : 2 * TILE] = (200, 0, 0)
    broken[0, 0, 0] = 255
    pictures = {"odd": support.encoded(odd), "broken": support.encoded(broken), "good": support.encoded(photo(2))}
    record, (first, second) = restored(tmp_path, pictures, tiles)
    assert [name.partition(":")[0] for name in outcomes(first)] == ["restored", "failed", "restored"]
    assert "bad_landmarks" in outcomes(first)[1] and outcomes(second) == ["restored"]
    assert record["rejects"] == {"detector_failed": 1}


def test_features_name_the_face_by_its_place_among_all_faces_of_the_row(tiles: str, tmp_path: Path) -> None:
    odd = photo(1, None, 3)
    odd[:TILE, TILE : 2 * TILE] = (200, 0, 0)  # its landmarks span no face
    _, (row,) = restored(tmp_path, {"odd": support.encoded(odd)}, tiles, keep_embeddings=True)
    assert [name.partition(":")[0] for name in outcomes(row)] == ["restored", "failed", "restored"]
    features = support.read_table(tmp_path / "dst" / "features")
    assert features["id"].to_pylist() == ["odd"] * 2 and features["face"].to_pylist() == [0, 2]


def test_a_grey_photo_stays_grey_and_an_upright_one_comes_of_a_turned_one(tiles: str, tmp_path: Path) -> None:
    grey = np.repeat(photo(1, 2)[..., 1:2], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a portrait"
    turned = support.encoded(np.rot90(photo(4, 5)), exif=exif, dpi=(300, 300))
    _, rows = restored(tmp_path, {"grey": support.encoded(grey), "turned": turned}, tiles)
    first, second = (Image.open(io.BytesIO(row["restored"]["bytes"])) for row in rows)
    assert first.mode == "L" and outcomes(rows[0]) == ["restored"] * 2
    assert second.size == (photo(4, 5).shape[1], photo(4, 5).shape[0]) and outcomes(rows[1]) == ["restored"] * 2
    assert second.getexif()[0x0112] == 1 and second.getexif()[0x010E] == "a portrait"
    assert second.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_16_bits_alpha_and_profile_are_kept(tiles: str, tmp_path: Path) -> None:
    before = photo(1, None, 3)
    rng = np.random.default_rng(0)
    deep = before.astype(np.uint16) * 257
    deep[-15:] = rng.integers(0, 65536, (15, *deep.shape[1:]))  # levels that no 8 bits have
    deep[:TILE, TILE : 2 * TILE] = 100
    alpha = rng.integers(0, 256, before.shape[:2], dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pictures = {
        "deep": cv2.imencode(".png", deep[..., ::-1])[1].tobytes(),
        "alpha": support.encoded(np.dstack([before, alpha]), icc_profile=profile),
    }
    _, rows = restored(tmp_path, pictures, tiles)
    assert [outcomes(row) for row in rows] == [["restored"] * 2] * 2
    first = cv2.imdecode(np.frombuffer(rows[0]["restored"]["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert first.dtype == np.uint16
    np.testing.assert_array_equal(first[-15:], deep[-15:])
    np.testing.assert_array_equal(first[:TILE, TILE : 2 * TILE], deep[:TILE, TILE : 2 * TILE])
    assert (inner(first, 0) != inner(deep, 0)).any()
    second = Image.open(io.BytesIO(rows[1]["restored"]["bytes"]))
    assert second.mode == "RGBA" and second.info["icc_profile"] == profile
    np.testing.assert_array_equal(np.asarray(second)[..., 3], alpha)
    np.testing.assert_array_equal(np.asarray(second)[TILE:, :, :3], before[TILE:])


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 1}, {"batch_size": 3}, {"shard_rows": 12}, {"window": 1}, {"threads": 1}, {"threads": 7}],
)
def test_bytes_depend_on_neither_batches_nor_shards_nor_memory_nor_threads(
    settings: dict[str, Any], tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [(1, 2, 3, 4), (5,), (), (6, 7), (8, None, 9, 10, 11), (12,), (13,), (14, 15)]
    pictures = {f"photo {i}": support.encoded(photo(*some or (None,))) for i, some in enumerate(numbers)}
    _, expected = restored(tmp_path, pictures, tiles)
    settings = dict(settings)
    monkeypatch.setattr(windows, "WINDOW_PIXELS", settings.pop("window", windows.WINDOW_PIXELS))
    threads = settings.pop("threads", 2)
    monkeypatch.setattr("tasks.worker.restore_rows.os.cpu_count", lambda: threads)
    _, found = restored(tmp_path, pictures, tiles, destination=str(tmp_path / "other"), **settings)
    for row in (*expected, *found):
        del row["seconds"]
    assert found == expected


def test_seeds_of_faces_differ_and_do_not_depend_on_the_other_settings(
    tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: dict[str, set[int]] = {}
    restore = faulty_methods.Faulty.restore

    def noting(self: Any, batch: Any) -> Any:
        for name, seed in zip(batch.ids, batch.seeds, strict=True):
            seeds.setdefault(name, set()).add(seed)
        return restore(self, batch)

    monkeypatch.setattr(faulty_methods.Faulty, "restore", noting)
    for settings in ({}, {"max_faces": 2}, {"batch_size": 1}):
        restored(tmp_path, {"a": support.encoded(photo(1, 2, 3))}, tiles, destination=str(tmp_path / str(settings)))
    assert all(len(some) == 1 for some in seeds.values()) and len(set.union(*seeds.values())) == 3


def test_a_large_scan_is_out_of_memory_before_the_next_comes_in(
    tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.worker import open_rows, restore_rows

    events: list[str] = []
    decode, encode = open_rows.decode, restore_rows.encode
    monkeypatch.setattr(windows, "count_pixels", lambda data: 108_000_000)
    monkeypatch.setattr(open_rows, "decode", lambda *a: events.append("in") or decode(*a))
    monkeypatch.setattr(restore_rows, "encode", lambda *a: events.append("out") or encode(*a))
    pictures = {str(i): support.encoded(photo(i)) for i in range(4)}
    restored(tmp_path, pictures, tiles, shard_rows=2, batch_size=8)  # two shards are in hand at the same time
    assert events == ["in", "out"] * 4


@pytest.mark.long
def test_two_hundred_real_faces_in_one_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dlib")
    hopper = Path(pytest.importorskip("matplotlib").get_data_path(), "sample_data", "grace_hopper.jpg")
    collins = Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png"
    from bfr_models.faces.dlib_models import DlibDetector

    detector, heads = DlibDetector(), []
    for path in (hopper, collins):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        crop, _ = align(pixels, detector.detect(pixels)[0].landmarks, detector.template, 180)
        heads.append(crop[40:160, 30:150])
    crowd = np.concatenate([np.concatenate([heads[(x + y) % 2] for x in range(20)], axis=1) for y in range(10)])
    record, (row,) = restored(tmp_path, {"crowd": support.encoded(crowd)}, "passthrough")
    assert row["faces_found"] == 200 and record["outcomes"] == {"restored": 200}
    assert record["totals"]["faces"] == 200


def test_runs_of_faces_and_of_photos_do_not_mix(tiles: str, tmp_path: Path) -> None:
    restored(tmp_path, {"a": support.encoded(photo(1))}, tiles)
    for settings in ({"input": "faces"}, {"min_face": 40}, {"max_faces": 3}, {"reject_no_face": True}):
        with pytest.raises(UsageError, match="holds a run with other settings"):
            support.check_run(support.make_run(tmp_path, tiles, **{"input": "photos", **settings}))


@pytest.mark.parametrize(
    "settings", [{"input": "photos", "gt_column": "gt"}, {"input": "photos", "detector_weights": "here.pth"}]
)
def test_settings_that_cannot_be_kept_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected no"):
        support.make_run(tmp_path, **settings)


def test_a_detector_without_weights_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "none"))
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    run = support.make_run(tmp_path, input="photos", detector="retinaface")
    with pytest.raises(UsageError, match="bfr weights fetch facexlib"):
        support.check_run(run)
    with pytest.raises(UsageError, match=r"none that read.*No such file"):
        support.check_run(run.model_copy(update={"detector_weights": str(tmp_path / "none.pth")}))
