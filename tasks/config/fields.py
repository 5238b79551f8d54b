"""Field types that several run models share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationError, WrapValidator

from bfr_models.metrics.identity_gates import PROFILES, Profile
from tasks.storage.redaction import without_secrets

OPTION_FLAGS = frozenset({"steps", "sampler", "start_timestep", "eta", "noise", "precision"})
"""The method's own options that have flags; the others are given by `--set options.NAME=VALUE`."""

StoredRedacted = PlainSerializer(lambda url: url and without_secrets(url), when_used="json")


def _absolute(url: str) -> str:
    if not url:
        raise ValueError("expected a path or a URL, found an empty one")
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))


Url = Annotated[str, AfterValidator(_absolute), StoredRedacted]
"""A path or a URL. Paths are made absolute, since workers run in folders of their own. JSON goes to places that keep it
(Prefect, run.json), so secrets are left out there."""


def _told(expected: str) -> WrapValidator:
    """One message for a value that fits none of several types: pydantic has one for each of them."""

    def validated(value: object, validate: Callable[[object], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"expected {expected}") from None

    return WrapValidator(validated)


BatchSizeAsked = Annotated[
    Annotated[int, Field(ge=1)] | Literal["auto"], _told("a whole number of at least 1, or auto")
]
SimilarityAsked = Annotated[
    Annotated[float, Field(gt=0, le=1)] | Literal["auto"], _told("a similarity above 0 and of at most 1, or auto")
]
MinIdentity = Annotated[
    Annotated[float, Field(ge=-1, le=1)] | Profile,
    _told(f"a number from -1 to 1, or one of the profiles {', '.join(PROFILES)}"),
]
UpscaleAsked = Annotated[
    Literal[1, 2, 4, "auto"],
    BeforeValidator(lambda value: int(value) if isinstance(value, str) and value.isdigit() else value),
    _told("1, 2, 4 or auto"),
]
