"""What enlarges the photo around the faces: a Lanczos filter, or Real-ESRGAN's networks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bfr_models.errors import UsageError
from bfr_models.weights.files import cache_folder, find_weight, read_card

Factor = Literal[2, 4]
FACTORS: tuple[Factor, ...] = (4, 2)


@dataclass(frozen=True)
class BackgroundChoice:
    """The networks, by the factor that each enlarges by: the sha256 of its weights."""

    networks: dict[Factor, str]


def choose_background(name: str, upscale: int | Literal["auto"]) -> BackgroundChoice | None:
    """The networks for `upscale`, with their checksums; None for Lanczos. For factors above 2 both, as a large photo
    may be enlarged less than asked. UsageError, which says how to get them, if their weights are not here."""
    if name == "lanczos":
        return None
    factors = tuple(factor for factor in FACTORS if upscale == "auto" or factor <= upscale)
    found = {factor: find_weight(stem_of(factor)) for factor in factors}
    missing = [stem_of(factor).replace("-", "/") for factor, path in found.items() if path is None]
    if missing:
        raise UsageError(
            f"expected the weights of Real-ESRGAN in {cache_folder()}, found no {' and no '.join(missing)} "
            f"(BSD-3-Clause); fetch them with `bfr weights fetch {' '.join(missing)}`, or use --background lanczos"
        )
    return BackgroundChoice({factor: read_card(path)["sha256"] for factor, path in found.items() if path})


def stem_of(factor: int) -> str:
    """Of the weight file of the network that enlarges by this factor."""
    return f"realesrgan-x{factor}plus"
