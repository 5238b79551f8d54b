"""Runs a command in a process of its own, so that a signal ends it within seconds, whatever it is doing.

    terminal, systemd, docker  ->  supervisor: waits for signals and for the driver, and does nothing else
                                     `- driver: the command, in a session of its own
                                          `- Prefect's server, Ray's processes

A signal to the terminal's or the supervisor's process group reaches the supervisor alone. It asks the driver to stop,
and so Prefect's server and Ray end when the driver ends them, not before. It can do so at any moment, even while the
driver imports a library or waits in native code, since it never does either. Nothing here may import anything slow.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

INTERRUPTED = 130
KEPT = "what is done is kept, the same command goes on from there"
STOP_SECONDS = 8  # from a signal until the driver is ended by force; a second signal does so at once
SAME_SECONDS = 0.2  # `timeout` signals both the process and its group: signals this close are one
LINGER_SECONDS = 1.0  # for which a driver's processes may outlive it
GIVE_UP_SECONDS = 2.0  # for the kernel to end what was killed
_IDLE_SECONDS = 3600.0

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


_STARTED = time.monotonic()
_drivers: set[int] = set()  # process ids: that of this process, once it is one


def seconds_since_start() -> float:
    """Since this command was started: by the kernel's clock, so that Python's own start counts."""
    with suppress(OSError, ValueError, IndexError):
        process = os.getppid() if is_driver() else os.getpid()
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - _STARTED


def is_driver() -> bool:
    """Whether this process has a supervisor, its parent."""
    return os.getpid() in _drivers


def supervise(command: Callable[[], None]) -> None:
    """Calls `command`, which ends by SystemExit or returns; exits as it does. Where the kernel is not Linux, the call
    is made in this process."""
    if sys.platform != "linux":
        command()
        return
    stops = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        stops.add(signal.SIGHUP)
    awaited = stops | {signal.SIGCHLD, signal.SIGTSTP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)  # they wait for `sigtimedwait`; none is missed
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans among the driver's processes become this one's
    sys.stdout.flush()
    supervisor, (farewell, say_farewell) = os.getpid(), os.pipe()
    driver = os.fork()
    if driver:
        os.close(say_farewell)
        os._exit(_Supervisor(driver, awaited, farewell).wait())
    _drivers.add(os.getpid())
    atexit.register(_end_at_once)  # before all others register theirs, so that it is called after them
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored, as it does after `&`
    end_with_parent(signal.SIGINT, supervisor)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = _exit_code_of(command)
    os.write(say_farewell, bytes([code]))
    sys.exit(code)


def _end_at_once() -> None:
    """Ends the driver, whose exit code is told: taking down what torch and Prefect have built would take a second."""
    if is_driver():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # its other end is gone, or it was closed
                stream.flush()
        os._exit(0)


def _exit_code_of(command: Callable[[], None]) -> int:
    try:
        command()
    except KeyboardInterrupt:  # while it was being imported, or read its arguments
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def end_with_parent(number: int, parent: int) -> None:
    """From here on, the kernel sends this process the signal when its parent has died."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # already dead
        os.kill(os.getpid(), number)


class _Supervisor:
    """Waits for the driver's end, and brings it about when a signal comes."""

    def __init__(self, driver: int, awaited: Iterable[int], farewell: int) -> None:
        self._driver, self._awaited = driver, set(awaited)
        self._farewell = farewell  # a pipe: the driver writes its exit code to it, once it has said all it has to
        self._stopped_at: float | None = None
        self._status: int | None = None  # of the driver, once it has ended

    def wait(self) -> int:
        """The exit code."""
        while self._status is None:
            found = signal.sigtimedwait(self._awaited, self._seconds_left())
            number = found.si_signo if found else None
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGTSTP:
                self._pause()
            elif self._stopped_at is None and number is not None:
                self._ask_to_stop()
            elif number is None or self._is_another(number):
                self._force()
        self._end_what_is_left(LINGER_SECONDS)
        return self._exit_code(os.waitstatus_to_exitcode(self._status))

    def _seconds_left(self) -> float:
        if self._stopped_at is None:
            return _IDLE_SECONDS
        return max(0.0, self._stopped_at + STOP_SECONDS - time.monotonic())

    def _ask_to_stop(self) -> None:
        self._stopped_at = time.monotonic()
        _say("stopping... (a second signal ends it at once)")
        _signal(self._driver, signal.SIGINT)

    def _is_another(self, number: int) -> bool:
        """Whether it is a second wish; a terminal that closes sends its SIGHUP after others."""
        return number != signal.SIGHUP and time.monotonic() - (self._stopped_at or 0) > SAME_SECONDS

    def _force(self) -> None:
        if self._stopped_at is None:
            return  # nothing has happened for an hour
        _signal(self._driver, signal.SIGKILL)
        _, self._status = os.waitpid(self._driver, 0)
        self._end_what_is_left(0)
        if self._told() is None:
            _say(f"error: interrupted, and ended by force; {KEPT}")

    def _pause(self) -> None:
        """Stops with the driver, as Ctrl-Z asks, until the shell continues this process. Where there is no such shell
        (a container's first process), the kernel ignores this signal, and neither stops."""
        _signal(self._driver, signal.SIGSTOP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        _signal(self._driver, signal.SIGCONT)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._driver:
                    self._status = ended[1]

    def _end_what_is_left(self, patience: float) -> None:
        """Waits for the processes that the driver has left, and kills those that stay."""
        began = time.monotonic()
        while (left := _children()) and time.monotonic() - began < patience + GIVE_UP_SECONDS:
            if time.monotonic() - began >= patience:
                for process in left:
                    _signal(process, signal.SIGKILL)
            self._reap()
            time.sleep(0.02)

    def _exit_code(self, code: int) -> int:
        if self._stopped_at is not None or -code in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            return INTERRUPTED
        told = self._told()
        if told is None:
            _say(f"error: the process that does the work ended {_how(code)}; {KEPT}")
        return 1 if told is None else told

    def _told(self) -> int | None:
        """The exit code that the driver has told; its end itself, in native code, may have gone wrong after that."""
        os.set_blocking(self._farewell, False)
        with suppress(BlockingIOError):
            return next(iter(os.read(self._farewell, 1)), None)
        return None


def _how(code: int) -> str:
    """The way a driver has ended that did not say so itself."""
    if code >= 0:
        return "without a word, as Ray ends it when the cluster's head is gone (its own lines, if any, are above)"
    why = " (the kernel does so when memory runs out)" if -code == signal.SIGKILL else ""
    return f"by {signal.Signals(-code).name}{why}"


def _children() -> list[int]:
    """This process's children, adopted ones included."""
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


def _signal(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{line}\n".encode())


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
