"""The judge with its network loaded: what a candidate would be worth, and what is wrong with a face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bfr_models.errors import BfrError
from bfr_models.judge.decision import JUDGE, harm_limits, harm_of, raw_probabilities
from bfr_models.judge.features import Bands, bands
from bfr_models.judge.network import JudgeNetwork, Outputs, features
from bfr_models.judge.verdict import Damage, HarmLimits, Verdict
from bfr_models.pixels import Uint8Image
from bfr_models.types import NetworkChoice
from bfr_models.weights.files import read_card, require_weight
from bfr_models.weights.tensors import load_weights


class Judge:
    """Predicts, from a face and what would take its place, whether that is nearer to the unknown clean face.

    It runs on the CPU, whatever the method's device: what it looks at are statistics of the pixels.
    """

    def __init__(self, choice: NetworkChoice) -> None:
        """BfrError if the weights here are not the chosen ones."""
        path = require_weight(JUDGE)
        card = read_card(path)
        if card["sha256"] != choice.sha256:
            raise BfrError(
                f"expected the judge {choice.sha256}, found {card['sha256']}; every machine needs the same file"
            )
        self._network = JudgeNetwork()
        load_weights(self._network, path)
        self._card = card

    def harm_limits(self, max_harm: float) -> HarmLimits:
        """See `decision.harm_limits`."""
        return harm_limits(self._card, max_harm)

    def compare(self, faces: Sequence[Uint8Image], candidates: Sequence[Uint8Image]) -> list[Verdict]:
        """A verdict on each candidate. `faces` are square crops at the photo's own scale (their side is the face's
        size), each with one candidate of any size, which is seen as it would look in the photo."""
        seen: dict[int, Bands] = {}  # a face may have several candidates
        rows, greys = [], []
        for face, candidate in zip(faces, candidates, strict=True):
            if id(face) not in seen:
                seen[id(face)] = bands(face, len(face))
            own = seen[id(face)]
            rows.append(features(own, bands(candidate, len(face)), len(face)))
            greys.append(own.is_grey)
        return self._verdicts(self._outputs(rows), greys)

    def assess(self, faces: Sequence[Uint8Image]) -> list[Damage]:
        """What is wrong with each face, and what a restored one would be worth."""
        seen = [bands(face, len(face)) for face in faces]
        found = self._outputs([features(own, None, len(face)) for own, face in zip(seen, faces, strict=True)])
        named = torch.stack([found.blur, found.noise * 10, found.compression], dim=-1).mean(dim=0).clamp(min=0)
        verdicts = self._verdicts(found, [own.is_grey for own in seen])
        return [
            Damage(blur, noise, min(compression, 1.0), verdict)
            for (blur, noise, compression), verdict in zip(named.tolist(), verdicts, strict=True)
        ]

    @torch.inference_mode()
    def _outputs(self, rows: Sequence[Tensor]) -> Outputs:
        outputs: Outputs = self._network(torch.stack(list(rows)))
        return outputs

    def _verdicts(self, found: Outputs, greys: Sequence[bool]) -> list[Verdict]:
        gains, spreads = (values.double().numpy() for values in found.together())
        harm = harm_of(self._card, raw_probabilities(gains, spreads), np.array(greys))
        columns = (gains, spreads, harm, found.identity_gain.mean(dim=0).numpy())
        return [Verdict(*row) for row in zip(*(column.tolist() for column in columns), greys, strict=True)]
