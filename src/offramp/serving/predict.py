"""Answers for all rows of a file, in bounded memory; a stopped run resumes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from offramp._core.errors import ConfigError, DataError
from offramp._core.files import atomic_write
from offramp._core.run_folder import RunFolder
from offramp._core.tables import brief
from offramp.data.rows import Table, choose_texts
from offramp.inference.engine import Engine
from offramp.serving.row_files import STDIN, RowFile, format_of, open_rows
from offramp.serving.row_writers import ARROW, ArrowWriter, TextWriter, with_answers

PART_ROWS = 2048
WEIGHTS = (".onnx", ".safetensors", ".bin", ".npz")
WRITTEN = ("jsonl", "json", "csv", "tsv", "parquet", "arrow")
Progress = Callable[[int, float | None], None]  # rows answered so far, share of the input that was read


@dataclass(frozen=True)
class PredictOptions:
    """What is read, and what is added.

    Args:
        text: column of the texts; by default one with a usual name.
        text_pair: column of the second texts, for models that were trained on pairs.
        prefix: put in front of the names of the added columns.
        probabilities: add the probability of each class, as `probability_CLASS`.
        format: of the input, where its name does not end in it: txt, csv, tsv, jsonl, json, parquet or arrow.
    """

    text: str | None = None
    text_pair: str | None = None
    prefix: str = ""
    probabilities: bool = False
    format: str | None = None


def predict_file(
    engine: Engine,
    source: Path,
    output: Path | BinaryIO,
    options: PredictOptions = PredictOptions(),
    *,
    model: str = "",
    on_progress: Progress = lambda rows, share: None,
) -> int:
    """Answer every row of a file, and write all its columns with the answers.

    The rows are written in parts to the folder `OUTPUT.parts`, which are joined at the end. A stopped run leaves them,
    and the same call resumes after the last of them. The output is then equal to that of a run without a stop.

    Args:
        engine: the model.
        source: a file of one of the formats of `row_files`, or `-` for standard input, which does not resume.
        output: a file, whose ending gives the format; or an open binary file, which gets JSON Lines at once.
        options: see `PredictOptions`.
        model: its `fingerprint`: a run with another model is not resumed.
        on_progress: called after each part.

    Returns:
        The number of rows.

    Raises:
        ConfigError: unknown formats, names of columns that the input has already, or another run's parts.
        DataError: rows that cannot be read, have no text, or do not fit in the output's format.
        OfframpError: the output cannot be written.
    """
    form = format_of(source, options.format)
    with ExitStack() as stack:
        if not isinstance(output, Path):
            rows = open_rows(source, form, PART_ROWS, stack)
            return _write_lines(engine, rows, source, output, options, on_progress)
        written = format_of(output)
        if written not in WRITTEN:
            raise ConfigError(f"{output}: texts and answers need columns: write .jsonl, .csv or .parquet")
        if source != STDIN and output.exists() and output.samefile(source):
            raise ConfigError(f"{output} is the input: write to another file")
        rows = open_rows(source, form, PART_ROWS, stack)
        run = _PartsFolder(output, written, engine, rows, source, options)
        return run.write(_settings(engine, source, options, model), on_progress)


def _write_lines(
    engine: Engine,
    rows: RowFile,
    source: Path,
    output: BinaryIO,
    options: PredictOptions,
    on_progress: Progress,
) -> int:
    """Write JSON Lines as they are made."""
    done = 0
    columns = answer_columns(engine, rows.columns, options)
    writer = TextWriter("jsonl", [*rows.columns, *columns])
    for chunk in rows.chunks:
        output.write(writer.rows(_answered(engine, rows, chunk, source, options, done, "jsonl")))
        output.flush()
        done += len(chunk)
        on_progress(done, rows.position())
    return done


class _PartsFolder:
    """An output that is written in parts."""

    def __init__(
        self, output: Path, form: str, engine: Engine, rows: RowFile, source: Path, options: PredictOptions
    ) -> None:
        self.output, self.form, self.engine = output, form, engine
        self.rows, self.source, self.options = rows, source, options
        columns = [*rows.columns, *answer_columns(engine, rows.columns, options)]
        same = format_of(source, options.format) == form
        self.writer = (
            ArrowWriter(form) if form in ARROW else TextWriter(form, columns, rows.dialect if same else None)
        )
        self.folder = RunFolder(output.with_name(f"{output.name}.parts"), "prediction", mark="predict")

    def write(self, settings: dict[str, Any], on_progress: Progress) -> int:
        """Write the parts that are missing, join all of them, and delete them."""
        path = self.folder.path
        if self.source == STDIN:
            with self.folder.lock():  # nothing shows that the same text comes again
                self.folder.discard()
                for stale in path.glob(".0*"):
                    stale.unlink()
        done, files = 0, []
        with self.folder.claim(settings):
            for number, chunk in enumerate(self.rows.chunks):
                file = path / f".{number:08d}"  # hidden, as a run's own files are
                if not file.exists():
                    rows = _answered(
                        self.engine, self.rows, chunk, self.source, self.options, done, self.form
                    )
                    with atomic_write(file) as draft:
                        self.writer.write_part(draft, rows)
                files.append(file)
                done += len(chunk)
                on_progress(done, self.rows.position())
            with atomic_write(self.output) as draft:
                self.writer.join(files, draft)
        shutil.rmtree(path)
        return done


def fingerprint(model: Path) -> str:
    """A folder's path, and a digest of the sizes and times of its weights."""
    files = sorted(path for path in model.rglob("*") if path.suffix in WEIGHTS)
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f"{model} {sha256(repr(facts).encode()).hexdigest()[:16]}"


