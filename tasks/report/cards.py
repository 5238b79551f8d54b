"""What the gallery of a report shows of one face, or of one row of several runs: pictures side by side, and facts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bfr_models.metrics.identity_scale import DOUBTFUL
from tasks.report.page import finite
from tasks.report.pictures import Shown, image_uri

MAX_CARDS, MAX_TILES = 48, 240
IMAGE_BYTES = 3_900_000  # of all pictures of the gallery; base64 turns them into 5.2 MB
INPUT, TRUTH = "input", "gt"


@dataclass(frozen=True)
class Tile:
    """One picture of a card; without one, `caption` is the reason."""

    column: str  # "input", "gt" or a method's name
    picture: Shown | None
    caption: str = ""


@dataclass(frozen=True)
class Place:
    """Where a face is in its photo: the photo's number on the page, and the box in shares of its width and height."""

    photo: int
    box: tuple[float, float, float, float]  # x, y, width, height


@dataclass(frozen=True)
class Card:
    """One face of a run, or one row that several runs have restored."""

    id: str
    tiles: Sequence[Tile]
    face: int | None = None
    outcome: str | None = None  # as in the column `faces`
    word: str | None = None  # what the identity similarity says
    facts: Sequence[tuple[str, str]] = ()
    numbers: dict[str, float | None] = field(default_factory=dict)  # to sort by
    place: Place | None = None

    @property
    def anchor(self) -> str:
        """The same each time the report is made: links to it stay good."""
        digest = hashlib.sha256(self.id.encode("utf-8", "surrogatepass")).hexdigest()[:10]
        return f"face-{digest}" + ("" if self.face is None else f"-{self.face}")

    @property
    def is_doubtful(self) -> bool:
        return self.word == DOUBTFUL


@dataclass(frozen=True)
class Photo:
    """A whole photo, small; faces of several cards may be in it."""

    id: str
    picture: Shown


@dataclass(frozen=True)
class Hero:
    """A whole photo before and after, large, and the boxes of its faces, as in `Place`."""

    id: str
    before: Shown
    after: Shown
    caption: str
    boxes: Sequence[tuple[float, float, float, float]] = ()


@dataclass(frozen=True)
class Cell:
    """One encoded image of a row of several runs (PNG, JPEG, WebP, ...); None shows the caption as the reason."""

    column: str
    image: bytes | None
    caption: str  # e.g. "identity 0.93 · 24.1 dB"
    identity: float | None = None  # the number in the caption, in [-1, 1]


@dataclass(frozen=True)
class GalleryRow:
    """The images of one row of the dataset."""

    id: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Reject:
    """A row that could not be restored: `error` is a stable code, `detail` is for people."""

    id: str
    error: str
    detail: str
    picture: Shown | None = None


def tile_budget(cards: int, columns: int) -> int:
    """Bytes that each picture may have, so that all fit."""
    return IMAGE_BYTES // max(cards * columns, 1)


def room(columns: int) -> int:
    """How many cards with so many pictures each fit on a page."""
    return max(min(MAX_CARDS, MAX_TILES // max(columns, 1)), 1)


def cards_of(rows: Sequence[GalleryRow]) -> list[Card]:
    """The cards of rows that several runs have restored: as many as fit, those of lowest identity among them."""
    columns = in_order(cell.column for row in rows for cell in row.cells)
    lowest = [min((x for cell in row.cells if (x := finite(cell.identity)) is not None), default=2.0) for row in rows]
    order = sorted(range(len(rows)), key=lambda row: (lowest[row], row))
    few = order[: max(room(len(columns)) // 4, 1)]
    taken = sorted([*few, *(row for row in range(len(rows)) if row not in few)][: room(len(columns))])
    budget = tile_budget(len(taken), len(columns))
    return [_card(rows[row], columns, lowest[row], budget) for row in taken]


def in_order(columns: Iterable[str]) -> list[str]:
    """Each column once: the input first, then the methods in their order, then the ground truth."""
    return sorted(dict.fromkeys(columns), key=lambda name: (name != INPUT, name == TRUTH))


def _card(row: GalleryRow, columns: Sequence[str], lowest: float, budget: int) -> Card:
    cells = {cell.column: cell for cell in row.cells}
    tiles = [whole_tile(cells.get(name, Cell(name, None, "not in this row")), budget) for name in columns]
    return Card(row.id, tiles, numbers={"identity": lowest if lowest <= 1 else None})


def whole_tile(cell: Cell, budget: int) -> Tile:
    """The tile of a whole picture. One that does not decode costs only its own place."""
    if cell.image is None:
        return Tile(cell.column, None, cell.caption)
    try:
        return Tile(cell.column, image_uri(cell.image, budget), cell.caption)
    except Exception as error:  # Pillow can raise anything, and no image may cost the page
        return Tile(cell.column, None, why_not_shown(error))


def why_not_shown(error: Exception) -> str:
    return str(error) if type(error) is ValueError else f"this picture cannot be decoded ({type(error).__name__})"
