"""The state of the machine during a measurement: energy of the processor, and the load of other processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
STAT = Path("/proc/stat")


class EnergyMeter:
    """Reads RAPL counters (Intel's and AMD's) as Linux shows them.

    Args:
        root: folder of the counters.

    Attributes:
        known: whether there is a counter that may be read.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        # One colon: a package. Its parts (cores, memory) have two, and are in it already.
        packages = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self.zones = [zone for zone in packages if _read(zone / "energy_uj") is not None]
        self.available = bool(self.zones)

    def read(self) -> list[int]:
        """The counters in microjoules, for `joules`."""
        return [_read(zone / "energy_uj") or 0 for zone in self.zones]

    def joules(self, before: list[int], after: list[int]) -> float | None:
        """Energy between two readings; None where nothing can be read. Counters start again at their maximum."""
        if not self.available:
            return None
        total = 0
        for zone, first, second in zip(self.zones, before, after, strict=True):
            turn = _read(zone / "max_energy_range_uj") or 0
            total += second - first if second >= first else second - first + turn
        return total / 1e6


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, not ours to read, or no number
        return None


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
