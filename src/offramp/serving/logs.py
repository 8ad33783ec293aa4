"""Logs as one JSON object a line. What cannot be logged is dropped: a full disk must not end the service."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from offramp._core.files import write_failure


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, event, and the facts of a request."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Lasting(logging.Handler):
    """Passes records to a handler, and drops those that it cannot write.

    Attributes:
        dropped: number of records so far.
    """

    def __init__(self, inner: logging.StreamHandler) -> None:  # type: ignore[type-arg]
        super().__init__()
        self.inner, self.dropped = inner, 0
        inner.setFormatter(JsonLines())
        inner.handleError = self._drop  # type: ignore[method-assign]

    def emit(self, record: logging.LogRecord) -> None:
        self.inner.emit(record)

    def close(self) -> None:
        try:
            self.inner.close()
        except OSError:  # what was buffered when the disk was full
            self.dropped += 1
        super().close()

    def _drop(self, record: logging.LogRecord) -> None:
        self.dropped += 1


def open_log(path: Path | None) -> Lasting:
    """Write the service's log, and the server's own lines, to a file, or to stderr for None.

    Raises:
        OfframpError: the file cannot be opened.
    """
    try:
        inner = (
            logging.StreamHandler(sys.stderr) if path is None else logging.FileHandler(path, encoding="utf-8")
        )
    except OSError as error:
        assert path is not None
        raise write_failure(path, error) from error
    handler = Lasting(inner)
    for name in ("offramp", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    return handler
