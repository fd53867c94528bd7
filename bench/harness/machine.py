"""What this machine is, and whether it was quiet enough to judge.

Three witnesses: time the hypervisor took away (steal), time that others used on the proxies' core, and a fixed loop on
that core, whose CPU time grows when a neighbour shares its caches or its clock drops.
"""

import os
import platform
import time
from dataclasses import dataclass

from .pair import PROXY_CORE
from .process import TICKS_PER_SECOND

LOOP_ROUNDS = 300_000
# Shares of the run's time on the proxies' core, and the loop's slowness, above which a run counts as disturbed.
MAX_FOREIGN, MAX_STEAL, MAX_SLOWNESS = 0.05, 0.02, 1.15


def facts():
    """Cores, processor, kernel and memory."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"cores": os.cpu_count(), "processor": model, "kernel": platform.release(), "memory_gb": round(memory, 1)}


@dataclass
class Disturbance:
    """What others did to one run."""

    foreign: float
    steal: float
    slowness: float

    def is_disturbed(self):
        """Whether the run's figure deserves no trust."""
        return self.foreign > MAX_FOREIGN or self.steal > MAX_STEAL or self.slowness > MAX_SLOWNESS


class Witness:
    """Watches the proxies' core."""

    def __init__(self):
        self._fastest_loop = min(_loop_seconds() for _ in range(5))

    def begin(self):
        """Call before the run."""
        self._loop = _loop_seconds()
        self._fastest_loop = min(self._fastest_loop, self._loop)
        self._busy, self._stolen = _core_seconds()
        self._clock = time.monotonic()

    def end(self, own_cpu_seconds):
        """Call after the run, with the CPU time that the watched proxies used in it."""
        busy, stolen = _core_seconds()
        wall = time.monotonic() - self._clock
        foreign = max(0.0, busy - self._busy - own_cpu_seconds) / wall
        return Disturbance(foreign, (stolen - self._stolen) / wall, self._loop / self._fastest_loop)


def _core_seconds():
    with open("/proc/stat", encoding="ascii") as file:
        fields = next(line.split() for line in file if line.startswith(f"cpu{PROXY_CORE} "))
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) / TICKS_PER_SECOND for field in fields[1:9])
    return user + nice + system + irq + softirq, steal


def _loop_seconds():
    home = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {PROXY_CORE})
    try:
        start = time.thread_time()
        total = 0
        for value in range(LOOP_ROUNDS):
            total += value ^ 5
        return time.thread_time() - start
    finally:
        os.sched_setaffinity(0, home)
