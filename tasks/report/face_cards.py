"""Cuts the faces of one row out of its pictures, before and after, at 100 %."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from tasks.report.cards import INPUT, TRUTH, Card, Hero, Photo, Place, Tile, why_not_shown
from tasks.report.identity_words import face_side, face_word
from tasks.report.pictures import LADDER, Box, Shown, opened, shown
from tasks.runs.outcomes import CHANGED, outcome_word

MARGIN = 1.2  # side of the cut-out, in sides of the face square
PHOTO_LADDER, PHOTO_BYTES = ((160, 70), (120, 65)), 7_000
HERO_LADDER, HERO_BYTES = ((1400, 82), (1400, 68), (1000, 65), (700, 60)), 260_000
GONE = "no longer in the source, or more than is read for one page"

Opened = Image.Image | str
"""A picture, or why there is none."""

Wanted = tuple[str, Opened, Callable[[Image.Image], Image.Image]]
"""The column of a tile, its picture, and how the face is cut out of it."""


@dataclass
class Pictures:
    """The encoded images of a row, opened once."""

    input: bytes | None
    restored: bytes | None
    truth: bytes | None = None

    @cached_property
    def before(self) -> Opened:
        return _opened(self.input)

    @cached_property
    def after(self) -> Opened:
        return _opened(self.restored)

    @cached_property
    def gt(self) -> Opened:
        return _opened(self.truth)

    @property
    def factor(self) -> float:
        """By how much the photo was enlarged."""
        both = isinstance(self.before, Image.Image) and isinstance(self.after, Image.Image)
        return self.after.width / self.before.width if both else 1.0  # type: ignore[union-attr]


def _opened(encoded: bytes | None) -> Opened:
    if encoded is None:
        return GONE
    try:
        return opened(encoded)[0]
    except Exception as error:  # Pillow can raise anything, and no image may cost the page
        return why_not_shown(error)


def face_card(
    row: Mapping[str, Any],
    number: int,
    pictures: Pictures,
    columns: Sequence[str],
    budget: int,
    recogniser: str | None,
    photo: int | None,
) -> Card:
    """The card of one face of a row. `photo`: the number of its photo on the page; None if the image is the face."""
    face = row["faces"][number]
    word, is_photo = face_word(face, recogniser), face["landmarks"] is not None
    cuts: list[Wanted] = []
    for column in columns if outcome_word(face["outcome"]) in CHANGED else _one(pictures, columns):
        image = {INPUT: pictures.before, TRUTH: pictures.gt}.get(column, pictures.after)
        factor = pictures.factor if image is pictures.after else 1.0
        cut = (lambda found, factor=factor: found.crop(_around(face, found.size, factor))) if is_photo else _whole
        cuts.append((column, image, cut))
    with ThreadPoolExecutor(len(cuts)) as threads:  # a large picture takes 10 ms and more, several times
        tiles = list(threads.map(lambda each: _tile(each, budget), cuts))
    return Card(
        id=row["id"],
        face=number if is_photo else None,
        tiles=tiles,
        outcome=face["outcome"],
        word=word,
        facts=list(_facts(row, face, word)),
        numbers=_numbers(row, face),
        place=None if photo is None else Place(photo, _share(face["box"], pictures)),
    )


def _one(pictures: Pictures, columns: Sequence[str]) -> Sequence[str]:
    """Of a face that was kept one picture is enough: the input's, or what was written if that is gone."""
    return columns[:1] if isinstance(pictures.before, Image.Image) else columns[1:2]


def _whole(image: Image.Image) -> Image.Image:
    return image


def _tile(wanted: Wanted, budget: int) -> Tile:
    column, image, cut = wanted
    if isinstance(image, str):
        return Tile(column, None, image)
    return Tile(column, shown(cut(image), budget, ladder=LADDER))


def _around(face: Mapping[str, Any], size: tuple[int, int], factor: float) -> Box:
    """A square around a face, inside the picture."""
    x0, y0, x1, y1 = (factor * value for value in face["box"])
    half = max(MARGIN * factor * face_side(face), x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(round(x - half), 0), max(round(y - half), 0)
    right, bottom = min(round(x + half), size[0]), min(round(y + half), size[1])
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _share(box: Sequence[float], pictures: Pictures) -> tuple[float, float, float, float]:
    """A box in shares of the photo's width and height: x, y, width, height."""
    image = pictures.before if isinstance(pictures.before, Image.Image) else pictures.after
    assert isinstance(image, Image.Image), "a photo that is on the page was opened"
    width, height = image.size
    x0, y0, x1, y1 = box
    return x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height


def _facts(row: Mapping[str, Any], face: Mapping[str, Any], word: str | None) -> Iterator[tuple[str, str]]:
    if (identity := face["identity_similarity"]) is not None:
        yield "identity", f"{identity:.3f}" + (f", {word}" if word else "")
    if row.get("identity_similarity_gt") is not None:
        yield "to truth", f"{row['identity_similarity_gt']:.3f}"
    if row.get("psnr") is not None:
        yield "PSNR", f"{row['psnr']:.1f} dB"
    if face.get("gain") is not None:
        yield "gain", f"{face['gain']:.2f} ± {face['gain_spread']:.2f}, risk {face['harm']:.0%}"
    if face["sharpness"] is not None:
        before = face.get("sharpness_input")
        yield "sharpness", (f"{before:.1f} → " if before is not None else "") + f"{face['sharpness']:.1f}"
    box = " ".join(f"{value:.0f}" for value in face["box"])
    yield "face", f"{face_side(face):.0f} px" + (f", box {box}" if face["landmarks"] is not None else "")


def _numbers(row: Mapping[str, Any], face: Mapping[str, Any]) -> dict[str, float | None]:
    before, after = face.get("sharpness_input"), face["sharpness"]
    return {
        "identity": face["identity_similarity"],
        "gain": face.get("gain"),
        "sharpness": None if before is None or after is None else after - before,
        "size": face_side(face),
        "seconds": row.get("seconds"),
    }


def photo_of(row: Mapping[str, Any], pictures: Pictures) -> Photo | None:
    """The photo that the faces of a row are in, small; None if the image is the face itself, or cannot be shown."""
    if not row["faces"] or row["faces"][0]["landmarks"] is None:
        return None
    image = pictures.after if isinstance(pictures.after, Image.Image) else pictures.before
    return None if isinstance(image, str) else Photo(row["id"], shown(image, PHOTO_BYTES, ladder=PHOTO_LADDER))


def hero_of(row: Mapping[str, Any], pictures: Pictures) -> Hero | None:
    """A photo before and after, large; None if either cannot be shown."""
    if isinstance(pictures.before, str) or isinstance(pictures.after, str):
        return None
    before, after = (_large(image) for image in (pictures.before, pictures.after))
    count = len(row["faces"])
    outcomes = ", ".join(outcome_word(face["outcome"]).replace("_", " ") for face in row["faces"][:8])
    said = f"{count} face{'s' if count != 1 else ''}: {outcomes}{', …' if count > 8 else ''}"
    return Hero(row["id"], before, after, said, [_share(face["box"], pictures) for face in row["faces"]])


def _large(image: Image.Image) -> Shown:
    return shown(image, HERO_BYTES, ladder=HERO_LADDER)
