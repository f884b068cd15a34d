"""Servers as processes of their own: started, watched by what they use, and ended together with all they started.

Linux alone: what a process has started is read out of /proc.
"""

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

START_SECONDS = 90.0
STOP_SECONDS = 15.0
GRACE_SECONDS = 3.0
TICKS = os.sysconf("SC_CLK_TCK")
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


class CannotStart(Exception):
    """A server ended, or did not listen in time; its log's last lines say why."""


def adopt_orphans() -> None:
    """Become the parent of whatever loses its own below this process, so that nothing that was started gets lost."""
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """All processes below one, nearest first."""
    children: dict[int, list[int]] = {}
    for pid, fields in _stats():
        children.setdefault(int(fields[1]), []).append(pid)
    found, at = [root], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found[1:]


def _stats() -> Iterator[tuple[int, list[str]]]:
    """(pid, what /proc/pid/stat holds after the name) of each process: state, parent, …"""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # it has ended meanwhile


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    return any(found == pid and fields[0] != "Z" for found, fields in _stats())


def cpu_seconds(pids: Iterable[int]) -> float:
    """What the processes have used, with those of their children that have ended."""
    wanted = set(pids)
    ticks = sum(sum(map(int, fields[11:15])) for pid, fields in _stats() if pid in wanted)
    return ticks / TICKS


def busy_seconds() -> float:
    """What the whole machine has used since it was started, waiting for disks left out."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory of the processes; what several share is counted once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def open_files(pids: Iterable[int]) -> int:
    """How many file descriptors the processes hold."""
    count = 0
    for pid in pids:
        try:
            count += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
    return count


def free_ports(count: int = 32) -> int:
    """The first of some ports in a row on which nothing listens, below those that the system gives out."""
    for _ in range(100):
        first = random.randrange(10_000, 32_000 - count)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise CannotStart("No row of free ports was found.")


@contextmanager
def server(command: list[str], variables: Mapping[str, str], port: int, folder: Path) -> Iterator[int]:
    """Run a server until the block ends; give its process id once its port is open."""
    adopt_orphans()
    others = set(descendants(os.getpid()))
    log = folder / "server.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_open(process, port, log)
        yield process.pid
    finally:
        stop(process, others)


def _wait_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise CannotStart(f"It does not listen; its log ends with:\n{end}")
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes], others: set[int]) -> None:
    """Ask a process to end, then what it left behind, and kill what still runs below this one but the others."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        for pid in _left(process, others):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while _left(process, others) and time.monotonic() < deadline:
            time.sleep(0.05)


def _left(process: subprocess.Popen[bytes], others: set[int]) -> list[int]:
    """What still runs; adopted children that have ended are let go on the way."""
    process.poll()
    left = [pid for pid in descendants(os.getpid()) if pid not in others]
    for pid in left:
        if pid != process.pid:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return [pid for pid in descendants(os.getpid()) if pid not in others]
