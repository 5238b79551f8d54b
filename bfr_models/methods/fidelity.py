"""The fidelity dial: one number from 0 (drawn freely) to 1 (close to what a face shows, or to the regression network's
estimate of it, where a preset's chain starts from it) instead of a method's own options. Imports no torch.

Every preset has a stop at each end of the dial; its own options are the middle, 0.5. In between, an option moves
geometrically, as noise does: twice the timestep hides detail of about twice the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bfr_models.errors import UsageError

MIDDLE = 0.5
"""Where a preset's own options are."""


@dataclass(frozen=True)
class Dial:
    """An option's values at the ends of the dial. `calls` names the option with the network calls of the chain that
    starts at a timestep, where there cannot be more of them than timesteps."""

    free: Mapping[str, float]
    faithful: Mapping[str, float]
    calls: Mapping[str, str] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[str, ...]:
        """The options that it decides."""
        return (*self.free, *self.calls.values())

    def at(self, fidelity: float, own: Any) -> dict[str, Any]:
        """The options at a place between the ends; `own` are the preset's."""
        chosen = {name: self._value(name, fidelity, getattr(own, name)) for name in self.free}
        for start, calls in self.calls.items():
            most = int(chosen[start]) - getattr(own, "start_gap", 0) + 1
            chosen[calls] = min(getattr(own, calls), most)
        return chosen

    def _value(self, name: str, fidelity: float, middle: Any) -> Any:
        end = self.faithful[name] if fidelity > MIDDLE else self.free[name]
        share = abs(fidelity - MIDDLE) / MIDDLE
        value = middle * (end / middle) ** share
        return round(value) if isinstance(middle, int) else round(value, 6)


_STEPS = {"start_timestep": "steps"}
_DIFFBFR_STEPS = {"start_low": "steps", "start_high": "steps_high", "texture_timestep": "steps_texture"}
_DIFFACE128 = Dial(
    free={"start_timestep": 250, "cover": 12.0}, faithful={"start_timestep": 3, "cover": 0.4}, calls=_STEPS
)
_DIFFBFR128 = Dial(
    free={"start_low": 60, "start_high": 250, "cover": 12.0, "flow_share": 1.0, "texture_timestep": 22.0},
    faithful={"start_low": 1, "start_high": 3, "cover": 0.4, "flow_share": 0.1, "texture_timestep": 1.0},
    calls=_DIFFBFR_STEPS,
)
_CLR_FACE128 = Dial(free={"start_time": 0.6, "cover": 4.0}, faithful={"start_time": 0.01, "cover": 0.25})
# The authors' networks continue a little below the noise that they start from (`start_gap`), so not from 2.
_DIFFACE512 = Dial(free={"start_timestep": 800}, faithful={"start_timestep": 40}, calls=_STEPS)

DIALS: Mapping[tuple[str, str], Dial] = {
    ("difface", "face128"): _DIFFACE128,
    ("difface", "face256"): _DIFFACE128,
    ("difface", "ffhq512"): _DIFFACE512,
    ("difface", "ffhq512-mse"): _DIFFACE512,
    ("diffbfr", "face128"): _DIFFBFR128,
    ("diffbfr", "face256"): _DIFFBFR128,
    ("diffbfr", "ffhq512"): Dial(
        free={"start_low": 900, "start_high": 450, "texture_timestep": 225.0},
        faithful={"start_low": 40, "start_high": 20, "texture_timestep": 10.0},
        calls=_DIFFBFR_STEPS,
    ),
    ("clr_face", "face128"): _CLR_FACE128,
    ("clr_face", "face256"): _CLR_FACE128,
    ("clr_face", "ffhq512"): Dial(free={"start_time": 0.8}, faithful={"start_time": 0.1}),
}
"""By method and preset. Those of 512 px keep the ratios of those of 128 px, as far as the chains allow."""


def fidelity_options(
    method: str, preset: str, own: Any, fidelity: float, given: Mapping[str, object]
) -> dict[str, Any]:
    """The options of a method at this `fidelity`, in [0, 1]; at 0.5 they are the preset's `own`.

    UsageError if the preset has no dial, or if the user has `given` one of these options as well.
    """
    if (method, preset) not in DIALS:
        raise UsageError(
            f"expected a method with a fidelity dial, found {method} with {preset}, whose result nothing moves closer "
            f"to the input or away from it; with one: {', '.join(dict.fromkeys(method for method, _ in DIALS))}"
        )
    dial = DIALS[method, preset]
    twice = [name for name in dial.sets if name in given]
    if twice:
        raise UsageError(
            f"expected either fidelity or {', '.join(twice)}, found both: the dial sets {', '.join(dial.sets)}; leave "
            "one of them out"
        )
    return dial.at(fidelity, own)
