"""Dynamic batching: requests that wait together run together, the earliest deadline first."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from offramp.engine.batching import token_counts
from offramp.engine.policy import Decisions
from offramp.engine.segment_times import SegmentTimes, guess_times
from offramp.inference.engine import Engine
from offramp.serving.errors import Closing, DeadlinePassed, Overloaded
from offramp.serving.hooks import Hooks, Submission

SMOOTHING = 0.2  # weight of the newest batch in the estimate of the machine's speed
WARM_UP = 3


@dataclass
class Ticket:
    """A request in the queue.

    Attributes:
        submission: its rows.
        exits: the exit, 0-based, at which each row leaves at the latest `(rows,)`; None for no cap.
        deadline: when its batch must end, by `time.monotonic`.
        answer: gets the decisions.
    """

    submission: Submission
    exits: NDArray[np.intp] | None
    deadline: float
    answer: Future[Decisions] = field(default_factory=Future)
    arrived: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.rows = len(self.submission)
        self.longest = int(token_counts(self.submission.encodings).max())


class BatchTimes:
    """Predicts the seconds of a batch from the times of the segments and from the batches so far.

    The times of the segments give the shape. The batches so far give the scale, which covers early exits, threads and
    a busy machine.
    """

    def __init__(self, times: SegmentTimes) -> None:
        self.times = times
        self.scale: float | None = None

    def seconds(self, rows: int, longest: int) -> float:
        """Predicted seconds; 0 before the first batch."""
        return 0.0 if self.scale is None else self.scale * self._full_depth(rows, longest)

    def learn(self, rows: int, longest: int, seconds: float) -> None:
        """Take a measured batch into account."""
        newest = seconds / self._full_depth(rows, longest)
        self.scale = newest if self.scale is None else (1 - SMOOTHING) * self.scale + SMOOTHING * newest

    def _full_depth(self, rows: int, longest: int) -> float:
        return sum(self.times.ms(k, rows, longest) for k in range(len(self.times.fixed)))


class Batcher:
    """A queue before an engine, and the thread that runs it.

    The thread never waits for a batch to fill: it takes what waits, so a text that comes alone runs at once, and
    batches grow under load by themselves. Requests run in the order of their deadlines. A batch takes no further
    request once its predicted end would pass the earliest deadline in it.

    Args:
        name: of the model.
        engine: runs the batches.
        hooks: told about every batch.
        queue_rows: most rows that wait.
    """

    def __init__(self, name: str, engine: Engine, hooks: Hooks, queue_rows: int) -> None:
        self.name, self.engine, self.hooks, self.queue_rows = name, engine, hooks, queue_rows
        compacting = engine.compacting
        self.batch_rows = compacting.batch_size * compacting.workers.count
        self.times = BatchTimes(guess_times(engine.segments))
        self.waiting_rows = 0
        self._waiting: list[tuple[float, int, Ticket]] = []
        self._numbers = itertools.count()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name=f"offramp-{name}", daemon=True)

    def start(self) -> None:
        """Run a few texts, so that the first request finds a warm engine, and begin to take requests."""
        encodings = self.engine.encode(["word " * 9], ["word"] if self.engine.pair else None)
        for _ in range(WARM_UP):
            started = monotonic()
            self.engine.compacting.run(encodings)
            self.times.learn(1, len(encodings[0]["input_ids"]), monotonic() - started)
        self._thread.start()

    def check_room(self, rows: int) -> None:
        """Raise `Overloaded` if some rows do not fit in the queue, `Closing` if the service stops."""
        if self._closed:
            raise Closing("the service is stopping: try another one")
        if self.waiting_rows and self.waiting_rows + rows > self.queue_rows:
            # What waits runs in batches of this many rows.
            batches = math.ceil(self.waiting_rows / self.batch_rows)
            wait = batches * self.times.seconds(self.batch_rows, 32)
            raise Overloaded(
                f"{self.waiting_rows} texts wait for model {self.name!r} already: try again later",
                max(1.0, wait),
            )

    def submit(self, ticket: Ticket) -> None:
        """Put a request in the queue; raises what `check_room` raises."""
        with self._changed:
            self.check_room(ticket.rows)
            heapq.heappush(self._waiting, (ticket.deadline, next(self._numbers), ticket))
            self.waiting_rows += ticket.rows
            self._changed.notify()

    def close(self) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch, expired = self._collect(monotonic())
            for ticket in expired:
                ticket.answer.set_exception(
                    DeadlinePassed("the deadline passed while the texts waited: give more time, or try again")
                )
            if batch:
                self._answer(batch)

    def _collect(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """Take the next batch out of the queue, and the requests whose deadline passed."""
        batch: list[Ticket] = []
        expired: list[Ticket] = []
        rows = longest = 0
        while self._waiting:
            ticket = self._waiting[0][2]
            if ticket.deadline <= now or ticket.answer.cancelled():
                expired.append(ticket)
            else:
                size, length = rows + ticket.rows, max(longest, ticket.longest)
                late = now + self.times.seconds(size, length) > self._earliest(batch, ticket)
                if batch and (size > self.batch_rows or late):
                    break
                batch.append(ticket)
                rows, longest = size, length
            heapq.heappop(self._waiting)
            self.waiting_rows -= ticket.rows
        return batch, [ticket for ticket in expired if ticket.answer.set_running_or_notify_cancel()]

    @staticmethod
    def _earliest(batch: Sequence[Ticket], ticket: Ticket) -> float:
        return batch[0].deadline if batch else ticket.deadline

    def _answer(self, batch: Sequence[Ticket]) -> None:
        """Run a batch and hand out the decisions; if it fails, its requests run one by one."""
        batch = [
            ticket
            for ticket in batch
            if ticket.answer.running() or ticket.answer.set_running_or_notify_cancel()
        ]
        if not batch:
            return
        started = monotonic()
        encodings = [encoding for ticket in batch for encoding in ticket.submission.encodings]
        try:
            decisions = self.engine.compacting.run(encodings, caps=self._caps(batch))
        except Exception as error:  # whatever it is, the thread must live and each request get an answer
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            for ticket in batch if len(batch) > 1 else ():
                self._answer([ticket])
            return
        seconds = monotonic() - started
        self.times.learn(len(encodings), max(ticket.longest for ticket in batch), seconds)
        self.hooks.ran_batch(self.name, len(encodings), self.waiting_rows, seconds)
        first = 0
        for ticket in batch:
            ticket.submission.seconds |= {"queue": started - ticket.arrived, "inference": seconds}
            ticket.answer.set_result(decisions.rows(slice(first, first + ticket.rows)))
            first += ticket.rows

    def _caps(self, batch: Sequence[Ticket]) -> NDArray[np.intp] | None:
        if all(ticket.exits is None for ticket in batch):
            return None
        last = len(self.engine.segments.exit_layers) - 1
        return np.concatenate(
            [np.full(ticket.rows, last) if ticket.exits is None else ticket.exits for ticket in batch]
        )
