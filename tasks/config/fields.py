"""Field types that several run models share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainSerializer, ValidationError, WrapValidator

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


def _whole_or_auto(value: object, validate: Callable[[object], int | str]) -> int | str:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("expected a whole number of at least 1, or auto") from None


BatchSizeAsked = Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], WrapValidator(_whole_or_auto)]


def _similarity_or_auto(value: object, validate: Callable[[object], float | str]) -> float | str:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("expected a similarity above 0 and of at most 1, or auto") from None


SimilarityAsked = Annotated[Annotated[float, Field(gt=0, le=1)] | Literal["auto"], WrapValidator(_similarity_or_auto)]


def _cosine_or_profile(value: object, validate: Callable[[object], float | Profile]) -> float | Profile:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(f"expected a number from -1 to 1, or one of the profiles {', '.join(PROFILES)}") from None


MinIdentity = Annotated[Annotated[float, Field(ge=-1, le=1)] | Profile, WrapValidator(_cosine_or_profile)]


def _factor_or_auto(value: object, validate: Callable[[object], int | str]) -> int | str:
    try:
        return validate(int(value) if isinstance(value, str) and value.isdigit() else value)
    except ValidationError:
        raise ValueError("expected 1, 2, 4 or auto") from None


UpscaleAsked = Annotated[Literal[1, 2, 4, "auto"], WrapValidator(_factor_or_auto)]
