"""What a benchmark measures beside latency: FLOPs, energy, memory, cold starts, and the load of other processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core import progress as display
from offramp.bench.baselines import Baseline, BenchArtifacts, find_baselines, make_engine
from offramp.bench.optimum_peers import RemotePeer
from offramp.engine.batching import Encoding, token_counts
from offramp.engine.manifest import Manifest
from offramp.engine.onnx import OnnxSegments
from offramp.engine.segments import Segments
from offramp.engine.timing import Timing

POWERCAP = Path("/sys/class/powercap")
STAT = Path("/proc/stat")
MIB = 2**20
ENERGY_SECONDS = 2.0  # counters are read over at least so long
FIRST_ANSWER = """
import sys
from offramp import Engine
Engine(sys.argv[1], threads=int(sys.argv[2])).predict(*[["a gripping, funny film"]] * int(sys.argv[3]))
"""


class FlopShares:
    """FLOPs of every baseline as a share of the full model's, on any of the texts.

    Args:
        artifacts: the files that the baselines are built from.
        encodings: token ids of the texts.
        passed: for baselines that read texts, by name, the layers of the second model (0 for none), and the texts
            that reach it `(examples,)`.
    """

    def __init__(
        self,
        artifacts: BenchArtifacts,
        encodings: Sequence[Encoding],
        passed: Mapping[str, tuple[int, NDArray[np.bool_]]],
    ) -> None:

        def spent(precision: str, policy: Path | None) -> NDArray[np.float64]:
            return make_engine(artifacts, precision, policy).run(encodings).flops

        self.spent = cache(spent)
        segments = OnnxSegments(artifacts.work / "fp32", threads=1, verify=False)
        depths, self.full = depth_flops(segments, encodings)
        self.depths = dict(zip([layer for layer in artifacts.layers if layer], depths.T, strict=True))
        self.passed = passed

    def of(self, name: str, baseline: Baseline, texts: NDArray[np.intp]) -> float:
        """The share on these texts, by index; they may repeat."""
        if baseline.kind == "full":
            return 1.0
        if name in self.passed:
            layer, stays = self.passed[name]
            spent = stays * self.depths.get(layer, self.full)
        elif baseline.layer is not None:
            spent = self.depths[baseline.layer]
        else:
            spent = self.spent(baseline.precision, baseline.policy)
        return float(spent[texts].sum() / self.full[texts].sum())


def depth_flops(
    segments: Segments[Any], encodings: Sequence[Encoding]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FLOPs of models that end behind each exit `(examples, exits)`, without layer 0, and of the full one."""
    exits, full = segments.flops(token_counts(encodings))
    return (exits[:, 1:] - exits[:, :1], full) if segments.exit_layers[0] == 0 else (exits, full)


def depth_costs(work: Path, encodings: Sequence[Encoding]) -> NDArray[np.float64]:
    """Costs `(exits,)` of these models, as shares of the full model's."""
    exits, full = depth_flops(OnnxSegments(work / "fp32", threads=1, verify=False), encodings)
    return np.asarray(exits.sum(axis=0) / full.sum())


class EnergyMeter:
    """Reads RAPL counters (Intel's and AMD's) from Linux's folder of them.

    Attributes:
        available: whether there is a counter that may be read.
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


def joules(call: Callable[[], object], size: int) -> float | None:
    """Energy of the whole processor per text, over a few seconds of requests; None where it cannot be read."""
    energy = EnergyMeter()
    if not energy.available:
        return None
    before, started, count = energy.read(), time.perf_counter(), 0
    while time.perf_counter() - started < ENERGY_SECONDS:
        call()
        count += size
    spent = energy.joules(before, energy.read())
    return None if spent is None else spent / count


def peak_memory(artifacts: BenchArtifacts, name: str, texts: Sequence[Any]) -> float | None:
    """Peak resident memory in MiB of a fresh process that builds one baseline and answers one batch."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, artifacts, name, list(texts)).result()


def _peak(artifacts: BenchArtifacts, name: str, texts: Sequence[Any]) -> float | None:
    run = find_baselines(artifacts)[name].build(artifacts)
    run(texts)
    if isinstance(run, RemotePeer):  # its memory is another process's
        return run.peak_mib
    status = Path("/proc/self/status")
    if status.exists():  # on Linux a child inherits its parent's ru_maxrss, but has its own VmHWM
        lines = status.read_text().splitlines()
        return float(next(line for line in lines if "VmHWM" in line).split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes on macOS


def cold_start(folder: Path, threads: int, repeats: int = 5, *, progress: bool = False) -> Timing:
    """From the start of a fresh Python to the first answer of an exported folder; the first run is not counted."""
    package = str(Path(__file__).resolve().parents[2])  # whichever copy of it is running
    code = f"import sys; sys.path.insert(0, {package!r}){FIRST_ANSWER}"
    parts = 2 if Manifest.load(folder).pair else 1
    command = [sys.executable, "-c", code, str(folder), str(threads), str(parts)]
    seconds = []
    for _ in display.track(range(repeats + 1), "start fresh processes", show=progress, timed=True):
        before = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - before)
    return Timing(np.array(seconds[1:]))


class OtherCpuLoad:
    """Cores that other processes keep busy, from its creation on, by Linux's counters."""

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
        """Seconds of all busy cores, of this process and its children, and of the clock."""
        if not self.stat.exists():
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, self.stat.read_text().split()[1:9])
        ticks = os.sysconf("SC_CLK_TCK")
        spent = os.times()
        own = spent.user + spent.system + spent.children_user + spent.children_system
        return (user + nice + system + irq + softirq + steal) / ticks, own, time.perf_counter()
