"""Whether the head of the Ray cluster still answers.

Ray itself ends the driver, by a line of its own log and without a word of ours, when it has not for 60 seconds.
"""

from __future__ import annotations

import atexit
import os
import socket
import time
from urllib.parse import urlsplit

import ray

from bfr_models.errors import BfrError
from tasks.storage.waits import WaitLines

CHECK_SECONDS = 2.0
ANSWER_SECONDS = 2.0
LOST_SECONDS = 30.0  # less than Ray's own 60


class RayHead:
    """The head that this process is connected to."""

    def __init__(self) -> None:
        given = os.environ.get("RAY_ADDRESS", "")
        address = given if given.startswith("ray://") else f"//{ray.get_runtime_context().gcs_address}"
        self.address = urlsplit(address).netloc
        self._answered = self._checked = time.monotonic()
        self._waits = WaitLines()

    def check(self) -> None:
        """BfrError once it has not answered for `LOST_SECONDS`."""
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        if self.answers():
            self._answered = now
        elif (silent := now - self._answered) > LOST_SECONDS:
            raise BfrError(
                f"expected an answer of the Ray cluster's head at {self.address}, found none for {silent:.0f} s: it "
                "has died, or the network has; what is done is kept: start the cluster again, then run the same command"
            )
        elif self._waits.are_due(silent):
            self._waits.say(
                f"waiting for the Ray cluster's head at {self.address} (no answer for {silent:.0f} s, for at most "
                f"{LOST_SECONDS - silent:.0f} s more)"
            )

    def leave(self) -> None:
        """Disconnects from the cluster; ends one that this process has started."""
        if self.answers():
            ray.shutdown()
        else:  # it would wait for the head, until Ray ends this process
            atexit.unregister(ray.shutdown)

    def answers(self) -> bool:
        """Whether the head takes connections."""
        parts = urlsplit(f"//{self.address}")
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), ANSWER_SECONDS).close()
        except OSError:
            return False
        return True
