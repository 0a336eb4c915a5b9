"""Starting workers, starting those again that end, and passing signals on."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from perpetune.errors import PerpetuneError

logger = logging.getLogger(__name__)

_REFUSED = 3  # the exit status of a worker that raised PerpetuneError
_MAX_PAUSE = 30.0  # seconds before a worker that keeps ending is started again
_DOUBLINGS = 10  # of the pause: a float has no room for a thousand, which take a night
_STABLE_SECONDS = 60.0  # of a worker's life, after which its faults are forgotten
_LOOK_SECONDS = 0.05  # between two looks while a worker waits to be started again
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """Runs `work(0)` to `work(count - 1)`, each in a process, until SIGTERM or SIGINT, on which `release` is called.

    Workers are forked, so that they have what is open here, such as a listening socket; nothing that has threads may be
    imported before. `release` must close that socket here: while one process has it open, clients can connect and are
    never answered. A worker that ends is started again, later and later if it keeps ending.
    """

    def __init__(self, count: int, work: Callable[[int], None], release: Callable[[], None]) -> None:
        self._count = count
        self._work = work
        self._release = release
        self._running: dict[int, int] = {}  # the number of each process
        self._began: dict[int, float] = {}
        self._faults: dict[int, int] = {}
        self._due: dict[int, float] = {}  # when to start the workers that have ended
        self._stopping = False

    def run(self) -> None:
        """Return when all workers have ended after a signal. Raises PerpetuneError if one cannot start at all."""
        before = {number: signal.signal(number, self._pass_on) for number in _SIGNALS}
        try:
            for number in range(self._count):
                self._start(number)
            refused = False
            while self._running or (self._due and not self._stopping):
                refused |= self._wait()
                self._start_due()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if refused:
            raise PerpetuneError("a worker of the gateway could not start or stop", do="see its message above")

    def _start(self, number: int) -> None:
        # A signal that comes meanwhile waits: in the child, our handler would pass it on to the other workers again,
        # and a second one ends them at once.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if self._stopping:
                return
            self._began[number] = time.monotonic()
            pid = os.fork()
            if pid == 0:
                _become(lambda: self._work(number))
            self._running[pid] = number
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _wait(self) -> bool:
        """Wait until a worker ends, or for a moment if one is to be started again; True if one refuses to work."""
        starts_one = bool(self._due) and not self._stopping
        if starts_one:
            time.sleep(_LOOK_SECONDS)
        if not self._running:
            return False
        pid, status = os.waitpid(-1, os.WNOHANG if starts_one else 0)
        if pid not in self._running:
            return False
        return self._ended(self._running.pop(pid), os.waitstatus_to_exitcode(status))

    def _start_due(self) -> None:
        for number, due in tuple(self._due.items()):
            if time.monotonic() >= due:
                del self._due[number]
                self._start(number)

    def _ended(self, number: int, code: int) -> bool:
        """Start the worker again soon; True if it refuses to work, which ends all others if it is its first start."""
        if self._stopping:
            return code == _REFUSED
        if time.monotonic() - self._began[number] > _STABLE_SECONDS:
            self._faults[number] = 0
        elif code == _REFUSED and number not in self._faults:
            self._pass_on(signal.SIGTERM)
            return True
        faults = self._faults[number] = self._faults.get(number, 0) + 1
        pause = min(_MAX_PAUSE, 0.1 * 2 ** min(faults, _DOUBLINGS))
        logger.error("worker %d of the gateway ended with %d, and is started again in %.1f s", number, code, pause)
        self._due[number] = time.monotonic() + pause
        return False

    def _pass_on(self, _number: int, _frame: FrameType | None = None) -> None:
        self._stopping = True
        self._release()
        for pid in tuple(self._running):
            with suppress(ProcessLookupError):  # it has ended, and that is not noted yet
                os.kill(pid, signal.SIGTERM)


def _become(work: Callable[[], None]) -> None:
    """Be a worker. Ctrl-C reaches the parent only, which passes it on."""
    os.setsid()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    random.seed()
    code = 1
    try:
        work()
        code = 0
    except PerpetuneError as fault:
        print(fault, file=sys.stderr)
        code = _REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
        os._exit(code)
