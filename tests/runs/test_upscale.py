"""Photos that are written larger: faces keep the network's detail, everything else is the enlarged photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfr_models.errors import UsageError
from bfr_models.faces.types import DetectedFace
from bfr_models.networks.configs import RRDBNetConfig
from bfr_models.networks.rrdbnet import RRDBNet
from bfr_models.pixels import Uint8Image, to_tensor
from bfr_models.upscalers import realesrgan
from bfr_models.upscalers.choice import stem_of
from bfr_models.upscalers.lanczos import enlarge
from bfr_models.upscalers.realesrgan import enlarge_by_tiles
from bfr_models.weights.tensors import parameters_of, save_weights
from tasks.images.codec import decode
from tasks.worker.upscaling import choose_enlargement
from tests import faulty_methods, support
from tests.tiled_photos import TILE, TileDetector, find_tiles, photo

EDGE = int(0.15 * TILE) + 2  # px of a crop over which it is blended in


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch, faulty: str) -> str:
    """The name of a method that mirrors faces; they are found by `TileDetector`, as large as the method's."""
    support.use_mean_colours(monkeypatch)
    find_tiles(monkeypatch)
    return faulty


def restored(folder: Path, photos: dict[str, bytes], method: str, name: str = "dst", **settings: Any) -> list[Any]:
    rows = [{"id": key, "image": {"bytes": data, "path": None}} for key, data in photos.items()]
    support.write_parquet(folder / "src" / "a.parquet", rows)
    run = support.make_run(folder, method, input="photos", destination=str(folder / name), **settings)
    support.finished_run(run)
    return support.read_table(folder / name / "data").to_pylist()


