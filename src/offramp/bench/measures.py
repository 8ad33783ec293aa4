"""What a benchmark measures beside latency: peak memory, energy, cold starts, and shares of FLOPs."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp.bench.baselines import BenchArtifacts, find_baselines, make_engine
from offramp.bench.energy import EnergyMeter
from offramp.engine.batching import Encoding, token_counts
from offramp.engine.timing import Timing

MIB = 2**20
ENERGY_SECONDS = 2.0  # counters are read over at least so long
FIRST_ANSWER = """
import sys
from offramp import Engine
Engine(sys.argv[1], threads=int(sys.argv[2])).predict(["a gripping, funny film"])
"""


class FlopShares:
    """FLOPs of every baseline as a share of the full model's, on any of the texts."""

    def __init__(self, artifacts: BenchArtifacts, encodings: Sequence[Encoding]) -> None:
        engines = {precision: make_engine(artifacts, precision) for precision in ("fp32", "int8")}
        self.spent = {precision: engine.run(encodings).flops for precision, engine in engines.items()}
        self.exits, self.full = engines["fp32"].segments.flops(token_counts(encodings))

    def of(self, precision: str, cut: int | None, texts: NDArray[np.intp]) -> float:
        """The share on these texts, which may repeat.

        Args:
            precision: of our engine, `fp32` or `int8`.
            cut: the exit (0-based) of a model that is cut behind one; None for early exits.
            texts: indices of the texts.
        """
        spent = self.spent[precision] if cut is None else self.exits[:, cut]
        return float(spent[texts].sum() / self.full[texts].sum())


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


def peak_memory(artifacts: BenchArtifacts, name: str, encodings: Sequence[Encoding]) -> float:
    """Peak resident memory in MiB of a fresh process that builds one baseline and answers one batch."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, artifacts, name, list(encodings)).result()


def _peak(artifacts: BenchArtifacts, name: str, encodings: Sequence[Encoding]) -> float:
    find_baselines(artifacts)[name].build(artifacts)(encodings)
    status = Path("/proc/self/status")
    if status.exists():  # on Linux a child inherits its parent's ru_maxrss, but has its own VmHWM
        lines = status.read_text().splitlines()
        return float(next(line for line in lines if "VmHWM" in line).split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes on macOS


def cold_start(folder: Path, threads: int, repeats: int = 5) -> Timing:
    """From the start of a fresh Python to the first answer of an exported folder; the first run is not counted."""
    package = str(Path(__file__).resolve().parents[2])  # whichever copy of it is running
    code = f"import sys; sys.path.insert(0, {package!r}){FIRST_ANSWER}"
    command = [sys.executable, "-c", code, str(folder), str(threads)]
    seconds = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - before)
    return Timing(np.array(seconds[1:]))
