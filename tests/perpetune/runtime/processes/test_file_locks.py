from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from perpetune.runtime.processes.file_locks import acquire, end_leftovers, is_locked, lock_owner

# Locks the file, starts a process that inherits the lock, prints its id and waits.
OWNER = """
import subprocess, sys, time
from pathlib import Path
from perpetune.runtime.processes.file_locks import acquire

held = acquire(Path(sys.argv[1]))
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(99)"], start_new_session=True, pass_fds=[held.fileno()]
)
print(child.pid, flush=True)
time.sleep(99)
"""


def test_a_lock_is_held_until_the_file_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "new" / "up.lock"
    assert not is_locked(file)
    held = acquire(file)
    assert held is not None
    assert (is_locked(file), lock_owner(file)) == (True, os.getpid())
    assert acquire(file) is None
    held.close()
    assert not is_locked(file)


def test_services_of_a_killed_owner_are_stopped(tmp_path: Path) -> None:
    file = tmp_path / "up.lock"
    with subprocess.Popen([sys.executable, "-c", OWNER, str(file)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = psutil.Process(int(owner.stdout.readline()))
        assert not end_leftovers(file, 10), "its owner lives"
        assert child.is_running()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert is_locked(file), "by what it has started"
    assert end_leftovers(file, 10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not is_locked(file)
