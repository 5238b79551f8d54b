"""What the rows of a run can be compared by."""

from __future__ import annotations

from tasks.runs.finished_run import FinishedRun

PERCEPTUAL = "luma32-dct63"


def known_looks(run: FinishedRun) -> dict[str, str]:
    """What rows can be compared by, best first, each with the name of its network or formula: the recogniser's
    embeddings if the run kept them, Inception's features if it has them, the images."""
    measures, recogniser = run.record["measures"], run.record["recogniser"]
    found = {}
    if measures["keep_embeddings"] and recogniser:
        found["embedding"] = str(recogniser["name"])
    if measures["inception"]:
        found["inception"] = str(measures["inception"]["name"])
    return found | {"perceptual": PERCEPTUAL}
