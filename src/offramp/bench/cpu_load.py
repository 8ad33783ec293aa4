"""The load of other processes on the machine during a measurement."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")


class OtherCpuLoad:
    """Cores that other processes keep busy, from its creation on.

    Args:
        stat: the kernel's counters, as Linux shows them.
    """

    def __init__(self, stat: Path = STAT) -> None:
        self.stat = stat
        self._start = self._read()

    def cores(self) -> float | None:
        """Mean number of cores busy with other processes since then; None where the system does not report it."""
        now = self._read()
        if now is None or self._start is None:
            return None
        busy, own, wall = (after - before for after, before in zip(now, self._start, strict=True))
        return max(busy - own, 0.0) / max(wall, 1e-9)

    def _read(self) -> tuple[float, float, float] | None:
        """Seconds: of all cores that worked, of this process and those it waited for, and of the clock."""
        if not self.stat.exists():
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, self.stat.read_text().split()[1:9])
        ticks = os.sysconf("SC_CLK_TCK")
        spent = os.times()
        own = spent.user + spent.system + spent.children_user + spent.children_system
        return (user + nice + system + irq + softirq + steal) / ticks, own, time.perf_counter()