def _settings(engine: Engine, source: Path, options: PredictOptions, model: str) -> dict[str, Any]:
    """Everything that decides the output."""
    compacting = engine.compacting
    stat = None if source == STDIN else source.stat()
    return {
        "predict": str(source),
        "size": stat and stat.st_size,
        "modified": stat and stat.st_mtime_ns,
        "model": model,
        "exit_layers": list(engine.segments.exit_layers),
        "criterion": {"name": compacting.policy.criterion.name, **asdict(compacting.policy.criterion)},
        "temperatures": compacting.policy.temperatures,
        # Other batches may differ in the last digits of float32.
        "batch_size": compacting.batch_size,
        "threads": compacting.workers.count,
        **asdict(options),
    }


def answer_columns(engine: Engine, columns: Sequence[str], options: PredictOptions) -> list[str]:
    """Names of the added columns; `ConfigError` for a name that is there already."""
    names = [options.prefix + name for name in ("label", "probability", "exit_layer", "cost")]
    if options.probabilities:
        if not engine.labels:
            raise ConfigError("the model answers with a number, which has no probabilities: leave them out")
        names += [f"{options.prefix}probability_{label}" for label in engine.labels]
    if clash := [name for name in names if name in columns]:
        raise ConfigError(
            f"the input has a column {clash[0]!r} already: give a prefix for the added columns, such as "
            "--prefix predicted_"
        )
    return names


def _answered(
    engine: Engine, rows: RowFile, chunk: Any, source: Path, options: PredictOptions, done: int, form: str
) -> Any:
    """The rows of a chunk with their answers."""
    table = Table({name: [] for name in rows.columns}, str(source))
    text, pair = choose_texts(table, options.text, options.text_pair, engine.pair)
    texts = _texts(chunk, text, source, done)
    encodings = engine.encode(texts, None if pair is None else _texts(chunk, pair, source, done))
    decisions = engine.compacting.run(encodings)
    answers = engine.predictions(decisions, engine.flops_full(encodings))
    values: list[Sequence[Any]] = [
        [getattr(answer, name) for answer in answers]
        for name in ("label", "probability", "exit_layer", "cost")
    ]
    if options.probabilities:
        table_of = engine.compacting.policy.probabilities(decisions.exit, decisions.logits)
        values += table_of.T.tolist()
    names = answer_columns(engine, _names(chunk, rows), options)
    return with_answers(chunk, dict(zip(names, values, strict=True)), form)


def _names(chunk: Any, rows: RowFile) -> Sequence[str]:
    """All names in a chunk: rows of JSON Lines may differ."""
    return [*{name for row in chunk for name in row}] if isinstance(chunk, list) else rows.columns


def _texts(chunk: Any, column: str, source: Path, done: int) -> list[str]:
    """The texts of a column; `DataError` names a row without text, counted from 1."""
    if isinstance(chunk, list):
        values: Iterator[Any] = (row.get(column) for row in chunk)
    else:
        values = iter(chunk[column].to_pylist())
    texts = []
    for number, value in enumerate(values, start=done + 1):
        if not isinstance(value, str):
            raise DataError(
                f"{source}, row {number}: expected a text in the column {column!r}, got {brief(value)}: fill it in, or "
                "remove the row"
            )
        texts.append(value)
    return texts
