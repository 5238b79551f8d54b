"""Training faces: what is read, what is held out, and items that depend on (seed, i) alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bfr_models.errors import UsageError
from bfr_models.pixels import to_tensor
from bfr_models.training.data import Augmentation, Faces, FaceStream, augment, fixed_pairs, read_faces
from tests.support import decoded, encoded, portrait

STILL = Augmentation(flip=0, rotation=0, scale=0, shift=0, colour=0, grey=0)


def write(path: Path, cells: list[Any], column: str = "image", **others: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: cells, **others}), path)
    return path


def read_face(cell: bytes) -> bytes:
    """A picture of 16 px, as it is kept for training at 8 px."""
    return decoded(cell).tobytes()


def pictures(faces: np.ndarray) -> set[bytes]:
    return {face.tobytes() for face in faces}


@pytest.fixture(scope="module")
def cells() -> list[bytes]:
    return [encoded(portrait(number, 16), "bmp") for number in range(120)]  # the same bytes with every Pillow


class TestReading:
    def test_the_split_is_by_content(self, cells: list[bytes], tmp_path: Path) -> None:
        """Neither order, files nor other faces move a face to the other side, and a copy stays with its face."""
        whole = read_faces(write(tmp_path / "whole.parquet", cells), 8)
        write(tmp_path / "parts" / "b.parquet", cells[:50])
        write(tmp_path / "parts" / "deep" / "a.parquet", cells[:20:-1])
        parts = read_faces(tmp_path / "parts", 8)
        assert (len(whole.train) + len(whole.held_out), len(parts.train) + len(parts.held_out)) == (120, 149)
        assert pictures(parts.train) == pictures(whole.train)
        assert pictures(parts.held_out) == pictures(whole.held_out)
        assert not pictures(whole.train) & pictures(whole.held_out)

    def test_a_twenty_fifth_is_held_out(self, cells: list[bytes], tmp_path: Path) -> None:
        """11 of 256 first bytes are below 0.04: n p = 5.2 of 120, with a deviation of 2.2."""
        held_out = read_faces(write(tmp_path / "faces.parquet", cells), 8).held_out
        assert 0 < len(held_out) <= 5.2 + 4 * 2.2

    def test_people_are_held_out_by_name(self, cells: list[bytes], tmp_path: Path) -> None:
        """All pictures of a person are on one side, in whichever file; the description says who is held out."""
        people = [f"person {number // 2}" for number in range(len(cells))]
        write(tmp_path / "all" / "first.parquet", cells[::2], person=people[::2])
        write(tmp_path / "all" / "second.parquet", cells[1::2], person=people[1::2])
        faces = read_faces(tmp_path / "all", 8)
        shown = {read_face(cell): person for cell, person in zip(cells, people, strict=True)}
        sides = [{shown[face] for face in pictures(side)} for side in (faces.train, faces.held_out)]
        assert not sides[0] & sides[1] and sides[0] | sides[1] == set(people)
        assert faces.description["people_held_out"] == sorted(sides[1])

    def test_faces_are_kept_at_twice_the_size(self, cells: list[bytes], tmp_path: Path) -> None:
        faces = read_faces(write(tmp_path / "faces.parquet", cells), 24)
        assert faces.train.shape[1:] == (48, 48, 3) and faces.train.dtype == np.uint8
        assert faces.description == {
            "dataset": "faces.parquet",
            "train": len(faces.train),
            "held_out": len(faces.held_out),
        }

    def test_cells_may_be_those_of_hugging_face(self, cells: list[bytes], tmp_path: Path) -> None:
        plain = read_faces(write(tmp_path / "plain.parquet", cells), 8)
        dicts = [{"bytes": cell, "path": None} for cell in cells]
        np.testing.assert_array_equal(read_faces(write(tmp_path / "hf.parquet", dicts), 8).train, plain.train)

    def test_nothing_to_read_is_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for path in (tmp_path / "absent.parquet", tmp_path / "absent", tmp_path / "empty"):
            with pytest.raises(UsageError, match=f"expected a Parquet file or a folder of them, found none at {path}"):
                read_faces(path, 8)

    def test_a_file_of_another_kind_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "faces.parquet").write_bytes(b"PK\x03\x04 not Parquet at all")
        with pytest.raises(UsageError, match=r"expected a Parquet file, found something else: .*faces\.parquet"):
            read_faces(tmp_path, 8)

    def test_a_column_that_is_not_there_lists_those_that_are(self, cells: list[bytes], tmp_path: Path) -> None:
        path = write(tmp_path / "faces.parquet", cells, column="hq")
        with pytest.raises(UsageError, match=r"expected a column 'image' of images in .*faces\.parquet, found hq"):
            read_faces(path, 8)
        assert len(read_faces(path, 8, column="hq").train) > 100

    @pytest.mark.parametrize("bad", [b"no picture", None])
    def test_a_cell_that_does_not_decode_names_its_file(self, bad: Any, cells: list[bytes], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"expected images that decode, found one in .*faces\.parquet"):
            read_faces(write(tmp_path / "faces.parquet", [*cells, bad]), 8)

    def test_too_few_faces_are_counted(self, cells: list[bytes], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="at least some 50 faces to train on, found 1 in"):
            read_faces(write(tmp_path / "faces.parquet", cells[:1]), 8)


class TestStream:
    def stream(self, faces: Faces, seed: int = 0, length: int = 100) -> FaceStream:
        return FaceStream(faces.train, 32, ("gfpgan", "difface"), Augmentation(), seed, length)

    @given(index=st.integers(0, 99), seed=st.integers(0, 2**31))
    @settings(max_examples=15)
    def test_an_item_depends_on_the_seed_and_its_number_alone(self, faces: Faces, index: int, seed: int) -> None:
        one = self.stream(faces, seed)[index]
        torch.manual_seed(index)  # whatever else the process draws, and however long the run
        other = self.stream(faces, seed, length=5000)[index]
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    def test_items_and_seeds_differ(self, faces: Faces) -> None:
        items = [self.stream(faces, seed)[i][0] for seed in (0, 1) for i in range(4)]
        assert len({item.numpy().tobytes() for item in items}) == 8

    def test_an_item_is_a_pair_of_8_bit_pictures(self, faces: Faces) -> None:
        gt, lq = self.stream(faces)[0]
        assert gt.shape == lq.shape == (3, 32, 32)
        assert not torch.equal(gt, lq)
        for x in (gt, lq):
            assert x.abs().max() <= 1
            levels = (x + 1) * 127.5
            torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)  # float32 at 255

    def test_without_degradations_the_input_is_the_face_itself(self, faces: Faces) -> None:
        gt, lq = FaceStream(faces.train, 32, (), Augmentation(), 0, 1)[0]
        assert torch.equal(gt, lq)

    def test_held_out_pairs_are_the_same_each_time(self, faces: Faces) -> None:
        first, again = (fixed_pairs(faces.held_out, 32, ("gfpgan", "difface")) for _ in range(2))
        assert first[0].shape == first[1].shape == (len(faces.held_out), 3, 32, 32)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(*first)
        assert torch.equal(*fixed_pairs(faces.held_out, 32, ()))


class TestAugment:
    FACE = to_tensor(portrait(1, 64))

    def view(self, seed: int = 0, **changes: float) -> torch.Tensor:
        return augment(self.FACE, 64, replace(STILL, **changes), np.random.default_rng(seed))

    def test_nothing_to_change_changes_nothing(self) -> None:
        torch.testing.assert_close(self.view(), self.FACE, rtol=0, atol=1e-5)  # sampled at the pixels, in float32

    def test_a_flip_is_a_mirror(self) -> None:
        torch.testing.assert_close(self.view(flip=1.0), self.FACE.flip(-1), rtol=0, atol=1e-5)

    def test_a_grey_face_has_equal_channels(self) -> None:
        view = self.view(grey=1.0)
        assert torch.equal(view[0], view[1]) and torch.equal(view[1], view[2])

    def test_a_toned_face_is_brown_where_it_is_neither_black_nor_white(self) -> None:
        view = self.view(toned=1.0)
        light = self.FACE.mean(0)
        middle = (light > -0.5) & (light < 0.5)
        red, green, blue = view[:, middle]
        assert (red > green).all() and (green > blue).all()
        order = light.flatten().argsort()
        assert (view.flatten(1)[:, order].diff(dim=1) >= -1e-5).all()  # what was lighter is no darker

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(
        "change",
        [{"rotation": 4.0}, {"scale": 0.06}, {"shift": 0.03}, {"colour": 1.0}, {"toned": 1.0}, {"cast": 1.0}],
        ids=str,
    )
    def test_each_range_changes_the_face_and_keeps_it_in_range(self, change: dict[str, float], seed: int) -> None:
        view = self.view(seed, **change)
        assert view.shape == self.FACE.shape and view.abs().max() <= 1
        assert (view - self.FACE).abs().mean() > 1e-3

    def test_a_shift_is_a_share_of_the_side(self) -> None:
        """A dot in the middle of 101 pixels, shifted by 10 percent at most, either way."""
        dot = torch.full((3, 101, 101), -1.0)
        dot[:, 50, 50] = 1.0
        moves = []
        for seed in range(200):
            view = augment(dot, 101, replace(STILL, shift=0.1), np.random.default_rng(seed))[0] + 1
            rows, columns = view.sum(1), view.sum(0)
            moves += [float((weights * torch.arange(101)).sum() / weights.sum()) - 50 for weights in (rows, columns)]
        # of 400 uniform draws one is in the last twentieth of the range, but for a chance of 0.95^400 = 1e-9
        assert 9.0 < max(moves) <= 10.1 and 9.0 < -min(moves) <= 10.1
