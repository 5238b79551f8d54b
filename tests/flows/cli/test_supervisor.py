"""Small commands under the supervisor, ended by signals of a real terminal and of the kernel."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from flows.cli.supervisor import SAME_SECONDS
from tests.support import ROOT

START = """
import signal, subprocess, sys, time
from flows.cli import supervisor
supervisor.STOP_SECONDS, supervisor.SAME_SECONDS = {stop_seconds}, {same_seconds}
def command():
    {command}
supervisor.supervise(command)
"""
CHILD = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
WORKS = f"{CHILD}; {CHILD}; print('up', flush=True); time.sleep(60)"
IS_DEAF = f"signal.signal(signal.SIGINT, signal.SIG_IGN); {WORKS}"


class Command:
    """A supervised command that leads a terminal's session."""

    def __init__(self, command: str, stop_seconds: float = 8.0) -> None:
        code = START.format(command=command, stop_seconds=stop_seconds, same_seconds=SAME_SECONDS)
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored where the tests run under nohup
            os.execve(sys.executable, [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)})
        os.set_inheritable(self.terminal, False)  # or what is started meanwhile holds it open
        self.said = ""

    def wait_until_up(self) -> list[psutil.Process]:
        """All its processes: the supervisor, the driver, and what that has started."""
        self.wait_until("up")
        supervisor = psutil.Process(self.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def wait_until(self, word: str) -> None:
        """Until it has said so."""
        while word not in self.said:
            self.said += os.read(self.terminal, 1024).decode()

    def press_ctrl_c(self) -> None:
        os.write(self.terminal, b"\x03")

    def wait(self) -> int:
        """The exit code."""
        with suppress(OSError):  # closed by the last that had it open
            while part := os.read(self.terminal, 1024):
                self.said += part.decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def ended() -> Iterator[list[psutil.Process]]:
    """Processes that must be gone when the test is over."""
    processes: list[psutil.Process] = []
    yield processes
    _, alive = psutil.wait_procs(processes, timeout=30)
    for process in alive:
        process.kill()
    assert not alive


def test_ctrl_c_reaches_the_driver_alone_and_all_ends_with_130(ended: list[psutil.Process]) -> None:
    command = Command(WORKS, stop_seconds=60)
    ended += command.wait_until_up()
    assert len({os.getsid(process.pid) for process in ended}) == 2 and len(ended) == 4
    command.press_ctrl_c()
    assert command.wait() == 130
    assert "stopping..." in command.said and "force" not in command.said and "Traceback" not in command.said


def test_a_driver_that_does_not_listen_is_ended_by_force(ended: list[psutil.Process]) -> None:
    command = Command(IS_DEAF, stop_seconds=1)
    ended += command.wait_until_up()
    began = time.monotonic()
    command.press_ctrl_c()
    assert command.wait() == 130 and 1 <= time.monotonic() - began < 30
    assert "ended by force" in command.said


def test_a_second_ctrl_c_ends_it_at_once(ended: list[psutil.Process]) -> None:
    command = Command(IS_DEAF, stop_seconds=60)
    ended += command.wait_until_up()
    command.press_ctrl_c()
    command.wait_until("stopping...")
    time.sleep(1.5 * SAME_SECONDS)  # from when the first was heard: the second is another wish
    began = time.monotonic()
    command.press_ctrl_c()
    assert command.wait() == 130 and time.monotonic() - began < 30


def test_a_terminal_that_is_closed_ends_it(ended: list[psutil.Process]) -> None:
    command = Command(WORKS)
    ended += command.wait_until_up()
    os.close(command.terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(command.pid, 0)[1]) == 130


def test_timeout_which_signals_twice_at_once_is_one_wish() -> None:
    """When its time is over, and also when it gets a signal itself."""
    takes_its_time = """
    try:
        print('up', flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(1)
        print('good-bye')
    """
    code = START.format(command=takes_its_time, stop_seconds=60, same_seconds=30)  # however busy the machine is
    with subprocess.Popen(
        ["timeout", "300", sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as timeout:  # fmt: skip
        assert timeout.stdout is not None and timeout.stdout.readline() == "up\n"
        timeout.terminate()
        said, errors = timeout.communicate()
    assert "good-bye" in said and "force" not in errors


@pytest.mark.parametrize("killed", ["supervisor", "driver"])
def test_whichever_is_killed_nothing_is_left(killed: str, ended: list[psutil.Process]) -> None:
    command = Command(WORKS)
    ended += command.wait_until_up()[: 2 if killed == "supervisor" else None]
    os.kill(ended[killed == "driver"].pid, signal.SIGKILL)
    if killed == "supervisor":
        assert os.waitstatus_to_exitcode(os.waitpid(command.pid, 0)[1]) == -signal.SIGKILL
    else:
        assert command.wait() == 1
        assert "error: the process that does the work ended by SIGKILL" in command.said


def test_a_driver_that_a_library_ends_is_spoken_for() -> None:
    command = Command("import os; print('up', flush=True); os._exit(7)")
    assert command.wait() == 1
    assert "error: the process that does the work ended without a word" in command.said


def test_a_crash_after_the_last_word_changes_nothing() -> None:
    command = Command("import atexit, os; atexit.register(os.abort); print('up', flush=True); sys.exit(3)")
    assert command.wait() == 3 and command.said.strip() == "up"


def test_a_command_ends_with_its_own_code_and_leaves_nothing(ended: list[psutil.Process]) -> None:
    command = Command(f"{CHILD}; print('up', flush=True); time.sleep(0.5); sys.exit(3)")
    ended += command.wait_until_up()
    assert command.wait() == 3 and command.said.strip() == "up"


def test_a_signal_while_the_command_is_imported_leaves_no_traceback() -> None:
    command = Command("print('up', flush=True); time.sleep(60)")
    command.wait_until_up()
    command.press_ctrl_c()
    assert command.wait() == 130 and "Traceback" not in command.said


def test_a_command_ends_once_the_last_handler_is_through() -> None:
    """What it has left in memory is not taken down, object by object; what it has left to say is said."""
    slow = "type('Slow', (), {'__del__': lambda self: print('taken down', flush=True)})()"
    said_last = "atexit.register(lambda: sys.stdout.write('good-bye'))"
    command = Command(f"import atexit; sys.slow = {slow}; {said_last}; print('up', flush=True); sys.exit(3)")
    assert command.wait() == 3
    assert command.said.split() == ["up", "good-bye"]


def test_what_is_left_to_say_is_said_beside_a_stream_that_is_closed() -> None:
    said_last = "atexit.register(lambda: (sys.stdout.close(), sys.stderr.write('good-bye')))"
    command = Command(f"import atexit; {said_last}; print('up', flush=True); sys.exit(3)")
    assert command.wait() == 3
    assert command.said.split() == ["up", "good-bye"]
