"""What the presets of every method have in common: a name, a size, a licence, weights, options. Imports no torch.

An options class is a frozen dataclass: its fields are the known options, its defaults the preset's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

from bfr_models.errors import unknown
from bfr_models.networks.configs import DetailConfig

OURS = "Apache-2.0"
S_LAB = "S-Lab License 1.0, non-commercial"

Task = Literal["restore", "inpaint"]


def one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    """UsageError, listing what is known, for a value that is not."""
    if value not in known:
        raise unknown(option, value, known)


@dataclass(frozen=True)
class NoOptions:
    """Nothing to choose."""


@dataclass(frozen=True)
class NetworkOptions:
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # of their products; `bfr_models.device.precision_on`

    def __post_init__(self) -> None:
        one_of("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))


@dataclass(frozen=True)
class EstimateOptions(NetworkOptions):
    """Of methods that begin with a regression network's estimate f(y).

    With `self_ensemble` the estimate is the mean of f(y) and of the mirror image of f(mirror image of y) (arXiv
    1511.02228), for a second call. What the network draws by chance differs in the two: the mean is nearer to the
    person, and smoother, which a chain behind it makes up for.
    """

    self_ensemble: bool = False


@dataclass(frozen=True)
class Preset:
    """One size of one method. `weights` names the file of each component (`bfr_models.weights.files`)."""

    name: str
    size: int  # side of the square faces, px
    licence: str
    options: object = NoOptions()
    weights: dict[str, str] = field(default_factory=dict)
    target: str | None = None  # "module:Class" where it is not the method's
    detail: DetailConfig | None = None  # of the network that enlarges a face from half the side
    task: ClassVar[Task] = "restore"

    def implied(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options that follow from those that a user has `given`, unless they are among them."""
        return {}

    def check(self, options: Any) -> None:
        """UsageError for options that this preset's networks cannot do."""


P = TypeVar("P", bound=Preset)


def at_256(face128: P) -> P:
    """A preset's faces at 256 px: its own networks restore what 128 px hold, and one more, which all methods share,
    draws what is finer."""
    weights = face128.weights | {
        "detail": "difface-face256-detail",
        "detail_estimator": "difface-face128-estimator_unet",
    }
    return replace(face128, name="face256", size=2 * face128.size, weights=weights, detail=DetailConfig())
