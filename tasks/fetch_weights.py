"""Fetches published weight files into the cache, from their origins or a mirror, once per machine, and checks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from bfr_models.errors import BfrError, UsageError
from bfr_models.weights.catalogue import WeightEntry, entries
from bfr_models.weights.files import check_weight, find_weight, read_card
from tasks.weights.download import Expected, download
from tasks.weights.install import Trust, install, place_for, say, summary
from tasks.weights.origins import Origin, StoreOrigin, WebOrigin

Consent = Callable[[WeightEntry], bool]


class Progress(Protocol):
    """Shows how much of a file has been downloaded; `flows.progress.bars.ByteProgress` is one."""

    def reach(self, done: int) -> None: ...


class _Silent:
    def reach(self, done: int) -> None:
        pass


MakeProgress = Callable[[str, int | None], AbstractContextManager[Progress]]
"""(name, size in bytes if known) -> the display of a download."""


def fetch_weights(
    names: Sequence[str],
    consent: Consent,
    *,
    mirror: str | None = None,
    trust_on_first_use: bool = False,
    progress: MakeProgress = lambda _name, _size: nullcontext(_Silent()),
) -> list[dict[str, Any]]:
    """Fetches the named weights into the cache (`difface/ffhq512` names a group); files that are there are left alone.

    Calls `consent` for each non-commercial file to fetch. Whatever can be refused is refused before the first byte
    (UsageError).
    """
    chosen = {entry.name: entry for name in names for entry in entries(name)}.values()
    here = {entry.name: _present(entry) for entry in chosen}
    todo = [entry for entry in chosen if here[entry.name] is None]
    for entry in todo:
        if entry.by_hand and mirror is None:
            raise UsageError(
                f"expected a mirror for {entry.name}, found none: {entry.origin} is not the file itself; get "
                f"{entry.by_hand} from there by hand and run `bfr weights import {entry.group} {entry.by_hand}`"
            )
    refused = {**_unchecked(todo, trust_on_first_use), **_not_agreed(todo, consent)}
    if refused:
        flags = " ".join(dict.fromkeys(refused.values()))
        raise UsageError(f"{'; '.join(refused)}; then: `bfr weights fetch {' '.join(names)} {flags}`")
    return [here[entry.name] or _fetch(entry, mirror, progress) for entry in chosen]


def _unchecked(todo: Iterable[WeightEntry], trusted: bool) -> dict[str, str]:
    """What is refused for want of a sha256, and the flag that accepts it."""
    unknown = [entry for entry in todo if entry.sha256 is None]
    if trusted or not unknown:
        return {}
    files = ", ".join(f"{entry.name} ({entry.source_file})" for entry in unknown)
    told = (
        f"expected a known sha256 for {files}, found none to check a download against; --trust-on-first-use accepts "
        "the download and records its sha256"
    )
    return {told: "--trust-on-first-use"}


def _not_agreed(todo: Iterable[WeightEntry], consent: Consent) -> dict[str, str]:
    """The licences that nobody has agreed to, and the flag that does."""
    refused = [entry for entry in todo if entry.non_commercial and not consent(entry)]
    names: dict[str, list[str]] = {}
    for entry in refused:
        names.setdefault(f"{entry.licence} ({entry.licence_url})", []).append(entry.name)
    return {
        f"expected consent to the licence of {', '.join(of)}, {licence}, which allows non-commercial use only, found "
        "none; read it and pass --accept-licence": "--accept-licence"
        for licence, of in names.items()
    }


def _present(entry: WeightEntry) -> dict[str, Any] | None:
    """The facts of an entry that is here and intact; None if it is missing or damaged."""
    try:
        path = find_weight(entry.stem)
        if path is None:
            return None
        check_weight(path)
    except BfrError as damage:
        say(str(damage))
        return None
    return {**read_card(path), "path": str(path), "fetched": False}


def _fetch(entry: WeightEntry, mirror: str | None, progress: MakeProgress) -> dict[str, Any]:
    with place_for(entry) as part:
        if here := _present(entry):  # fetched by the process that held the lock before
            return here
        with progress(entry.name, entry.size) as shown:
            expected = Expected(entry.size, entry.sha256)
            sha256 = download(_origin(entry, mirror), part, expected, shown.reach)
        if entry.sha256 is None:
            say(f"{entry.name}: trusted on first use; compare the sha256 in its card, {sha256}, with another source")
        trust: Trust = "trusted on first use" if entry.sha256 is None else "published sha256"
        card = install(entry, part, entry.source_file, sha256, trust)
    return {**summary(card), "fetched": True}


def _origin(entry: WeightEntry, mirror: str | None) -> Origin:
    """Where to get a file; a mirror has it under the publisher's name."""
    if mirror is None:
        return WebOrigin(entry.origin)
    if mirror.startswith(("http://", "https://")):
        return WebOrigin(f"{mirror.rstrip('/')}/{entry.source_file}")
    return StoreOrigin(mirror, entry.source_file)
