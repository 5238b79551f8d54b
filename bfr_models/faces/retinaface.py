"""RetinaFace detection: small faces, turned faces, many in a photo, several photos in one network call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bfr_models.errors import BfrError
from bfr_models.faces.align import scaled
from bfr_models.faces.template import FFHQ_5
from bfr_models.faces.types import DetectedFace
from bfr_models.networks.retinaface import Body, RetinaFace
from bfr_models.pixels import Uint8Image
from bfr_models.weights.tensors import read_checkpoint

MEAN = (104, 117, 123)  # levels of blue, green and red
STRIDES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # of the feature maps, with the sides of their anchors, px
CENTRE_SCALE, SIZE_SCALE = 0.1, 0.2  # units of the network's offsets, in anchor sides
LARGE_FACE = 320  # px on a canvas; the network mistakes parts of larger faces for faces,
FAR_SIDE = 640  # so it looks for those again, with the photo's longer side scaled to this
CANVAS_STEP = 128  # px; canvases are multiples of it, so that many photos share a shape and thus a call
CALL_PIXELS = {"cuda": 4_000_000, "cpu": 1}  # of canvases in one network call; a CPU is faster photo by photo

Boxes = NDArray[np.float32]
"""(n, 4) float32, x0, y0, x1, y1."""


class RetinaFaceDetector:
    """Faces of about 10 px and more, after scaling the photo's longer side to at most `max_side`.

    Small photos are enlarged towards `min_side`, at most `max_upscale` times. Faces below `threshold` are
    dropped, and so is the less sure of two that overlap by more than `overlap` (intersection over union).

    One object serves several threads at once: it keeps nothing but the weights.
    """

    template = FFHQ_5

    def __init__(
        self,
        weights: Path,
        device: str = "cpu",
        *,
        threshold: float = 0.8,
        overlap: float = 0.4,
        max_side: int = 1920,
        min_side: int = 640,
        max_upscale: float = 2.0,
    ) -> None:
        self.threshold, self.overlap = threshold, overlap
        self.max_side, self.min_side, self.max_upscale = max_side, min_side, max_upscale
        self._network = load_network(weights).to(device).eval()
        self._device = torch.device(device)

    def detect(self, image: Uint8Image) -> list[DetectedFace]:
        """The faces of an RGB photo, largest and surest first."""
        return self.detect_all([image])[0]

    def detect_all(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        """The faces of each photo. Photos on canvases of one shape share calls; a large photo is looked at twice."""
        scales = [self._scale(image) for image in images]
        found = self._look(images, scales)
        far = {i: FAR_SIDE / max(image.shape[:2]) for i, image in enumerate(images)}
        far = {i: scale for i, scale in far.items() if scales[i] > 1.5 * scale}
        for i, faces in zip(far, self._look([images[i] for i in far], list(far.values())), strict=True):
            found[i] = _together(found[i], faces, LARGE_FACE / scales[i])
        return [sorted(faces, key=lambda face: face.prominence, reverse=True) for faces in found]

    def look_again(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        """None: what it is less sure of is rarely a face."""
        return [[] for _ in images]

    def _look(self, images: Sequence[Uint8Image], scales: Sequence[float]) -> list[list[DetectedFace]]:
        """The faces of each photo as they are seen at its scale, in its own pixels."""
        found: list[list[DetectedFace]] = [[] for _ in images]
        photos = [scaled(image, scale) for image, scale in zip(images, scales, strict=True)]
        for places in _calls([_canvas_shape(photo) for photo in photos], CALL_PIXELS[self._device.type]):
            results = self._detect_on_canvas([photos[place] for place in places])
            for place, faces in zip(places, results, strict=True):
                back = np.divide(images[place].shape[1::-1], photos[place].shape[1::-1])
                found[place] = [_scaled_back(face, back) for face in faces]
        return found

    def _scale(self, image: Uint8Image) -> float:
        longer = max(image.shape[:2])
        return min(self.max_side / longer, max(1.0, min(self.min_side / longer, self.max_upscale)))

    @torch.inference_mode()
    def _detect_on_canvas(self, photos: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        """The faces of photos on canvases of one shape, each in its photo's own pixels."""
        canvases = torch.stack([_canvas(photo) for photo in photos])
        scores, boxes, landmarks = self._network(canvases.to(self._device))
        anchors = _anchors(*canvases.shape[-2:])
        results = []
        for row, sure in enumerate(scores > self.threshold):
            chosen = [values[row][sure].cpu().numpy() for values in (scores, boxes, landmarks)]
            results.append(list(self._faces(anchors[sure.cpu().numpy()], *chosen)))
        return results

    def _faces(self, anchors: Boxes, scores: Boxes, boxes: Boxes, landmarks: Boxes) -> Iterator[DetectedFace]:
        corners = decode_boxes(anchors, boxes)
        points = anchors[:, None, :2] + CENTRE_SCALE * landmarks.reshape(-1, 5, 2) * anchors[:, None, 2:]
        for i in suppress(corners, scores, self.overlap):
            x0, y0, x1, y1 = corners[i].tolist()
            yield DetectedFace((x0, y0, x1, y1), points[i].astype(np.float64), float(scores[i]))


