"""Turns a cloud's notice that this spot machine will be taken away into a SIGTERM, if BFR_SPOT names the cloud."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bfr_models.errors import UsageError

if TYPE_CHECKING:
    import httpx

POLL_SECONDS = 5.0  # AWS gives two minutes' notice, Google 30 s


def watch_for_notice(process: int) -> None:
    """Sends that process SIGTERM once the notice is there. UsageError for an unknown cloud."""
    if not (cloud := os.environ.get("BFR_SPOT")):
        return
    if cloud not in CLOUDS:
        raise UsageError(f"expected {' or '.join(CLOUDS)} in BFR_SPOT, found {cloud!r}; correct or unset it")
    threading.Thread(target=_watch, args=(cloud, process), name="spot notice", daemon=True).start()


def _watch(cloud: str, process: int) -> None:
    import httpx

    reported = False  # that the service does not answer: one line is enough
    with httpx.Client(timeout=2, trust_env=False) as client:  # a link-local service: never through a proxy
        while True:
            try:
                notice = CLOUDS[cloud](client)
            except httpx.HTTPError as error:
                if not reported:
                    print(f"BFR_SPOT={cloud}: no answer from the metadata service: {error}", file=sys.stderr)
                reported = True
            else:
                if notice:
                    print(f"this machine is about to be taken away: {notice}", file=sys.stderr)
                    os.kill(process, signal.SIGTERM)
                    return
            time.sleep(POLL_SECONDS)


def _aws(client: httpx.Client) -> str | None:
    """By IMDSv2: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html"""
    service = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
    token = client.put(f"{service}/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    mine = {"X-aws-ec2-metadata-token": token.raise_for_status().text}
    notice = client.get(f"{service}/latest/meta-data/spot/instance-action", headers=mine)
    return None if notice.status_code == 404 else notice.raise_for_status().text


def _gcp(client: httpx.Client) -> str | None:
    """https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption"""
    service = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    address = f"http://{service}/computeMetadata/v1/instance/preempted"
    preempted = client.get(address, headers={"Metadata-Flavor": "Google"}).raise_for_status().text
    return "preempted" if preempted.strip() == "TRUE" else None


CLOUDS: dict[str, Callable[[httpx.Client], str | None]] = {"aws": _aws, "gcp": _gcp}
