"""Writes `bfr_models/assets/README.md`, the readable form of the JSON cards beside the weights.

python scripts/model_cards.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[1] / "bfr_models" / "assets"
CURVES = (
    "psnr", "psnr_up", "identity", "eps_loss", "flow_loss", "perceptual", "perceptual_up", "cosine_gt", "correlation",
    "mask_mean",
)  # fmt: skip
POINTS = 6  # of a curve that are shown, the last among them
Card = dict[str, Any]


def main() -> None:
    (ASSETS / "README.md").write_text(render())


def render() -> str:
    cards = [json.loads(path.read_text()) for path in sorted(ASSETS.glob("*-face[0-9]*-*.json"))]
    total = sum(card["bytes"] for card in cards) / 2**20
    lines = [
        "# The weights of `face128` and `face256`",
        "",
        f"{len(cards)} networks, {total:.1f} MiB in fp16, trained by `bfr train` on openly licensed faces. "
        "Each has a card (JSON) that is checked before use; this page is made of them. Are restored faces those of the "
        "training set? [Memorisation](../../benchmarks/results/memorisation.md). How good are they, by the papers' "
        "claims? [Claims](../../benchmarks/results/claims.md). `lpips-heads` and `niqe-pristine` are others' and have "
        "cards of their own.",
    ]
    for card in cards:
        lines += ["", *section(card)]
    lines += ["", *judge_section(json.loads((ASSETS / "judge.json").read_text()))]
    return "\n".join(lines) + "\n"


def section(card: Card) -> Iterator[str]:
    data, recipe = card["data"], card["recipe"]
    yield f"## {card['name']}"
    yield ""
    size = f"{card['parameters']:,} parameters, {card['bytes'] / 2**20:.2f} MiB"
    yield f"{size}, {card['licence']}. For {card['intended_use']}."
    yield ""
    licences = "; ".join(f"{faces} ({licence})" for faces, licence in data["licences"].items())
    yield f"- **Data**: {data['train']} faces, {data['held_out']} more held out: {licences}."
    degradations = ", ".join(f"`{name}`" for name in dict.fromkeys(recipe["degradations"])) or "none"
    yield (
        f"- **Recipe**: {card['steps']:,} steps of {recipe['batch_size']} faces, rate {recipe['learning_rate']:g}, "
        f"seed {card['seed']}; degradations: {degradations}. {card['hardware']}."
    )
    yield f"- **Notes**: {card['notes']}"
    yield f"- **Known failures**: {card['known_failures']}"
    if "trained_with" in card:
        yield f"- **Trained with**: {', '.join(f'`{Path(name).stem}`' for name in card['trained_with'])}."
    yield "- **Held out**:"
    yield ""
    curve = card.get("curve") or {name: [value] for name, value in {"step": card["steps"], **card["held_out"]}.items()}
    names = [name for name in CURVES if name in curve]
    yield f"| step | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    every = -(-len(curve["step"]) // POINTS)
    for i in range(len(curve["step"]) - 1, -1, -every)[::-1]:
        yield f"| {curve['step'][i]:g} | " + " | ".join(f"{curve[name][i]:.4g}" for name in names) + " |"


def judge_section(card: Card) -> Iterator[str]:
    seen, held_out = card["data"]["train"], card["data"]["held_out"]
    yield f"## {card['name']}"
    yield ""
    size = f"{card['parameters']:,} parameters, {card['bytes'] / 2**20:.2f} MiB"
    yield f"{size}, {card['licence']}. {card['intended_use']}"
    yield ""
    yield (
        f"- **Data**: {seen['pairs']} pairs of {seen['people']} people; {held_out['pairs']} pairs of "
        f"{held_out['people']} more held out. {card['data']['made_of']}"
    )
    of_now, of_then = set(card["networks"].items()), set(seen.get("networks", card["networks"]).items())
    if changed := sorted({Path(file).stem for file, _ in of_now ^ of_then}):
        names = ", ".join(f"`{name}`" for name in changed)
        yield f"- **Calibrated anew** on the people held out, after it had learnt; new, changed or gone since: {names}."
    yield f"- **Labels**: {card['labels']}"
    yield f"- **Notes**: {card['notes']}"
    yield f"- **Known failures**: {card['known_failures']}"
    yield f"- **Networks it may judge**: {', '.join(f'`{Path(name).stem}`' for name in card['networks'])}."
    correlation = f"{card['held_out']['correlation']:.3f}"
    yield f"- **Held out**: its gains correlate by {correlation} with the true ones. Harm foreseen, and harm there was:"
    yield ""
    yield "| predicted harm | true share | pairs |"
    yield "|---|---|---|"
    for predicted, true, pairs in card["held_out"]["reliability"]:
        yield f"| {predicted:.3f} | {true:.3f} | {pairs:.0f} |"
    yield ""
    yield "What its limits do to the people held out:"
    yield ""
    yield "| pictures | limit | worse, of all | restored | gain kept |"
    yield "|---|---|---|---|---|"
    for kind, curve in card["harm_curve"].items():
        for limit, worse, restored, gain in curve[::5]:
            yield f"| {kind} | {limit:.4f} | {worse:.1%} | {restored:.1%} | {gain:.0%} |"


if __name__ == "__main__":
    main()
