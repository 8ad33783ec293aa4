"""The queue of a model: clients take turns by the work that they cause; the earliest deadline of each goes first."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from offramp.engine.batching import token_counts
from offramp.engine.policy import Decisions
from offramp.serving.hooks import Submission

REMEMBERED = 10_000  # clients whose work counts although they do not wait


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
        self.client, self.flops = self.submission.client, self.submission.reserved


class FairQueue:
    """Tickets of several clients, in turns.

    The client with the least work so far goes first. So a client that floods the queue, or whose texts run deep, delays
    itself more than others. A client that was away gets no credit for it. A ticket counts as its worst case when it
    leaves the queue; `give_back` corrects this.

    Attributes:
        rows: number of rows that wait.

    Source: Goyal, Vin and Cheng 1996 (Start-time fair queueing), with FLOPs as the length of a packet.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._turns: list[tuple[float, int, str]] = []  # a heap: each waiting client once, by its work so far
        self._tickets: dict[str, list[tuple[float, int, Ticket]]] = {}  # heaps by deadline
        self._client_rows: Counter[str] = Counter()
        self._work: dict[str, float] = {}  # FLOPs of each client so far
        self._now = 0.0  # the work of the client whose turn was last
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def fits(self, client: str, rows: int, limit: int) -> bool:
        """Whether the queue has room for more rows of a client, or the client has less than an equal share of it."""
        clients = len(self._tickets) + (client not in self._tickets)
        own = self._client_rows[client] + rows
        return not self.rows or self.rows + rows <= limit or own * clients <= limit

    def push(self, ticket: Ticket) -> None:
        """Add a ticket."""
        if ticket.client not in self._tickets:
            self._tickets[ticket.client] = []
            self._take_turn(ticket.client)
        heapq.heappush(self._tickets[ticket.client], (ticket.deadline, next(self._numbers), ticket))
        self._count(ticket, 1)

    def first(self) -> Ticket:
        """The ticket that `pop` would take out."""
        return self._tickets[self._turns[0][2]][0][2]

    def pop(self) -> Ticket:
        """Take out the ticket whose turn it is."""
        self._now, _, client = heapq.heappop(self._turns)
        ticket = heapq.heappop(self._tickets[client])[2]
        self._count(ticket, -1)
        self._work[client] += ticket.flops
        if self._tickets[client]:
            self._take_turn(client)
        else:
            del self._tickets[client], self._client_rows[client]
            self._forget()
        return ticket

    def give_back(self, ticket: Ticket, spent: float) -> None:
        """Count a ticket that has left as the FLOPs that it cost, from its client's next turn on."""
        if ticket.client in self._work:
            self._work[ticket.client] -= ticket.flops - spent

    def _take_turn(self, client: str) -> None:
        work = self._work[client] = max(self._now, self._work.get(client, 0.0))
        heapq.heappush(self._turns, (work, next(self._numbers), client))

    def _count(self, ticket: Ticket, sign: int) -> None:
        self.rows += sign * ticket.rows
        self._client_rows[ticket.client] += sign * ticket.rows

    def _forget(self) -> None:
        """Start anew when nothing waits; and forget those who do not wait when they are many."""
        if not self._turns:
            self._work.clear()
            self._now = 0.0
        elif len(self._work) > REMEMBERED + 2 * len(self._tickets):
            self._work = {client: self._work[client] for client in self._tickets}
