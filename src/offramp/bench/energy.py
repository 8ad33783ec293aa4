"""Energy of the processor packages, where the system lets everyone read it."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


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
