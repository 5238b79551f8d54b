"""`bfr fid`: the Fréchet distance between two sets of faces, each a dataset, a finished run or saved statistics."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bfr_models.errors import RowError, UsageError
from bfr_models.metrics.extractors import NETWORKS, PREPROCESSING, Extractor, load_extractor
from bfr_models.metrics.frechet import FeatureSource, FeatureStatistics, Gaussian, frechet_distance
from bfr_models.metrics.kernel import kernel_distance
from bfr_models.metrics.manifold import precision_recall
from bfr_models.pixels import Uint8Image
from tasks.datasets.writer import find_image_column, image_bytes
from tasks.images.codec import decode
from tasks.restore_shards import local_device
from tasks.storage.filesystem import redact
from tasks.storage.store import Store, open_source

BATCH_ROWS = 64
AT_ONCE = 64  # batches whose statistics are put together
RESTORED = "restored"


@dataclass(frozen=True, eq=False)
class _Side:
    """One of the two sets, through the network."""

    gaussian: Gaussian
    features: list[NDArray[np.float32]]  # where a metric needs each face
    skipped: int  # rows without a picture that decodes


def measure_distance(
    a: str,
    b: str,
    *,
    features: str = "auto",
    preprocessing: str = "pytorch-fid",
    column: str | None = None,
    kernel: bool = False,
    save: str | None = None,
) -> dict[str, Any]:
    """`{"fid": …}` or `{"fd_<network>": …}` with what it was measured on. `kernel` adds the kernel distance, and the
    precision and recall of A against B; these need datasets on both sides. `save`: where B's statistics go, as .npz."""
    if kernel and (_is_statistics(a) or _is_statistics(b)):
        raise UsageError("expected two datasets for the kernel distance, found saved statistics: it needs each face")
    extractor = load_extractor(features, preprocessing, local_device())
    sides = [_read(url, extractor, column, kernel) for url in (a, b)]
    distance = frechet_distance(*(side.gaussian for side in sides))
    found: dict[str, Any] = {
        distance.name: distance.value,
        "n": list(distance.n),
        "warning": distance.warning,
        "features": vars(extractor.source),
        "a": redact(a),
        "b": redact(b),
        "skipped": [side.skipped for side in sides],
    }
    if kernel:
        x, y = (np.concatenate(side.features) for side in sides)
        near = kernel_distance(x, y, extractor.source)
        overlap = precision_recall(x, y)
        found[near.name] = {"mean": near.mean, "std": near.std, "subsets": near.subsets, "size": near.subset_size}
        found |= {"precision": overlap.precision, "recall": overlap.recall}
    if save is not None:
        store, name = _file(save)
        store.write(name, sides[1].gaussian.to_npz())
    return found


def reference_statistics(url: str, source: FeatureSource) -> Gaussian:
    """A reference set's statistics by the network that `source` names: saved ones, or of a dataset's pictures."""
    if _is_statistics(url):
        return Gaussian.from_npz(_saved(url), source)
    features = next((name for name, network in NETWORKS.items() if network == source.network), "auto")
    extractor = load_extractor(features, source.preprocessing or PREPROCESSING[0], local_device())
    extractor.source.check(source)
    return _read(url, extractor, None, keep=False).gaussian


def _read(url: str, extractor: Extractor, column: str | None, keep: bool) -> _Side:
    if _is_statistics(url):
        return _Side(Gaussian.from_npz(_saved(url), extractor.source), [], 0)
    parts: list[FeatureStatistics] = []
    features: list[NDArray[np.float32]] = []
    skipped = 0
    for key, pictures, without in _batches(url, column):
        found = extractor.extract(pictures)
        parts.append(FeatureStatistics.from_features(found, extractor.source, key))
        if len(parts) == AT_ONCE:
            parts = [FeatureStatistics.fold(parts)]
        if keep:
            features.append(found)
        skipped += without
    return _Side(FeatureStatistics.fold(parts).gaussian(), features, skipped)


def _saved(url: str) -> bytes:
    store, name = _file(url)
    if not store.exists(name):
        raise UsageError(f"expected statistics (.npz) at {redact(url)}, found no such file")
    return store.read(name)


def _batches(url: str, column: str | None) -> Iterator[tuple[str, list[Uint8Image], int]]:
    """(key, faces, rows without one) of some rows at a time."""
    with ThreadPoolExecutor() as threads:
        for store, file in open_source(url):
            with store.open_input(file.path) as source:
                parquet = pq.ParquetFile(source)
                name = column or (RESTORED if RESTORED in parquet.schema_arrow.names else "image")
                find_image_column(parquet.schema_arrow, name)
                for number, batch in enumerate(parquet.iter_batches(BATCH_ROWS, columns=[name])):
                    cells = batch.column(0).to_pylist()
                    pictures = [pixels for pixels in threads.map(_decoded, cells) if pixels is not None]
                    yield f"{file.name}#{number}", pictures, len(cells) - len(pictures)


def _decoded(cell: object) -> Uint8Image | None:
    try:
        return decode(image_bytes(cell)).pixels
    except (RowError, UsageError):
        return None


def _is_statistics(url: str) -> bool:
    return url.endswith(".npz")


def _file(url: str) -> tuple[Store, str]:
    folder, _, name = url.rpartition("/")
    return Store(folder or "."), name
