"""Inpainting through a run: known pixels stay bit for bit, at any size, and only holes are filled."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from bfr_models.errors import UsageError
from bfr_models.networks.lama import LaMa
from bfr_models.networks.unet import UNet
from bfr_models.pixels import Uint8Image, to_tensor, to_uint8
from bfr_models.registry import load_method, methods
from bfr_models.rng import derive_seed
from bfr_models.types import FaceBatch, NetworkChoice
from bfr_models.weights.tensors import parameters_of, save_weights
from flows.cli.app import app
from flows.restore_dataset import restore_without_prefect
from tasks.config.resolve import resolve_run
from tasks.images.masks import InpaintMask
from tests import support
from tests.bfr_models.methods.conftest import INPAINTER, PRIOR, SIZE


@pytest.fixture(autouse=True)
def small_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`difface`'s inpainting at 16 px, with random weights."""
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "weights"))
    spec = methods()["difface"]
    (preset,) = (p for p in spec.presets if p.name == "inpaint256")
    shrunk = replace(preset, size=SIZE, prior=PRIOR, estimator=INPAINTER)  # type: ignore[call-arg]
    monkeypatch.setitem(methods(), "difface", replace(spec, presets=(spec.presets[0], shrunk)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for component, network in (("estimator", LaMa(INPAINTER)), ("prior", UNet(PRIOR))):
        save_weights(parameters_of(network), {}, tmp_path / "weights" / f"{preset.weights[component]}.safetensors")
    yield
    torch.set_num_threads(threads)


INPAINT = ("--task", "inpaint", "--mask-column", "mask")


def scratch(height: int, width: int) -> InpaintMask:
    """A scratch from edge to edge, one pixel wide at half the height, and a torn corner."""
    holes = np.zeros((height, width), bool)
    holes[height // 2] = True
    holes[: height // 4, : width // 4] = True
    return holes


def mask_of(holes: InpaintMask, mode: str = "L") -> bytes:
    return support.encoded(np.asarray(Image.fromarray(np.uint8(holes) * 255).convert(mode)))


def restored(folder: Path, rows: list[tuple[bytes, bytes | None]], **settings: Any) -> tuple[dict[str, Any], list[Any]]:
    """(run.json, the data rows) of an inpainting run over images and their masks."""
    content = [
        {"id": str(i), "image": {"bytes": data, "path": None}, "mask": mask} for i, (data, mask) in enumerate(rows)
    ]
    support.write_parquet(folder / "src" / "a.parquet", content)
    defaults = {"task": "inpaint", "mask_column": "mask", "options": {"steps": 4}}
    run = support.make_run(folder, "difface", **{**defaults, **settings})
    record = restore_without_prefect(run)
    data = Path(run.destination) / "data"
    return record, support.read_table(data).to_pylist() if any(data.glob("*")) else []


def noise(height: int, width: int) -> Uint8Image:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(SIZE, SIZE), (61, 61), (64, 64), (12, 12), (40, 24), (9, 100)], ids=str)
def test_known_pixels_stay_to_the_last_bit_and_holes_are_filled(height: int, width: int, tmp_path: Path) -> None:
    before, holes = noise(height, width), scratch(height, width)
    before[holes] = (255, 0, 255)
    record, (row,) = restored(tmp_path, [(support.encoded(before), mask_of(holes))])
    after = support.decoded(row["restored"]["bytes"])
    assert (row["height"], row["width"]) == after.shape[:2] == (height, width)
    np.testing.assert_array_equal(after[~holes], before[~holes])
    assert (after[holes] != before[holes]).any(axis=-1).mean() > 0.9
    assert record["method"]["preset"] == "inpaint256"
    assert (record["arguments"]["task"], record["arguments"]["mask_column"]) == ("inpaint", "mask")


def test_the_method_sees_the_mask_of_its_row_and_nothing_else_decides_the_pixels(tmp_path: Path) -> None:
    pictures, all_holes = [noise(SIZE, SIZE), noise(SIZE, SIZE)[::-1]], [scratch(SIZE, SIZE), scratch(SIZE, SIZE).T]
    rows = [(support.encoded(p), mask_of(holes)) for p, holes in zip(pictures, all_holes, strict=True)]
    _, data = restored(tmp_path, rows)
    run = support.make_run(tmp_path, "difface", task="inpaint", mask_column="mask", options={"steps": 4})
    batch = FaceBatch(
        ("0", "1"),
        torch.stack([to_tensor(p) for p in pictures]),
        tuple(derive_seed(0, row_id) for row_id in ("0", "1")),
        torch.stack([torch.from_numpy(holes)[None].float() for holes in all_holes]),
    )
    expected = to_uint8(load_method(resolve_run(run).method).restore(batch).images)
    np.testing.assert_array_equal([support.decoded(row["restored"]["bytes"]) for row in data], expected)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_a_mask_may_be_any_picture_of_another_size_and_the_same_shape(mode: str, tmp_path: Path) -> None:
    before, holes = noise(30, 60), np.zeros((30, 60), bool)
    holes[10:20, 20:40] = True
    half, double = holes[::2, ::2], holes.repeat(2, axis=0).repeat(2, axis=1)
    rows = [(support.encoded(before), mask_of(found, mode)) for found in (holes, half, double)]
    _, data = restored(tmp_path, rows, seed=3)
    for row in data:
        after = support.decoded(row["restored"]["bytes"])
        np.testing.assert_array_equal((after != before).any(axis=-1) & ~holes, False)
        assert (after != before).any(axis=-1)[holes].mean() > 0.9


def test_a_jpeg_masks_grey_fringe_is_cut_at_half(tmp_path: Path) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:4], mask[4:8], mask[8:12] = 255, 128, 127
    before = noise(SIZE, SIZE)
    _, (row,) = restored(tmp_path, [(support.encoded(before), support.encoded(mask))])
    changed = (support.decoded(row["restored"]["bytes"]) != before).any(axis=-1)
    assert not changed[8:].any() and changed[:8].mean() > 0.9


def test_a_row_without_a_mask_that_fits_is_rejected_and_costs_no_other(tmp_path: Path) -> None:
    picture, good = support.encoded(noise(20, 30)), mask_of(scratch(20, 30))
    masks = [good, None, b"", b"broken", mask_of(scratch(30, 20)), mask_of(scratch(20, 32)), good]
    record, data = restored(tmp_path, [(picture, mask) for mask in masks], max_rejects=1.0)
    assert [row["id"] for row in data] == ["0", "6"] and record["rejects"] == {"bad_mask": 5}
    details = [row["detail"] for row in support.read_table(tmp_path / "dst" / "rejected").to_pylist()]
    assert [text.partition("none that fits: ")[2].partition(":")[0] for text in details] == [
        "missing", "undecodable", "undecodable", "bad_mask", "bad_mask",
    ]  # fmt: skip
    assert "expected the shape of 30 x 20, found 20 x 30" in details[3]
    support.assert_whole(tmp_path / "dst", 7)


def test_grey_alpha_and_16_bits_are_kept_where_the_picture_is_known(tmp_path: Path) -> None:
    rng, holes = np.random.default_rng(0), scratch(40, 40)
    grey, alpha = rng.integers(0, 256, (40, 40), np.uint8), rng.integers(0, 256, (40, 40), np.uint8)
    deep = rng.integers(0, 65536, (40, 40, 3), np.uint16)
    translucent = support.encoded(np.dstack([noise(40, 40), alpha]))
    pictures = [support.encoded(grey), translucent, cv2.imencode(".png", deep)[1].tobytes()]
    _, data = restored(tmp_path, [(picture, mask_of(holes)) for picture in pictures])
    first, second = (Image.open(io.BytesIO(row["restored"]["bytes"])) for row in data[:2])
    assert (first.mode, second.mode) == ("L", "RGBA")
    np.testing.assert_array_equal(np.asarray(first)[~holes], grey[~holes])
    np.testing.assert_array_equal(np.asarray(second)[..., 3], alpha)
    third = cv2.imdecode(np.frombuffer(data[2]["restored"]["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert third.dtype == np.uint16 and (third != deep).any()
    np.testing.assert_array_equal(third[~holes], deep[~holes])


class Stranger:
    """A recogniser for which no two faces are alike."""

    name, sha256 = "stranger", "0" * 64

    def embed(self, faces: list[Uint8Image]) -> NDArray[np.float32]:
        return np.random.default_rng(0).normal(size=(len(faces), 64)).astype(np.float32)


def test_a_face_that_lost_its_identity_keeps_its_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.scoring.scorer.load_recogniser", lambda *_: Stranger())
    chosen = NetworkChoice(Stranger.name, Stranger.sha256)
    monkeypatch.setattr("tasks.config.resolve.choose_recogniser", lambda _: chosen)
    before = noise(40, 40)
    _, (row,) = restored(tmp_path, [(support.encoded(before), mask_of(scratch(40, 40)))], min_identity=0.9)
    assert row["faces"][0]["outcome"] == "kept_original: identity below 0.9"
    np.testing.assert_array_equal(support.decoded(row["restored"]["bytes"]), before)


def test_another_task_or_mask_column_is_refused_on_the_same_destination(tmp_path: Path) -> None:
    restored(tmp_path, [(support.encoded(noise(20, 20)), mask_of(scratch(20, 20)))])
    for settings, differs in (
        ({"task": "inpaint", "mask_column": "image"}, 'mask_column: expected "mask", found "image"'),
        ({}, 'task: expected "inpaint", found "restore"'),
    ):
        with pytest.raises(UsageError, match="holds a run with other settings") as refused:
            support.check_run(support.make_run(tmp_path, "difface", options={"steps": 4}, **settings))
        assert differs in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "inpaint"], "expected --mask-column with --task inpaint"),
        (["--mask-column", "mask"], "expected --mask-column with --task inpaint, and only with it"),
        ([*INPAINT, "--input", "photos"], "expected --input faces with --task inpaint"),
        (["--task", "inpaint", "--mask-column", "scratches"], "expected an image column 'scratches', found"),
        ([*INPAINT, "--preset", "face128"], "face128, which is for restore; use inpaint256, or the task restore"),
        (["--preset", "inpaint256"], "inpaint256, which is for inpaint; use face128, or the task inpaint"),
        ([*INPAINT, "--method", "passthrough"], "found passthrough; use difface"),
        (["--task", "colour"], "expected --task restore or inpaint, found 'colour'"),
    ],
)
def test_what_does_not_fit_is_wrong_usage_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str
) -> None:
    monkeypatch.chdir(tmp_path)
    support.write_parquet(tmp_path / "src" / "a.parquet", [{"image": support.make_rows(1)[0]["image"], "mask": b""}])
    result = CliRunner().invoke(
        app, ["restore", "src", "dst", "--engine", "local", "--method", "difface", *arguments, "--json"]
    )
    assert result.exit_code == 2, result.output
    assert message in result.stderr and not (tmp_path / "dst").exists()
