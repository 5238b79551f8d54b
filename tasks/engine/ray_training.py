"""The workers that train one network together, by Ray Train: each a process with its share of every batch."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from typing import Any

from ray.util.queue import Queue

from bfr_models.errors import BfrError, UsageError
from tasks.config.code import Code, require_same_code, running_code, this_process
from tasks.engine.ray_cluster import cluster_nodes
from tasks.engine.ray_head import RayHead
from tasks.storage.waits import say

LOST_WORKERS = 10  # after each of which all start again from the last checkpoint; then the run has failed
LOOK_SECONDS = 0.5

Share = Callable[[str, Callable[[str], None]], None]
"""What a worker does, given its device and where its lines go; it finds torch's process group formed."""


def train_on_ray(share: Share, workers: int, device: str) -> None:
    """Runs the share of each worker on the connected cluster, and says what the first one says. BfrError if it cannot
    be done, or if too many workers were lost."""
    resources, gpu = _each(workers, device)
    say(f"training in {workers} workers on {'GPUs' if gpu else 'CPUs'}")
    lines, failure = Queue(actor_options={"num_cpus": 0}), list[BaseException]()
    with tempfile.TemporaryDirectory(prefix="bfr-ray-train-") as scratch:
        trainer = _trainer({"share": share, "lines": lines, "code": running_code()}, workers, resources, gpu, scratch)

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                failure.append(error)

        thread, head = threading.Thread(target=fit, name="ray-train", daemon=True), RayHead()
        thread.start()  # not the main thread: there, Ray Train puts a handler of its own for signals
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            head.check()
            _relay(lines)
        _relay(lines)
    if failure:
        reason = str(failure[0]).strip().splitlines()[-1]
        raise BfrError(
            f"expected all {workers} workers to train to the end, found {LOST_WORKERS + 1} lost or failed ({reason}); "
            "what they have done is in the last checkpoint: run the same command with --resume"
        ) from failure[0]


def _each(workers: int, device: str) -> tuple[dict[str, float], bool]:
    """What each worker takes of the cluster: its CPUs in equal shares, and one GPU where there are enough."""
    nodes = cluster_nodes()
    gpus, cpus = (sum(node.total.get(name, 0) for node in nodes) for name in ("GPU", "CPU"))
    gpu = device == "cuda" or (device == "auto" and gpus >= workers)
    if device == "cuda" and 0 < gpus < workers:
        raise UsageError(f"expected a GPU for each of {workers} workers, found {gpus:.0f}; give --workers {gpus:.0f}")
    share = min(cpus / workers, max((node.total.get("CPU", 0) for node in nodes), default=1))
    return {"CPU": float(int(share)) if share >= 1 else share} | ({"GPU": 1.0} if gpu else {}), gpu


def _trainer(config: dict[str, Any], workers: int, resources: dict[str, float], gpu: bool, scratch: str) -> Any:
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise UsageError(
            f"expected the packages of Ray Train, found some missing ({error}): pip install 'bfr-pipeline[train]'"
        ) from None
    return TorchTrainer(
        _work,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=LOST_WORKERS)),
    )


def _work(config: dict[str, Any]) -> None:
    """In each worker. What is wrong with the data or the settings is told, and is no worker lost; of one that is, the
    others get a RuntimeError."""
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device

    code: Code = config["code"]
    lines: Queue = config["lines"]
    is_first = get_context().get_world_rank() == 0
    try:
        require_same_code(code, running_code(), this_process())
        config["share"](str(get_device()), lines.put if is_first else lambda _: None)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        lines.put(BfrError(f"expected a share of the batch to fit, found: {error}; give --accumulate a larger number"))
    except Exception as error:
        lines.put(error if isinstance(error, BfrError) else BfrError(f"{type(error).__name__}: {error}"))


def _relay(lines: Queue) -> None:
    """Says the lines; raises the first error of a worker."""
    for line in lines.get_nowait_batch(lines.qsize()):
        if isinstance(line, BfrError):
            raise line
        say(line)
