"""`python -m bfr_models.training difface prior --data faces.parquet --out DIR`: training on a bare GPU machine, on
several GPUs by `torchrun --nproc-per-node 8 -m bfr_models.training ...`.

Needs torch, diffusers, pyarrow, Pillow and safetensors, but neither Ray nor Prefect. `bfr train` runs the same loop
with data and results anywhere fsspec reaches.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bfr_models.errors import exit_code_of
from bfr_models.training import ranks
from bfr_models.training.component import AuxiliaryWeights
from bfr_models.training.data import read_faces
from bfr_models.training.loop import TrainingRun, train
from bfr_models.training.registry import get_component


def main() -> int:
    return exit_code_of(_train)


def _train() -> int:
    parser = argparse.ArgumentParser(prog="python -m bfr_models.training", description=__doc__)
    parser.add_argument("method")
    parser.add_argument("component")
    parser.add_argument("--data", type=Path, required=True, help="Parquet of aligned faces: a file or a folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="face128")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--accumulate", type=int, default=1, help="parts in which a batch is taken, for less memory")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--loaders", type=int, default=0, help="processes that prepare batches, per GPU")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet 1.1's weights, for perceptual losses")
    parser.add_argument("--recogniser", type=Path, help="a MobileFace recogniser's weights, for the losses on identity")
    parser.add_argument("--irm-low", type=Path, help="DiffBFR's first model, to train its second behind it")
    parser.add_argument(
        "--estimator", type=Path, help="the regression network that DiffBFR's chains start from, or face256 draws on"
    )
    parser.add_argument("--initial", type=Path, help="weights to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate-every", type=int, default=500)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--checkpoint-minutes", type=float, default=10.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--compile", action="store_true")
    a = vars(parser.parse_args())
    method, name, preset, data = (a.pop(key) for key in ("method", "component", "preset", "data"))
    auxiliary = AuxiliaryWeights(a.pop("perceptual"), a.pop("recogniser"), a.pop("irm_low"), a.pop("estimator"))
    component = get_component(method, name, preset, auxiliary)
    with ranks.joined(a.pop("device")) as device:
        run = TrainingRun(name=f"{method}-{preset}-{name}", device=device, **a)
        recipe = run.recipe(component.recipe)
        faces = read_faces(data, recipe.size, batch_size=recipe.batch_size)
        train(component, faces, run, print if ranks.rank() == 0 else lambda _: None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
