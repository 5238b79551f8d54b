"""One side of a Fréchet distance: the images of a dataset through a network, or saved statistics."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bfr_models.device import local_device
from bfr_models.errors import RowError, UsageError
from bfr_models.metrics.extractors import NETWORKS, PREPROCESSING, Extractor, load_extractor
from bfr_models.metrics.frechet import INCEPTION, FeatureSource, FeatureStatistics, Gaussian
from bfr_models.pixels import Uint8Image
from tasks.datasets.image_column import find_image_column, image_bytes
from tasks.datasets.row_groups import batches, opened_parquet, values
from tasks.images.codec import decode
from tasks.runs.source import open_source
from tasks.storage.filesystem import split_file
from tasks.storage.redaction import redact
from tasks.storage.store import Store

BATCH_ROWS = 64
AT_ONCE = 64  # batches whose statistics are held before they are folded into one
RESTORED = "restored"  # the column of a run; other datasets have "image"


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two sets, after the network."""

    gaussian: Gaussian
    features: list[NDArray[np.float32]]  # empty unless a metric needs each face
    skipped: int  # rows without an image that decodes


def require_reference(url: str) -> None:
    """UsageError unless there is a reference set: saved statistics that read, or a dataset."""
    if is_saved(url):
        _saved(url)
    else:
        open_source(url)


def reference_statistics(url: str, source: FeatureSource) -> Gaussian:
    """The statistics of a reference set by the network that `source` names: saved, or computed from its images."""
    if is_saved(url):
        return _saved(url, source)
    features = next((name for name, network in NETWORKS.items() if network == source.network), "auto")
    extractor = load_extractor(features, source.preprocessing or PREPROCESSING[0], local_device())
    extractor.source.check(source)
    return read_side(url, extractor, None, keep=False).gaussian


def read_side(
    url: str,
    extractor: Extractor | None,
    column: str | None,
    keep: bool,
    assumed: FeatureSource | None = None,
) -> Side:
    """Reads a set: saved statistics (of the network `assumed`, if they name none), or the images of a dataset, which
    need an `extractor`; `keep` the features of each of them."""
    if is_saved(url):
        return Side(_saved(url, assumed), [], 0)
    assert extractor is not None, "only saved statistics need no network"
    parts: list[FeatureStatistics] = []
    features: list[NDArray[np.float32]] = []
    skipped = 0
    for key, images, without in _batches(url, column):
        _require_faces(images, extractor.source, url)
        found = extractor.extract(images)
        parts.append(FeatureStatistics.from_features(found, extractor.source, key))
        if len(parts) == AT_ONCE:
            parts = [FeatureStatistics.fold(parts)]
        if keep:
            features.append(found)
        skipped += without
    if (faces := sum(part.n for part in parts)) < 2:
        raise UsageError(
            f"expected at least 2 faces in {redact(url)}, found {faces} and {skipped} rows without an image that "
            "decodes; name the right --column, or another dataset"
        )
    return Side(FeatureStatistics.fold(parts).gaussian(), features, skipped)


def _require_faces(images: list[Uint8Image], source: FeatureSource, url: str) -> None:
    """UsageError for photos, of which a recogniser would see neither the face nor its place."""
    if source.network == INCEPTION:
        return
    for height, width in (image.shape[:2] for image in images):
        if height != width:
            raise UsageError(
                f"expected aligned, square faces in {redact(url)}, as {source.network} compares, found an image of "
                f"{width} x {height} px; use `--features inception` for whole photos"
            )


def _saved(url: str, assumed: FeatureSource | None = None) -> Gaussian:
    """Saved statistics. UsageError, which names the file, if there are none that read."""
    store, name = locate(url)
    if not store.exists(name):
        raise UsageError(f"expected statistics (.npz) at {redact(url)}, found no such file")
    try:
        return Gaussian.from_npz(store.read(name), assumed)
    except UsageError as error:
        raise UsageError(f"{redact(url)}: {error}") from None


def _batches(url: str, column: str | None) -> Iterator[tuple[str, list[Uint8Image], int]]:
    """(key, images, number of rows without one) for some rows at a time."""
    with ThreadPoolExecutor() as threads:
        for store, file in open_source(url):
            with opened_parquet(store, file) as parquet:
                name = column or (RESTORED if RESTORED in parquet.schema_arrow.names else "image")
                find_image_column(parquet.schema_arrow, name)
                for number, batch in enumerate(batches(parquet, BATCH_ROWS, [name])):
                    cells = list(values(batch.column(0)))
                    images = [pixels for pixels in threads.map(_decoded, cells) if pixels is not None]
                    yield f"{file.name}#{number}", images, len(cells) - len(images)


def _decoded(cell: object) -> Uint8Image | None:
    try:
        return decode(image_bytes(cell)).pixels
    except (RowError, UsageError):
        return None


def is_saved(url: str) -> bool:
    """Whether the URL is that of saved statistics."""
    return url.endswith(".npz")


def locate(url: str) -> tuple[Store, str]:
    """The folder of a file as a store, and the file's name in it."""
    folder, name = split_file(url)
    return Store(folder), name
