"""Dynamic batching: requests that wait together run together, and clients take turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from threading import Condition, Lock, Thread
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from offramp.engine.policy import Decisions
from offramp.engine.segment_times import SegmentTimes, guess_times
from offramp.inference.engine import Engine
from offramp.serving.errors import Closing, DeadlinePassed, Overloaded
from offramp.serving.fair_queue import FairQueue, Ticket
from offramp.serving.hooks import Hooks

SMOOTHING = 0.2  # weight of the newest batch in the estimate of the machine's speed
WARM_UP = 3


class BatchTimes:
    """Predicts the seconds of a batch from the times of the segments and from the batches so far.

    The times of the segments give the shape. The batches so far give the scale, which covers early exits, threads and
    a busy machine.
    """

    def __init__(self, times: SegmentTimes) -> None:
        self.sums = sum(times.fixed), sum(times.per_token), sum(times.per_pair)  # over the segments
        self.scale: float | None = None

    def seconds(self, rows: int, longest: int) -> float:
        """Predicted seconds; 0 before the first batch."""
        return 0.0 if self.scale is None else self.scale * self._full_depth(rows, longest)

    def learn(self, rows: int, longest: int, seconds: float) -> None:
        """Take a measured batch into account."""
        newest = seconds / self._full_depth(rows, longest)
        self.scale = newest if self.scale is None else (1 - SMOOTHING) * self.scale + SMOOTHING * newest

    def _full_depth(self, rows: int, longest: int) -> float:
        fixed, per_token, per_pair = self.sums
        return fixed + rows * longest * (per_token + longest * per_pair)


class Answers:
    """Gives each request of a batch its answer once all its rows have left, while others still run.

    Args:
        batch: the requests, whose rows run in this order.
        settle: told the FLOPs of requests before they get their answers.

    Attributes:
        started: by `time.monotonic`.
        gone: rows that have left `(rows,)`.
    """

    def __init__(
        self, batch: Sequence[Ticket], settle: Callable[[Sequence[tuple[Ticket, float]]], None]
    ) -> None:
        self.batch, self.settle, self.started = batch, settle, monotonic()
        self.sizes = np.array([ticket.rows for ticket in batch])
        self.owner = np.repeat(np.arange(len(batch)), self.sizes)  # the request of each row
        self.gone = np.zeros(len(self.owner), dtype=np.bool_)
        self._lock = Lock()

    def left(self, rows: NDArray[np.intp], decide: Callable[[NDArray[np.intp]], Decisions]) -> None:
        """Take note that some rows have left; see `CompactingEngine.run`."""
        with self._lock:
            self.gone[rows] = True
            left = np.bincount(self.owner[self.gone], minlength=len(self.batch))
        complete = np.zeros(len(self.batch), dtype=np.bool_)
        complete[self.owner[rows]] = True
        complete &= left == self.sizes
        if not complete.any():
            return
        decisions = decide(np.flatnonzero(complete[self.owner]))
        ends = np.cumsum(self.sizes[complete]).tolist()
        answers = [decisions.rows(slice(first, end)) for first, end in pairwise([0, *ends])]
        tickets = [self.batch[k] for k in np.flatnonzero(complete).tolist()]
        self.settle([(t, float(answer.flops.sum())) for t, answer in zip(tickets, answers, strict=True)])
        now = monotonic()
        for ticket, answer in zip(tickets, answers, strict=True):
            ticket.submission.seconds |= {
                "queue": self.started - ticket.arrived,
                "inference": now - self.started,
            }
            ticket.answer.set_result(answer)


class Batcher:
    """A queue before an engine, and the thread that runs it.

    The thread never waits for a batch to fill: it takes what waits, so a text that comes alone runs at once, and
    batches grow under load by themselves. Clients take turns, and the requests of a client run in the order of their
    deadlines; see `FairQueue`. A batch takes no further request once its predicted end would pass the earliest deadline
    in it. A request whose texts have left is answered while the others of its batch run on.

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
        self.queue = FairQueue()
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

    def check_room(self, client: str, rows: int) -> None:
        """Raise `Overloaded` if some rows of a client do not fit in the queue, `Closing` if the service stops."""
        if self._closed:
            raise Closing("the service is stopping: try another one")
        if not self.queue.fits(client, rows, self.queue_rows):
            # What waits runs in batches of this many rows.
            batches = math.ceil(self.queue.rows / self.batch_rows)
            wait = batches * self.times.seconds(self.batch_rows, 32)
            raise Overloaded(
                f"{self.queue.rows} texts wait for model {self.name!r} already: try again later",
                max(1.0, wait),
            )

    def submit(self, ticket: Ticket) -> None:
        """Put a request in the queue; raises what `check_room` raises."""
        with self._changed:
            self.check_room(ticket.client, ticket.rows)
            self.queue.push(ticket)
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
                while not self.queue and not self._closed:
                    self._changed.wait()
                if not self.queue:
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
        rows, longest, deadline = 0, 0, math.inf
        while self.queue:
            ticket = self.queue.first()
            if ticket.deadline <= now or ticket.answer.cancelled():
                expired.append(ticket)
                self.queue.give_back(self.queue.pop(), 0.0)
                continue
            size, length = rows + ticket.rows, max(longest, ticket.longest)
            late = now + self.times.seconds(size, length) > min(deadline, ticket.deadline)
            if batch and (size > self.batch_rows or late):
                break
            batch.append(self.queue.pop())
            rows, longest, deadline = size, length, min(deadline, ticket.deadline)
        return batch, [ticket for ticket in expired if ticket.answer.set_running_or_notify_cancel()]

    def _answer(self, batch: Sequence[Ticket]) -> None:
        """Run a batch and hand out the decisions; if it fails, its requests run one by one."""
        batch = [
            ticket
            for ticket in batch
            if ticket.answer.running() or ticket.answer.set_running_or_notify_cancel()
        ]
        if not batch:
            return
        answers = Answers(batch, self._settle)
        encodings = [encoding for ticket in batch for encoding in ticket.submission.encodings]
        try:
            decisions = self.engine.compacting.run(encodings, caps=self._caps(batch), left=answers.left)
        except Exception as error:  # whatever it is, the thread must live and each request get an answer
            for ticket in batch:
                if ticket.answer.done():
                    continue
                if len(batch) == 1:
                    ticket.answer.set_exception(error)
                else:
                    self._answer([ticket])
            return
        seconds = monotonic() - answers.started
        self.times.learn(len(encodings), max(ticket.longest for ticket in batch), seconds)
        self.hooks.ran_batch(self.name, len(encodings), self.queue.rows, seconds)
        answers.left(np.flatnonzero(~answers.gone), decisions.rows)

    def _settle(self, spent: Sequence[tuple[Ticket, float]]) -> None:
        with self._changed:
            for ticket, flops in spent:
                self.queue.give_back(ticket, flops)

    def _caps(self, batch: Sequence[Ticket]) -> NDArray[np.intp] | None:
        if all(ticket.exits is None for ticket in batch):
            return None
        last = len(self.engine.segments.exit_layers) - 1
        return np.concatenate(
            [np.full(ticket.rows, last) if ticket.exits is None else ticket.exits for ticket in batch]
        )
