"""The judge with its network loaded: what a candidate would be worth, and what is wrong with a face."""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, exp, sqrt

import numpy as np
import torch
from torch import Tensor

from bfr_models.errors import BfrError
from bfr_models.judge.decision import JUDGE, curve_of, harm_limit
from bfr_models.judge.network import VIEW, JudgeNetwork, Outputs
from bfr_models.judge.verdict import Damage, Verdict
from bfr_models.pixels import Uint8Image, resize, to_tensor
from bfr_models.types import NetworkChoice
from bfr_models.weights.files import read_card, require_weight
from bfr_models.weights.tensors import load_weights


class Judge:
    """Predicts, from a face and what would take its place, whether that is nearer to the unknown clean face."""

    def __init__(self, choice: NetworkChoice, device: str = "cpu") -> None:
        """BfrError if the weights here are not the chosen ones."""
        path = require_weight(JUDGE)
        card = read_card(path)
        if card["sha256"] != choice.sha256:
            raise BfrError(
                f"expected the judge {choice.sha256}, found {card['sha256']}; every machine needs the same file"
            )
        network = JudgeNetwork()
        load_weights(network, path)
        self._network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._device, self._curve = device, curve_of(card)
        self._calibration: Sequence[Sequence[float]] = card["calibration"]

    def harm_limit(self, max_harm: float) -> float:
        """The `Verdict.harm` up to which a face may be replaced; see `decision.harm_limit`."""
        return harm_limit(self._curve, max_harm)

    def compare(self, faces: Sequence[Uint8Image], candidates: Sequence[Uint8Image]) -> list[Verdict]:
        """A verdict on each candidate. `faces` are square crops at the photo's own scale (their side is the face's
        size), each with one candidate of any size, which is seen as it would look in the photo."""
        seen = torch.stack([view(c, len(face)) for face, c in zip(faces, candidates, strict=True)])
        return [self._verdict(*of) for of in self._predictions(faces, seen)]

    def assess(self, faces: Sequence[Uint8Image]) -> list[Damage]:
        """What is wrong with each face, and what a restored one would be worth."""
        return [
            Damage(max(0.0, blur), max(0.0, noise * 10), min(max(0.0, compression), 1.0), self._verdict(*verdict))
            for *verdict, blur, noise, compression in self._predictions(faces, None, damage=True)
        ]

    @torch.inference_mode()
    def _predictions(
        self, faces: Sequence[Uint8Image], candidates: Tensor | None, *, damage: bool = False
    ) -> list[list[float]]:
        views = torch.stack([view(face, len(face)) for face in faces])
        side = torch.tensor([float(len(face)) for face in faces])
        found = self._run(views, candidates, side)
        named = [found.gain, found.log_spread, found.identity_gain]
        named += [found.blur, found.noise, found.compression] if damage else []
        rows: list[list[float]] = torch.stack(named, dim=1).double().cpu().tolist()
        return rows

    def _run(self, views: Tensor, candidates: Tensor | None, side: Tensor) -> Outputs:
        def there(x: Tensor) -> Tensor:
            return x.to(self._device, memory_format=torch.channels_last)

        outputs: Outputs = self._network(
            there(views), None if candidates is None else there(candidates), side.to(self._device)
        )
        return outputs

    def _verdict(self, gain: float, log_spread: float, identity_gain: float) -> Verdict:
        spread = exp(log_spread)
        raw = erfc(gain / spread / sqrt(2)) / 2  # of a normal distribution: its share below 0
        limits, shares = zip(*self._calibration, strict=True)
        return Verdict(gain, spread, float(np.interp(raw, limits, shares)), identity_gain)


def view(image: Uint8Image, side: int) -> Tensor:
    """(3, VIEW, VIEW) in [-1, 1]: `image` as it looks in a photo where it is `side` px wide."""
    seen = resize(to_tensor(image)[None], min(side, VIEW)).clamp(-1, 1)
    return resize(seen, VIEW)[0].clamp(-1, 1)