def decode_boxes(anchors: Boxes, offsets: Boxes) -> Boxes:
    """Boxes by their corners, from (x, y, side, side) anchors and the network's offsets."""
    centres = anchors[:, :2] + CENTRE_SCALE * offsets[:, :2] * anchors[:, 2:]
    halves = anchors[:, 2:] * np.exp(SIZE_SCALE * offsets[:, 2:]) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def suppress(boxes: Boxes, scores: Boxes, overlap: float) -> list[int]:
    """The boxes to keep, surest first: those that overlap no surer one by more than `overlap`."""
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(int(best))
        width = np.minimum(x1[best], x1[left]) - np.maximum(x0[best], x0[left])
        height = np.minimum(y1[best], y1[left]) - np.maximum(y0[best], y0[left])
        shared = width.clip(min=0) * height.clip(min=0)
        left = left[shared <= overlap * (areas[best] + areas[left] - shared)]
    return kept


@lru_cache(maxsize=64)
def _anchors(height: int, width: int) -> Boxes:
    """(n, 4) centre and sides of all anchors of a canvas, px, in the network's order."""
    anchors = []
    for stride, sides in STRIDES.items():
        y, x, side = np.meshgrid(np.arange(height // stride), np.arange(width // stride), sides, indexing="ij")
        anchors.append(np.stack([(x + 0.5) * stride, (y + 0.5) * stride, side, side], axis=-1).reshape(-1, 4))
    return np.concatenate(anchors).astype(np.float32)


def _canvas_shape(photo: Uint8Image) -> tuple[int, int]:
    height, width = (-(-side // CANVAS_STEP) * CANVAS_STEP for side in photo.shape[:2])
    return height, width


def _canvas(photo: Uint8Image) -> Tensor:
    """(3, H, W) blue, green and red minus their means; 0 beside the photo."""
    height, width = photo.shape[:2]
    canvas = torch.zeros((3, *_canvas_shape(photo)))
    bgr = torch.from_numpy(np.ascontiguousarray(photo[..., ::-1].transpose(2, 0, 1)))
    canvas[:, :height, :width] = bgr - torch.tensor(MEAN).view(3, 1, 1)
    return canvas


def _calls(shapes: Sequence[tuple[int, int]], pixels: int) -> Iterator[list[int]]:
    """Which photos go together through the network: of one shape, with at most `pixels` together, or one."""
    places = sorted(range(len(shapes)), key=lambda place: shapes[place])
    for (height, width), group in groupby(places, key=lambda place: shapes[place]):
        together, count = list(group), max(1, pixels // (height * width))
        yield from (together[start : start + count] for start in range(0, len(together), count))


def _together(near: list[DetectedFace], far: list[DetectedFace], limit: float) -> list[DetectedFace]:
    """The faces of two passes over a photo: those of the coarse pass above `limit` px, those of the fine one below."""
    large = [face for face in far if _side(face) > 0.75 * limit]
    small = [face for face in near if _side(face) <= limit and not any(_share(face, other) > 0.5 for other in large)]
    return large + small


def _side(face: DetectedFace) -> float:
    x0, y0, x1, y1 = face.box
    return max(x1 - x0, y1 - y0)


def _share(face: DetectedFace, other: DetectedFace) -> float:
    """How much of a face's box lies in another's."""
    (left, top, right, bottom), (x0, y0, x1, y1) = face.box, other.box
    shared = max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(bottom, y1) - max(top, y0))
    return shared / ((right - left) * (bottom - top))


def _scaled_back(face: DetectedFace, back: NDArray[np.float64]) -> DetectedFace:
    """A face in the pixels of the photo before scaling: pixel centres stay on pixel centres."""
    x0, y0, x1, y1 = (back * (np.reshape(face.box, (2, 2)) + 0.5) - 0.5).flatten().tolist()
    return DetectedFace((x0, y0, x1, y1), back * (face.landmarks + 0.5) - 0.5, face.score)


def load_network(path: Path) -> RetinaFace:
    state = {name.removeprefix("module."): value for name, value in read_checkpoint(path).items()}
    body: Body = "mobilenet0.25" if any(name.startswith("body.stage1") for name in state) else "resnet50"
    network = RetinaFace(body)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BfrError(
            f"expected weights of RetinaFace ({body}) as facexlib has them at {path}, found others: {error}"[:1000]
        ) from None
    return network
