"""`offramp predict`: answer every row of a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from offramp._core.files import check_writable, write_failure
from offramp.cli.common import Threads, console, limit_threads, note
from offramp.cli.paths import PathOption
from offramp.inference.engine import Engine
from offramp.serving.predict import PredictOptions, fingerprint, predict_file


def predict(
    model: PathOption,
    source: PathOption,
    *,
    output: PathOption | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    format: str | None = None,
    prefix: str = "",
    probabilities: bool = False,
    policy: PathOption | None = None,
    batch_size: int = 32,
    threads: Threads = None,
) -> None:
    """Answer every row of a file: label, probability, exit layer and cost beside all columns that were there.

    For example `offramp predict served reviews.csv --output answers.csv`, or
    `zcat reviews.gz | offramp predict served - > answers.jsonl`. Repeat the command to resume a stopped run: the output
    is the same as without the stop.

    Args:
        model: folder that `offramp export` or `offramp train` wrote.
        source: CSV, TSV, JSON Lines, JSON, Parquet, Arrow, or plain lines (.txt); `-` for plain lines on standard
            input.
        output: output file; its ending gives the format. By default, JSON Lines on standard output.
        text: column of the texts; by default one with a usual name, such as text or sentence.
        text_pair: column of the second texts, for models that were trained on pairs.
        format: of the input, where its name does not show it: txt, csv, tsv, jsonl, json, parquet or arrow.
        prefix: put in front of the names of the added columns.
        probabilities: add the probability of each class.
        policy: a policy file, instead of the one saved with the model.
        batch_size: rows run at once.
    """
    if output is not None:
        check_writable(output, file=True)
    limit_threads_of(model, threads)
    engine = Engine(model, policy, batch_size=batch_size, threads=threads if exported(model) else None)
    options = PredictOptions(text, text_pair, prefix, probabilities, format)
    started = time.monotonic()
    with Progress(
        TextColumn("{task.fields[rows]} rows"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=None, rows=0)

        def advance(rows: int, share: float | None) -> None:
            bar.update(task, rows=rows, completed=share or 0.0, total=None if share is None else 1.0)

        target = sys.stdout.buffer if output is None else output
        try:
            rows = predict_file(
                engine, source, target, options, model=fingerprint(model), on_progress=advance
            )
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_failure(Path("stdout") if output is None else output, error) from error
    note(f"{rows} rows in {time.monotonic() - started:.1f} s{'' if output is None else f': {output}'}")


def exported(model: Path) -> bool:
    """Whether a folder was exported, so that it needs no torch."""
    from offramp.engine.manifest import FILE_NAME

    return (model / FILE_NAME).is_file()


def limit_threads_of(model: Path, threads: int | None) -> None:
    """Set torch's threads, where the model runs in torch."""
    if threads is not None and not exported(model):
        limit_threads(threads)
