"""Trains the judge: `python -m bfr_models.training.judge --data FACES --retinaface WEIGHTS --out DIR`.

First the pairs are made, by the networks as they are (two hours on one core; what is made is kept in DIR/pairs and not
made again; `--share 1/2` makes every second file of them and nothing else, for several processes side by side), then
the judge learns from them, is calibrated on people held out, and is written with its card. Learning takes minutes, with
all cores; beside another process that computes it takes ten times as long.

After small changes of the networks `--calibrate` is enough, in a quarter of the time: the judge stays as it is, and its
limits are made to hold again, by the pairs of people held out alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bfr_models.errors import exit_code_of
from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.judge.decision import JUDGE, KINDS, harm_of, is_in_doubt, raw_probabilities
from bfr_models.judge.features import bands
from bfr_models.judge.network import MEMBERS, JudgeNetwork, features
from bfr_models.registry import resolve_method
from bfr_models.training.judge_calibration import EQUAL, calibrate, harm_curve, reliability, strictest
from bfr_models.training.judge_data import (
    ALL,
    HELD_OUT,
    MADE_OF,
    TRAIN,
    TURNS,
    Share,
    networks,
    prepare_pairs,
    read_pairs,
    read_people,
)
from bfr_models.training.judge_distances import SIDES, Distances
from bfr_models.training.judge_pairs import Pair
from bfr_models.weights.files import read_card, require_weight
from bfr_models.weights.tensors import load_weights, parameters_of, save_weights

EPOCHS, BATCH, RATE, DECAY = 120, 128, 2e-3, 0.15
WORST = -0.3  # gain: how much worse than that a candidate is makes no difference
OTHERS = (3.0, 0.3, 0.3, 0.3)  # weights of the errors of identity gain, blur, noise and compression


def gain_of(facts: dict[str, Any]) -> float:
    """Share of the distance to the clean face that goes, about [-1, 1]: the weighted mean over the distances."""
    shares = []
    for name in Distances.names:
        before, after = facts[f"{name}_before"], facts[f"{name}_after"]
        shares.append((before - after) / max(before + after, 1e-6))
    return float(np.average(shares, weights=Distances.weights))


@dataclass(frozen=True, eq=False)
class Examples:
    """Pairs as the network takes them: features with and without the candidate, and what is true."""

    pairs: Tensor  # (n, FEATURES)
    alone: Tensor  # (n, FEATURES)
    targets: Tensor  # (n, 5): gain, identity gain, blur, noise, compression; nan where it is not known
    targets_alone: Tensor  # the same, with the gain of the best candidate
    is_grey: NDArray[np.bool_]  # (n,)


def examples_of(pairs: Sequence[Pair]) -> Examples:
    """Looks at every pair."""
    seen = [_features(pair) for pair in pairs]
    targets = torch.tensor([_targets(pair.facts) for pair in pairs])
    best: dict[int, float] = {}
    for pair, gain in zip(pairs, targets[:, 0].tolist(), strict=True):
        best[pair.facts["item"]] = max(best.get(pair.facts["item"], -1.0), gain)
    targets_alone = targets.clone()
    targets_alone[:, 0] = torch.tensor([best[pair.facts["item"]] for pair in pairs])
    with_candidate, alone, greys = zip(*seen, strict=True)
    return Examples(torch.stack(with_candidate), torch.stack(alone), targets, targets_alone, np.array(greys))


def _features(pair: Pair) -> tuple[Tensor, Tensor, bool]:
    """With the candidate, of the face alone, and whether that is grey."""
    face, candidate = (bands(image, pair.side) for image in (pair.face, pair.candidate))
    return features(face, candidate, pair.side), features(face, None, pair.side), face.is_grey


def _targets(facts: dict[str, Any]) -> list[float]:
    name = DlibRecogniser.name
    identity = facts.get(f"{name}_after", nan) - facts.get(f"{name}_before", nan)
    return [gain_of(facts), identity, facts["blur"], facts["noise"] / 10, facts["compression"]]


def loss_of(network: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of the gain, and absolute errors of the rest, where it is known: of (members, B, ...)."""
    found = network(x)
    error = (targets[..., 0].clamp(min=WORST) - found.gain) / found.log_spread.exp()
    loss = (error.square() / 2 + found.log_spread).mean()
    others = torch.stack([found.identity_gain, found.blur, found.noise, found.compression], dim=-1)
    wanted = targets[..., 1:]
    weights = torch.tensor(OTHERS) * wanted.isfinite()
    return loss + (weights * (others - wanted.nan_to_num()).abs()).sum(dim=-1).mean()


def fit(seen: Examples, seed: int = 0, epochs: int = EPOCHS) -> JudgeNetwork:
    """Trains the members from scratch, each on an order of its own."""
    torch.manual_seed(seed)
    network = JudgeNetwork()
    network.standardise(seen.pairs)
    x, targets = torch.cat([seen.pairs, seen.alone]), torch.cat([seen.targets, seen.targets_alone])
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=DECAY)
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps, pct_start=0.1)
    for epoch in range(epochs):
        orders = torch.stack([torch.randperm(len(x)) for _ in range(MEMBERS)])
        total = 0.0
        for batch in torch.split(orders[:, : steps * BATCH], BATCH, dim=1):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(network, x[batch], targets[batch])
            (MEMBERS * loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() / steps
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1} of {epochs}  loss {total:.4f}", flush=True)
    return network.eval()