def inner(pixels: Uint8Image, place: int, factor: int = 1) -> Uint8Image:
    y, x = factor * (TILE * (place // 3) + EDGE), factor * (TILE * (place % 3) + EDGE)
    side = factor * (TILE - 2 * EDGE)
    return pixels[y : y + side, x : x + side]


def test_faces_are_pasted_into_the_enlarged_photo(tiles: str, tmp_path: Path) -> None:
    before = photo(1, None, 3)
    (row,) = restored(tmp_path, {"a": support.encoded(before, dpi=(300, 300))}, tiles, upscale="2")
    data = row["restored"]["bytes"]
    after, expected = support.decoded(data), enlarge(before, 2)
    assert decode(data).dpi == pytest.approx((600, 600), abs=0.1)
    assert (row["height"], row["width"]) == after.shape[:2] == expected.shape[:2]
    assert row["note"] == "enlarged 2 x"
    for place, number in ((0, 1), (2, 3)):
        mirrored = enlarge(np.ascontiguousarray(support.portrait(number, TILE)[:, ::-1]), 2)
        wanted = mirrored[2 * EDGE : -2 * EDGE, 2 * EDGE : -2 * EDGE]
        assert np.abs(inner(after, place, 2).astype(int) - wanted).mean() < 2.5
    kept = np.ones(after.shape[:2], bool)
    for x in (0, 4 * TILE):
        kept[: 2 * TILE, x : x + 2 * TILE] = False
    np.testing.assert_array_equal(after[kept], expected[kept])
    assert row["faces"][1]["box"] == [2 * TILE, 0, 3 * TILE, TILE]  # in the input's pixels


class HalfTiles(TileDetector):
    """Finds faces of half a tile."""

    def detect(self, image: Uint8Image) -> list[DetectedFace]:
        found = super().detect(image.repeat(2, axis=0).repeat(2, axis=1))
        return [DetectedFace(face.box, (face.landmarks + 0.5) / 2 - 0.5, face.score) for face in found]


@pytest.mark.parametrize("grain", ["clean", "keep"])
def test_a_small_face_keeps_all_detail_of_the_network(
    grain: str, tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = 60.0 + 100 * (np.indices((TILE, TILE)).sum(axis=0) // 2 % 2)  # diagonals, 2 px wide
    drawn = to_tensor(np.repeat(fine[..., None], 3, axis=2).astype(np.uint8))
    monkeypatch.setattr(faulty_methods.Faulty, "restore", lambda _, b: b.with_images(drawn.expand_as(b.images).clone()))
    monkeypatch.setattr("tasks.worker.restore_rows.load_detector", lambda *_: HalfTiles())
    before = np.ascontiguousarray(photo(1, 2, 3)[::2, ::2])
    (row,) = restored(tmp_path, {"a": support.encoded(before)}, tiles, upscale="auto", grain=grain)
    assert row["note"] == "enlarged 2 x"
    face = support.decoded(row["restored"]["bytes"])[EDGE : TILE - EDGE, EDGE : TILE - EDGE, 0].astype(float)
    assert np.corrcoef(face.ravel(), fine[EDGE : TILE - EDGE, EDGE : TILE - EDGE].ravel())[0, 1] > 0.98


def test_auto_enlarges_until_the_networks_face_is_not_shrunk(tiles: str, tmp_path: Path) -> None:
    photos = {"faces": support.encoded(photo(1, 2)), "none": support.encoded(photo(None))}
    faces, none = restored(tmp_path, photos, tiles, upscale="auto")
    assert faces["note"] is None and none["note"] is None  # as large as the network's already, and no face at all
    image = decode(photos["faces"])
    for sides, factor in (([96, 97], 1), ([60, 96, 200], 1), ([48, 48, 200], 2), ([47], 4), ([10], 4), ([], 1)):
        assert choose_enlargement("auto", sides, 96, image, "png").factor == factor


def test_a_photo_that_would_become_too_large_is_enlarged_less_and_says_so(
    tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.images.codec.MOST_BYTES", 5 * photo(1, 2, 3).size)
    data = {"a": support.encoded(photo(1, 2, 3))}
    (row,) = restored(tmp_path, data, tiles, upscale=4)
    assert row["note"] == "enlarged 2 x: 4 x is too large for one png" and row["width"] == 2 * photo(1, 2, 3).shape[1]


def test_a_network_enlarges_the_background(tiles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"bfr weights fetch realesrgan/x2plus`"):
        support.check_run(support.make_run(tmp_path, tiles, input="photos", upscale=2, background="realesrgan"))
    config = RRDBNetConfig(2, 8, 4, 1)
    monkeypatch.setattr(realesrgan, "RRDBNetConfig", lambda factor: config)
    network = RRDBNet(config).eval()
    sha256 = save_weights(parameters_of(network), {}, tmp_path / "cache" / f"{stem_of(2)}.safetensors")
    before = photo(1, None, 3)
    (row,) = restored(tmp_path, {"a": support.encoded(before)}, tiles, upscale=2, background="realesrgan")
    expected = enlarge_by_tiles(realesrgan._load(config, stem_of(2), sha256), before)
    after = support.decoded(row["restored"]["bytes"])
    np.testing.assert_array_equal(after[:, 2 * TILE : 4 * TILE], expected[:, 2 * TILE : 4 * TILE])
    assert np.abs(inner(after, 0, 2).astype(int) - inner(expected, 0, 2)).mean() > 2  # the method's face, mirrored
    assert row["seconds"] > 0


def test_runs_from_before_and_those_that_enlarge_nothing_are_the_same(tiles: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    run = support.make_run(tmp_path, tiles, input="photos")
    settings = support.check_run(run)
    assert "upscale" not in settings["photos"] and "background" not in settings["photos"]
    assert support.check_run(support.make_run(tmp_path, tiles, input="photos", upscale="1")) == settings
    enlarged_run = support.check_run(support.make_run(tmp_path, tiles, input="photos", upscale="auto"))
    assert enlarged_run["photos"] == settings["photos"] | {"upscale": "auto"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input": "faces", "upscale": 2}, "expected --input photos with --upscale 2, found faces"),
        ({"input": "photos", "upscale": 3}, "expected 1, 2, 4 or auto"),
        ({"input": "photos", "background": "realesrgan"}, "expected --upscale 2, 4 or auto"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        support.make_run(tmp_path, **settings)
