"""`offramp pack`: keep the records, rows and traces of many runs in a few small files."""

from __future__ import annotations

from offramp.cli.common import JsonFlag, emit, note
from offramp.cli.paths import PathOption, writing


def pack(runs: PathOption, output: PathOption, *, json: JsonFlag = False) -> None:
    """Pack runs into a few files that reports and studies read as they read the runs.

    For example `offramp pack runs results/my-study`. Records become one file, rows of attacks and evaluations one,
    traces one, inner products of gradients one. Models and checkpoints are left out. The runs stay as they are.

    Args:
        runs: folder of the runs.
        output: folder to write to.
    """
    from offramp._core.run_files import pack as write

    with writing(output):
        counts = write(runs, output, progress=True)
    for name, count in counts.items():
        if count:
            note(f"{output / name}: {count} files, {(output / name).stat().st_size / 1e6:.1f} MB")
    emit(json, counts)
