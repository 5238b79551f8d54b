"""How careful a run is: which judge decides whether a face is replaced, how sure it has to be, and what is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from bfr_models.errors import UsageError
from bfr_models.judge.decision import choose_judge
from bfr_models.registry import ResolvedMethod
from bfr_models.types import NetworkChoice
from tasks.config.restore import RestoreRun

MAX_HARM = 0.02
"""The share of all faces that may come out worse than they went in, by default."""
CHANGES_NOTHING = "passthrough"
"""A method that needs no judge: the face that it gives is the one that it was given."""


@dataclass(frozen=True)
class Care:
    """What becomes of a face once the method has restored it."""

    judge: NetworkChoice | None = None  # None: every face is replaced
    max_harm: float = 1.0
    min_gain: float = 0.0
    size: Literal["input", "network"] = "network"  # of a face that is an image by itself
    grain: Literal["keep", "clean"] = "clean"
    resize_back: bool = False  # to the input's size before rounding, as DifFace's authors do
    warning: str | None = None  # why nothing is judged, or not as it should be, if nobody asked for that

    @property
    def description(self) -> dict[str, Any]:
        """What changes the output, as plain data. `resize_back` is there only if asked for: older runs lack the key."""
        judged = None if self.judge is None else asdict(self.judge)
        gain = None if self.judge is None else self.min_gain
        back = {"resize_back": True} if self.resize_back else {}
        own = {"judge": judged, "max_harm": self.max_harm, "min_gain": gain, "size": self.size, "grain": self.grain}
        return own | back


def choose_care(run: RestoreRun, method: ResolvedMethod) -> Care:
    """The judge that knows the method's networks, and the limits it is held to. Without one, every face is replaced,
    with a warning; UsageError if fewer were asked for."""
    if run.task == "inpaint":
        _require_no_limit(run, "only restored faces are judged, not filled holes")
        return Care()
    if run.resize_back:
        return Care(size="input", resize_back=True)
    size, judge = run.size or "input", None if run.max_harm == 1 else choose_judge(method)
    if judge is not None:
        limit = MAX_HARM if run.max_harm is None else run.max_harm
        return Care(judge, limit, run.min_gain, size, run.grain or "keep", warning=_uncalibrated(method, limit))
    if run.max_harm == 1 or method.name == CHANGES_NOTHING:
        return Care(size=size, grain=run.grain or "clean")
    unknown = f"no judge here knows the networks of {method.name} {method.preset.name}"
    _require_no_limit(run, unknown)
    warning = (
        f"{unknown}: every face is replaced, even where that makes it worse; look at the faces before you keep them, "
        "use face128 or face256 as they come with the package, or say with --max-harm 1 that this is wanted"
    )
    return Care(size=size, grain=run.grain or "clean", warning=warning)


def _uncalibrated(method: ResolvedMethod, limit: float) -> str | None:
    """The judge has seen what its networks draw with their presets' own options."""
    own: Any = method.preset.options
    no_matter = {name: getattr(own, name) for name in ("precision", "compile") if hasattr(own, name)}
    if replace(method.options, **no_matter) == own:
        return None
    return (
        f"the judge was calibrated with the own options of {method.name} {method.preset.name}: with others more than "
        f"{limit:.0%} of the faces may come out worse; look at some of them before you keep them"
    )


def _require_no_limit(run: RestoreRun, why: str) -> None:
    if run.max_harm is not None and run.max_harm < 1:
        raise UsageError(
            f"expected a judge for --max-harm {run.max_harm:g}, found none: {why}; use --max-harm 1, which replaces "
            "every face, or face128 or face256 as they come with the package"
        )
