"""Small tables in every format."""

import json
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

WORDS = ("bad", "good")


def records(n: int = 40, start: int = 0) -> list[dict[str, object]]:
    return [{"text": f"text {i}", "label": WORDS[i % 2]} for i in range(start, start + n)]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        sep = "," if path.suffix == ".csv" else "\t"
        lines = [
            sep.join(rows[0]),
            *(sep.join("" if v is None else str(v) for v in r.values()) for r in rows),
        ]
        path.write_text("\n".join(lines) + "\n")
    return path


SUFFIXES = [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"]