@torch.inference_mode()
def predict(network: nn.Module, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The gains and their spreads, (n,) each."""
    gains, spreads = network(x).together()
    return gains.double().numpy(), spreads.double().numpy()


NOTES = {
    "licence": "Apache-2.0",
    "intended_use": "Chooses for each face between the input, the network's face and a corrected one; foresees what a "
    "restore would be worth.",
    "labels": "Share of the distance to the clean face that goes: three quarters by features of a face "
    "detector (RetinaFace, MobileNet 0.25), one by a normalised Laplacian pyramid; identity by dlib's ResNet. It looks "
    "through none of them, but at statistics of the pixels. The detector's layers were chosen for their agreement with "
    "SqueezeNet's features on people to train on; SqueezeNet has no other part in it.",
    "notes": "Limits are chosen on people held out, so that each holds of clean, lightly worn, worn, aged and spoilt "
    "faces, of those drawn at 128 and at 256 px, and in pictures with and without colours. Of those people the "
    "restoring networks have seen some; of people whom they have not seen they draw a little worse faces.",
    "known_failures": "Engravings and paintings are rare in what it saw; so are children. Detail beyond 256 "
    "px of a face it does not see: there it goes by what is visible at 256 px.",
}


def card_of(network: nn.Module, learnt: dict[str, Any], held_out: Sequence[Pair], seen: Examples) -> dict[str, Any]:
    """What it is, whom it may judge, its calibration, and what its limits do to people held out. `learnt` describes
    the pairs that it learnt from: how many, of how many people, by which networks."""
    predicted, spreads = predict(network, seen.pairs)
    gains = seen.targets[:, 0].double().numpy()
    raw = raw_probabilities(predicted, spreads)
    asked = is_asked(held_out, predicted)
    of_kind = dict(zip(KINDS, (asked & ~seen.is_grey, asked & seen.is_grey), strict=True))
    calibration = {"calibration": {kind: calibrate(raw[mine], gains[mine] < -EQUAL) for kind, mine in of_kind.items()}}
    harm = harm_of(calibration, raw, seen.is_grey)
    items = np.array([pair.facts["item"] for pair in held_out])
    damages = np.array([_damage(pair.facts) for pair in held_out])

    def curve(mine: NDArray[np.bool_]) -> list[list[float]]:
        return harm_curve(items[mine].tolist(), predicted[mine], harm[mine], gains[mine])

    size_of = {" ".join(turn): resolve_method(*turn).preset.size for turn in set(TURNS)}
    sizes = np.array([size_of[pair.facts["method"]] for pair in held_out])
    of_parts = [curve(asked & (of == part)) for of in (damages, sizes) for part in np.unique(of)]
    curves = {kind: strictest(curve(mine), of_parts) for kind, mine in of_kind.items()}
    return {
        "name": JUDGE,
        **NOTES,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": {"train": learnt, "held_out": counts(held_out), "made_of": MADE_OF},
        "networks": networks(),
        **calibration,
        "harm_curve": curves,
        "held_out": {
            "correlation": round(float(np.corrcoef(predicted, gains.clip(WORST))[0, 1]), 4),
            "reliability": reliability(harm[asked], gains[asked] < -EQUAL),
        },
    }


def _damage(facts: dict[str, Any]) -> str:
    """The class of a face within which no more may be made worse than in all of them."""
    return facts["kind"] if facts["kind"] in ("clean", "light", "worn", "aged") else "spoilt"


def is_asked(pairs: Sequence[Pair], predicted: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pairs a run looks at: of corrected faces those whose whole change is in doubt."""
    whole = {
        pair.facts["item"]: gain
        for pair, gain in zip(pairs, predicted.tolist(), strict=True)
        if pair.facts["candidate"] == "replaced"
    }
    return np.array([p.facts["candidate"] == "replaced" or is_in_doubt(whole[p.facts["item"]]) for p in pairs])


def counts(pairs: Sequence[Pair]) -> dict[str, int]:
    return {"pairs": len(pairs), "people": len({pair.facts["person"] for pair in pairs})}


def _learn(train: Sequence[Pair]) -> tuple[JudgeNetwork, dict[str, Any]]:
    return fit(examples_of(train)), counts(train) | {"networks": networks()}


def installed() -> tuple[JudgeNetwork, dict[str, Any]]:
    """The judge that is installed, and what it was made from (cards of before the first calibration name those networks
    only as the ones that it may judge)."""
    path, network = require_weight(JUDGE), JudgeNetwork()
    load_weights(network, path)
    card = read_card(path)
    return network.eval(), {"networks": card["networks"]} | card["data"]["train"]


def main() -> int:
    return exit_code_of(_train)


def _train() -> int:
    parser = argparse.ArgumentParser(prog="python -m bfr_models.training.judge", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of aligned faces: a file or a folder")
    parser.add_argument("--retinaface", type=Path, required=True, help="RetinaFace with a MobileNet body")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=Share.parse, default=ALL, help="make this share of the pairs alone: 1/2, 2/2")
    parser.add_argument("--calibrate", action="store_true", help="keep the installed judge, and make its limits anew")
    a = parser.parse_args()
    pairs, parts = a.out / "pairs", [HELD_OUT] if a.calibrate else [TRAIN, HELD_OUT]
    prepare_pairs(read_people(a.data, SIDES[1]), a.retinaface, pairs, a.share, parts)
    if a.share != ALL:
        return 0
    network, learnt = installed() if a.calibrate else _learn(read_pairs(pairs, TRAIN))
    held_out = read_pairs(pairs, HELD_OUT)
    card = card_of(network, learnt, held_out, examples_of(held_out))
    save_weights(parameters_of(network), card, a.out / f"{JUDGE}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
