"""Is the judge as careful with everybody? Harm to people held out from its training, by groups.

    python benchmarks/judge_groups.py --pairs OUT/pairs --data FACES

`--pairs` is what `python -m bfr_models.training.judge` made, `--data` the faces that it was made from. Groups are what
the pictures themselves give: measured on the clean face, or stated by the source. Writes results/judge_groups.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from header import header
from PIL import Image

from bfr_models.judge.decision import JUDGE, choose_judge, harm_limits, harm_of, raw_probabilities
from bfr_models.judge.network import JudgeNetwork
from bfr_models.judge.verdict import Verdict
from bfr_models.metrics.fidelity import sharpness
from bfr_models.pixels import BLUE, GREEN, RED, Uint8Image
from bfr_models.registry import resolve_method
from bfr_models.training.judge import examples_of, gain_of, is_asked, predict
from bfr_models.training.judge_calibration import EQUAL
from bfr_models.training.judge_data import read_pairs
from bfr_models.training.judge_pairs import Pair
from bfr_models.weights.files import read_card, require_weight
from bfr_models.weights.tensors import load_weights

RESULTS = Path(__file__).parent / "results"
MAX_HARM, MIN_GAIN = 0.02, 0.02  # the defaults of `bfr restore`
SIDE = 256
CHEEKS = ((90, 110, 150, 165), (146, 166, 150, 165))  # x0, x1, y0, y1 in a face of 256 px
CHIN = (108, 148, 206, 220)
BRIDGE = (118, 138, 112, 128)  # of the nose, between the eyes: a frame crosses it


@dataclass(frozen=True)
class Taken:
    """What is done with one face."""

    person: str
    restored: bool
    gain: float  # true; 0 if it is kept
    possible: float  # of the best candidate; 0 if all are worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of clean aligned faces: a file or a folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "judge_groups.md")
    args = parser.parse_args()
    if choose_judge(resolve_method("difface")) is None:
        parser.error("expected a judge of these networks, found none")
    taken = list(_decisions(read_pairs(args.pairs, "held_out")))
    groups = _groups(args.data, {one.person for one in taken})
    lines = [
        "| group | people | faces | restored | worse, of all | worse, of the restored | gain kept |",
        "|---" * 7 + "|",
    ]
    lines.append(_line("everybody", taken))
    lines += [_line(name, [one for one in taken if one.person in people]) for name, people in groups.items()]
    text = (
        f"{header()}The judge's choices for {len(taken)} faces of {len({one.person for one in taken})} people whom it "
        f"has not seen, with the defaults (at most {MAX_HARM:.0%} harm). Worse: further from the clean face by "
        f"{EQUAL:.0%} of the distance, the mean of two. Groups are measured on the clean face (a third of the people "
        "each, by the luma of their cheeks; a darker chin; an edge across the bridge of the nose), or stated by the "
        "source. Gain kept: of what the best candidate would have gained.\n\n"
    )
    args.out.write_text(text + "\n".join(lines) + "\n")
    print("\n".join(lines))


def _decisions(pairs: list[Pair]) -> Iterator[Taken]:
    path = require_weight(JUDGE)
    card, network = read_card(path), JudgeNetwork()
    load_weights(network, path)
    seen = examples_of(pairs)
    predicted, spreads = predict(network.eval(), seen.pairs)
    harm = harm_of(card, raw_probabilities(predicted, spreads), seen.is_grey)
    limits = harm_limits(card, MAX_HARM)
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(is_asked(pairs, predicted)).tolist():
        rows_of[pairs[row].facts["item"]].append(row)
    for rows in rows_of.values():
        gains = {row: gain_of(pairs[row].facts) for row in rows}
        verdicts = {row: Verdict(predicted[row], spreads[row], harm[row], 0, seen.is_grey[row]) for row in rows}
        allowed = [row for row, one in verdicts.items() if limits.allow(one) and one.gain >= MIN_GAIN]
        best = max(allowed, key=lambda row: float(predicted[row])) if allowed else None
        person = str(pairs[rows[0]].facts["person"]).partition("|")[0]
        yield Taken(person, best is not None, 0.0 if best is None else gains[best], max(0.0, *gains.values()))


def _groups(data: Path, people: set[str]) -> dict[str, set[str]]:
    """The people of each group."""
    facts: dict[str, dict[str, Any]] = {}
    for file in sorted(data.glob("**/*.parquet")) if data.is_dir() else [data]:
        for row in pq.read_table(file).to_pylist():
            person = row.get("person") or hashlib.sha256(row["image"]["bytes"]).hexdigest()[:16]
            if person in people:
                facts[person] = row | _measured(row["image"]["bytes"])
    groups: dict[str, set[str]] = defaultdict(set)
    dark, light = np.quantile([found["cheeks"] for found in facts.values()], (1 / 3, 2 / 3))
    sharp = np.quantile([found["sharpness"] for found in facts.values()], (1 / 3, 2 / 3))
    for person, found in facts.items():
        tone = "dark" if found["cheeks"] <= dark else "light" if found["cheeks"] > light else "middle"
        groups[f"cheeks: {tone}"].add(person)
        groups["grey or toned" if found["is_grey"] else "in colour"].add(person)
        groups["chin darker than cheeks (beards)" if found["chin"] < 0.75 else "chin as the cheeks"].add(person)
        groups["edge across the nose (glasses)" if found["bridge"] > 0.09 else "no edge across the nose"].add(person)
        detail = "fine" if found["sharpness"] > sharp[1] else "soft" if found["sharpness"] <= sharp[0] else "medium"
        groups[f"detail of the clean picture: {detail}"].add(person)
        if found.get("congress"):
            year = 1787 + 2 * int(found["congress"])
            groups[f"pictured {year // 30 * 30} to {year // 30 * 30 + 29}"].add(person)
        groups["synthetic" if person.startswith("syn") else "photographed"].add(person)
    return dict(sorted(groups.items()))


def _measured(data: bytes) -> dict[str, Any]:
    face = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    luma = face @ np.array([RED, GREEN, BLUE])
    cheeks = float(np.mean([np.median(_part(luma, place)) for place in CHEEKS]))
    return {
        "cheeks": cheeks,
        "chin": float(np.median(_part(luma, CHIN))) / max(cheeks, 1),
        "bridge": float(np.abs(np.diff(_part(luma, BRIDGE).mean(axis=1))).max()) / max(cheeks, 1),
        "is_grey": float(np.ptp(face.astype(float), axis=2).mean()) < 12 or _is_toned(face),
        "sharpness": sharpness(face),
    }


def _is_toned(face: Uint8Image) -> bool:
    """Whether all its colours are tones of one."""
    centred = face.reshape(-1, 3) - face.reshape(-1, 3).mean(axis=0)
    _, strengths, _ = np.linalg.svd(centred[::17], full_matrices=False)
    return bool(strengths[1] < 0.06 * strengths[0])


def _part(luma: np.ndarray[Any, Any], place: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
    x0, x1, y0, y1 = place
    return luma[y0:y1, x0:x1]


def _line(name: str, taken: list[Taken]) -> str:
    restored = [one for one in taken if one.restored]
    worse = sum(one.gain < -EQUAL for one in restored)
    possible = sum(one.possible for one in taken)
    return (
        f"| {name} | {len({one.person for one in taken})} | {len(taken)} | {len(restored) / len(taken):.1%} | "
        f"{worse / len(taken):.1%} ({worse}) | {worse / max(1, len(restored)):.1%} | "
        f"{sum(one.gain for one in taken) / possible:.0%} |"
    )


if __name__ == "__main__":
    main()
