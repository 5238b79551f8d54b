"""What each part of CLR-Face does: the autoencoder alone, latent diffusion, the IRN's start, the residual of what the
autoencoder loses, guidance with and without its mask, at several strengths.

    python benchmarks/clr_face_ablation.py --data faces.parquet [--perceptual squeezenet1_1.pth] [--grid faces.png]

Degrades the faces as `bfr degrade --size 128 --seed 0` does, restores them with every variant below, and writes
results/clr_face_ablation.json. Identity and the Fréchet distance are measured by dlib, which is not the recogniser
that guides. Rows already in the JSON for the same weights and faces are not computed again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from diffbfr_ablation import SEED, Pictures, Scores, arguments, degraded, markdown, read_faces, restore
from header import measured
from PIL import Image

from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.metrics.independence import self_scored
from bfr_models.registry import resolve_method
from bfr_models.training.perceptual import load_perceptual_distance

RESULTS = Path(__file__).parent / "results"
STRENGTHS = (0.1, 0.2, 0.4)
PAPER = {"residual": 0.0}  # nothing of what the autoencoder loses is given back
PARTS: dict[str, dict[str, Any]] = {
    "autoencoder": {"start": "lq", "steps": 0, **PAPER},
    "autoencoder of the IRN's face": {"steps": 0, **PAPER},
    "latent diffusion": {"start": "noise", "steps": 20, "guidance": 0.0, **PAPER},
    "latent diffusion from the IRN, nothing given back": {"guidance": 0.0, **PAPER},
    "guidance 0.1, nothing given back": {"guidance": 0.1, **PAPER},
    "latent diffusion from the IRN": {"guidance": 0.0},
    "latent diffusion from the IRN, all from t = 0.05": {"guidance": 0.0, "cover": 0.0, "start_time": 0.05},
}
GUIDED: dict[str, dict[str, Any]] = {
    f"guidance {strength}{'' if mask == 'learned' else ', mask all ones'}": {"guidance": strength, "mask": mask}
    for strength in STRENGTHS
    for mask in ("learned", "ones")
}
GRID = (
    "autoencoder",
    "latent diffusion",
    "latent diffusion from the IRN",
    "guidance 0.1",
    "guidance 0.4, mask all ones",
)


def main() -> None:
    parser = arguments(__doc__, "PNG of some faces: lq, some variants, gt")
    args = parser.parse_args()
    base = resolve_method("clr_face", "face128", {"precision": args.precision})
    scorer = DlibRecogniser()
    if warning := self_scored(base, {"name": scorer.name, "sha256": scorer.sha256}):
        parser.error(warning)
    ids, gt = read_faces(args.data, args.faces)
    scores = Scores(gt, load_perceptual_distance(args.perceptual) if args.perceptual else None)
    file = args.out / "clr_face_ablation.json"
    about = {"method": base.description, "data": args.data.name, "faces": len(ids), "seed": SEED}
    results = json.loads(file.read_text()) if file.exists() else {}
    if results.get("about") != json.loads(json.dumps(about)):
        results = {"about": about, "rows": {}}
    results.pop("measured", None)
    columns: list[Pictures] = []
    for degradation in args.degradations.split(","):
        lq = degraded(ids, gt, degradation)
        rows = results["rows"].setdefault(degradation, {})
        rows["input"] = rows.get("input") or scores(lq)
        for name, changes in (PARTS | GUIDED).items():
            if name not in rows:
                options = {"precision": args.precision, **changes}
                restored, seconds = restore("clr_face", ids, lq, options, args.device)
                rows[name] = {"options": changes, **scores(restored), "seconds": seconds}
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps({"measured": measured(), **results}, indent=1) + "\n")
                print(degradation, name, {k: round(v, 4) for k, v in rows[name].items() if isinstance(v, float)})
        if args.grid:
            some = [restore("clr_face", ids[:6], lq[:6], (PARTS | GUIDED)[name], args.device)[0] for name in GRID]
            columns += [lq[:6], *some, gt[:6]]
    print(markdown(results["rows"]))
    if args.grid:
        Image.fromarray(np.concatenate([np.concatenate(list(column)) for column in columns], axis=1)).save(args.grid)


if __name__ == "__main__":
    main()
