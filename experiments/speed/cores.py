"""Whether the cores share a cache: a hypervisor may move them apart, and back, every few seconds.

A value then takes five times as long from one core to another, and programs whose cores share their work take up to
four times as long, while those on one core do not change: ratios between the two would say where the cores were.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time

# A probe sends a value so often to the other core and back; the size of the lines by which caches exchange data.
HOPS, LINE = 2000, 128
# So often to look for an answer before it is given up: some seconds.
LOOKS = 50_000_000
# Cores are apart if a value takes so many times longer than it took when they were closest.
APART = 1.7
# Seconds between probes while waiting.
PAUSE = 0.3

_ECHO = """
import mmap, os, sys

def echo(core, file, hops, line):
    os.sched_setaffinity(0, {core})
    shared = mmap.mmap(file, 2 * line)
    shared[1] = 1
    for hop in range(hops):
        value = hop % 127 + 1
        while shared[0] != value: pass
        shared[line] = value

echo(*map(int, sys.argv[1:]))
"""
_closest = float("inf")
_patience = 0.0


def seconds_between() -> float | None:
    """Return how long a value takes between the first two cores; None if no other one answers, or not on Linux.

    The interpreter's own time, about 40 to 70 ns, is a part of it.
    """
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2:
        return None
    usable = os.sched_getaffinity(0)
    here, there, *_ = sorted(usable)
    file = os.memfd_create("hops")
    os.ftruncate(file, 2 * LINE)
    arguments = [sys.executable, "-I", "-S", "-c", _ECHO, *map(str, (there, file, HOPS, LINE))]
    with mmap.mmap(file, 2 * LINE) as shared, subprocess.Popen(arguments, pass_fds=[file]) as other:
        try:
            os.sched_setaffinity(0, {here})
            while not shared[1]:
                if other.poll() is not None:
                    return None
                time.sleep(0.001)
            back = LINE  # a local name is read faster
            start = time.perf_counter()
            for hop in range(HOPS):
                shared[0] = value = hop % 127 + 1
                for _ in range(LOOKS):
                    if shared[back] == value:
                        break
                else:
                    return None
            return (time.perf_counter() - start) / (2 * HOPS)
        finally:
            os.sched_setaffinity(0, usable)
            os.close(file)


def have_patience(seconds: float) -> None:
    """Wait for so many seconds in all, from now on, for cores that have moved apart; nothing is probed at first."""
    global _patience
    _patience = seconds


def are_close() -> bool:
    """Whether a value takes about as long between cores as it did when they were closest, if anybody has patience."""
    global _closest
    seconds = seconds_between() if _patience > 0 else None
    if seconds is None:
        return True
    _closest = min(_closest, seconds)
    return seconds < APART * _closest


def wait_until_close() -> None:
    """Wait until cores are close, or until patience is exhausted."""
    global _patience
    while not are_close():
        time.sleep(PAUSE)
        _patience -= PAUSE
