"""Prefect's embedded server as Prefect starts it once it needs one, but ended by nobody else than the process that uses
it.

Prefect starts it in the terminal's process group, where Ctrl-C reaches it before the run can say good-bye, and leaves
it behind when the run is killed. Here it has a session of its own, and a pipe that closes when its starter is gone.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from flows.orchestration.early_server import EPHEMERAL, command


class EmbeddedServer(SubprocessASGIServer):
    """Prefect keeps one server for each port, and asks for that of no given port by its base class: once one of these
    is made, it is the one that Prefect uses."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        assert self.port is not None, "chosen when it starts"
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(  # noqa: S603
            command(self.port),
            env={**os.environ, **EPHEMERAL, **settings},
            stdin=subprocess.PIPE,  # held open for as long as this process lives
            start_new_session=True,
        )

    def stop(self) -> None:
        if self.server_process is not None and self.server_process.stdin is not None:
            self.server_process.stdin.close()  # the one thing that it heeds
        super().stop()
