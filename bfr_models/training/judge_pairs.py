"""What the judge learns from: faces, the candidates that the methods make of them, and what each is truly worth.

Made by the networks as they are; a judge knows their checksums, and is refused with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bfr_models.faces.candidates import corrected, replaced
from bfr_models.faces.types import Recogniser
from bfr_models.pixels import Uint8Image, as_grey, resize, to_tensor, to_uint8
from bfr_models.training.judge_distances import SIDES, Distances
from bfr_models.training.judge_faces import PhotoFace, photo_face
from bfr_models.types import FaceBatch, Restorer

WITH_GRAIN = 0.7  # share of the faces that get their grain back
BATCH = 8
LARGEST_SEEN = 256  # px
IDENTITY_OF = 5  # identity is compared for one face in this many


@dataclass(frozen=True, eq=False)
class Pair:
    """A face and one candidate, seen at most `LARGEST_SEEN` px wide, and what both are worth."""

    face: Uint8Image
    candidate: Uint8Image
    side: int
    facts: dict[str, Any]  # plain values: who, which method, distances before and after


def make_pairs(
    faces: Uint8Image,
    people: Sequence[str],
    methods: Sequence[tuple[str, Restorer]],
    distances: Distances,
    recognisers: Sequence[Recogniser],
    items: range,
    seed: int,
    is_light: bool = False,
) -> Iterator[Pair]:
    """The pairs of some items, of any damage or of light; item i depends on (seed, i) alone. `faces` is (n, S, S, 3),
    `people` names them; the methods take turns, batch by batch. Identity, which is dear, is compared for a few."""
    for first in range(items.start, items.stop, BATCH):
        numbers = range(first, min(first + BATCH, items.stop))
        name, method = methods[(first // BATCH) % len(methods)]
        drawn = []
        for number in numbers:
            rng = np.random.default_rng((seed, number))
            who = int(rng.integers(len(faces)))
            drawn.append((who, photo_face(faces[who], method.size, rng, is_light), rng))
        images = torch.stack([to_tensor(face.lq) for _, face, _ in drawn])
        batch = FaceBatch(tuple(map(str, numbers)), images, tuple(numbers))
        restored = to_uint8(method.restore(batch).images)
        for number, (who, face, rng), result in zip(numbers, drawn, restored, strict=True):
            facts = {"item": number, "person": people[who], "method": name, "kind": face.kind, "grey": face.is_grey}
            asked = recognisers if number % IDENTITY_OF == 0 else ()
            yield from _pairs(face, as_grey(result) if face.is_grey else result, facts, distances, asked, rng)


def _pairs(
    face: PhotoFace,
    restored: Uint8Image,
    facts: dict[str, Any],
    distances: Distances,
    recognisers: Sequence[Recogniser],
    rng: np.random.Generator,
) -> Iterator[Pair]:
    side = len(face.crop)
    grain_seed = int(rng.integers(2**31)) if rng.random() < WITH_GRAIN else None
    whole = replaced(restored, face.crop, grain_seed)
    candidates = {"replaced": whole, "corrected": corrected(whole, face.crop)}
    seen = {name: _seen(image, side) for name, image in {"kept": face.crop, **candidates}.items()}
    clean = _seen(face.clean, side)
    compared = min(max(side, SIDES[0]), SIDES[1])
    tensors = {name: resize(to_tensor(image)[None], compared)[0].clamp(-1, 1) for name, image in seen.items()}
    found = distances(list(tensors.values()), resize(to_tensor(clean)[None], compared)[0].clamp(-1, 1)).tolist()
    by_name = dict(zip(tensors, found, strict=True))
    similarities = [_similarities(recogniser, seen, clean) for recogniser in recognisers]
    facts = facts | {"side": side, "blur": face.blur, "noise": face.noise, "compression": face.compression}
    for name in candidates:
        worth = {"candidate": name, "grain": grain_seed is not None}
        for i, distance in enumerate(distances.names):
            worth |= {f"{distance}_before": by_name["kept"][i], f"{distance}_after": by_name[name][i]}
        for recogniser, of in zip(recognisers, similarities, strict=True):
            worth |= {f"{recogniser.name}_before": of["kept"], f"{recogniser.name}_after": of[name]}
        yield Pair(seen["kept"], seen[name], side, {**facts, **worth})


def _similarities(recogniser: Recogniser, seen: Mapping[str, Uint8Image], clean: Uint8Image) -> dict[str, float]:
    *vectors, of_clean = recogniser.embed([*seen.values(), clean])
    return {name: float(vector @ of_clean) for name, vector in zip(seen, vectors, strict=True)}


def _seen(image: Uint8Image, side: int) -> Uint8Image:
    """As it looks in a photo where it is `side` px wide."""
    size = min(side, LARGEST_SEEN)
    return image if len(image) == size else to_uint8(resize(to_tensor(image)[None], size)[0])
