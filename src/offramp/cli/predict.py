"""`offramp predict`: answer every row of a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from offramp._core.errors import ConfigError
from offramp._core.files import check_writable, write_failure
from offramp._core.progress import progress
from offramp.cli.common import JsonFlag, Threads, emit, limit_threads, note
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
    json: JsonFlag = False,
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
    elif json:
        raise ConfigError(
            "--json prints a summary on stdout, where the answers go already: give their file with --output"
        )
    limit_threads_of(model, threads)
    with progress(f"load {model.name}"):
        engine = Engine(model, policy, batch_size=batch_size, threads=threads if exported(model) else None)
    options = PredictOptions(text, text_pair, prefix, probabilities, format)
    started = time.monotonic()
    with progress("answer rows") as update:

        def advance(rows: int, share: float | None) -> None:
            update(rows, round(rows / share) if share else None, "")

        target = sys.stdout.buffer if output is None else output
        try:
            rows = predict_file(
                engine, source, target, options, model=fingerprint(model), on_progress=advance
            )
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_failure(Path("stdout") if output is None else output, error) from error
    seconds = time.monotonic() - started
    note(f"{rows} rows in {seconds:.1f} s{'' if output is None else f': {output}'}")
    emit(json, {"output": str(output), "rows": rows, "seconds": seconds})


def exported(model: Path) -> bool:
    """Whether a folder was exported, so that it needs no torch."""
    from offramp.engine.manifest import FILE_NAME

    return (model / FILE_NAME).is_file()


def limit_threads_of(model: Path, threads: int | None) -> None:
    """Set torch's threads, where the model runs in torch."""
    if threads is not None and not exported(model):
        limit_threads(threads)
