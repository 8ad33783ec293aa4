"""One attack on a ray cluster: workers get a group of examples at a time; what a dead one had goes to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from offramp._core.cluster import PATIENCE, RETRIES, connect, worker_slots
from offramp._core.errors import OfframpError
from offramp.attacks.examples import Example, Examples
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.model.loading import named_device

if TYPE_CHECKING:
    from offramp.attacks.run import AttackSpec

Rows = list[dict[str, Any]]


class Worker:
    """One process of the cluster, with the attack ready to run."""

    def __init__(self, job: AttackSpec) -> None:
        if isinstance(job.victim, WhiteBoxVictim):
            model: nn.Module = job.victim.model  # the library types its own `to` for dtypes alone
            model.to(named_device("auto"))
        self.opened = job.open()

    def group(self, examples: list[Example]) -> Rows:
        """The rows of a group, attacked side by side as in one process."""
        return self.opened.group(examples)


def on_ray(
    job: AttackSpec, examples: Examples, groups: Sequence[Sequence[int]], workers: int | Literal["all"]
) -> Iterator[Rows]:
    """The rows of all groups, in the order in which they are finished.

    A group is attacked as in one process, side by side, by a worker that has the whole job: so its rows are the
    same, but for the clock. Where a worker dies its group is given to a new one.

    Args:
        job: what to do; it is sent to every worker once.
        examples: those that the groups name.
        groups: places of examples.
        workers: how many, or "all" for as many as the cluster has processors (or GPUs) for.

    Raises:
        MissingExtraError: ray is not installed.
        OfframpError: what a worker raises; or the workers of one group died again and again.
    """
    if not groups:
        return
    ray = connect()
    count, takes = worker_slots(ray, None if workers == "all" else workers)
    remote, sent = ray.remote(**takes)(Worker), ray.put(job)
    waiting, died = deque(range(len(groups))), [0] * len(groups)
    idle = deque(remote.remote(sent) for _ in range(min(count, len(groups))))
    running: dict[Any, tuple[Any, int]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                worker, place = idle.popleft(), waiting.popleft()
                running[worker.group.remote(examples.take(groups[place]))] = worker, place
            over, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
            for task in over:
                worker, place = running.pop(task)
                rows = _collect(ray, task)
                if rows is None:
                    died[place] += 1
                    _give_up(died[place], groups[place])
                    waiting.appendleft(place)
                    worker = remote.remote(sent)
                idle.append(worker)
                if rows is not None:
                    yield rows
    finally:
        for worker in (*idle, *(worker for worker, _ in running.values())):
            ray.kill(worker)


def _collect(ray: Any, task: Any) -> Rows | None:
    """The rows of a group; None where its worker died."""
    try:
        rows: Rows = ray.get(task)
    except ray.exceptions.RayActorError:
        return None
    except OfframpError as error:  # raised by the worker: ray passes it on as its own kind
        raise getattr(error, "cause", error) from error
    return rows


def _give_up(times: int, group: Sequence[int]) -> None:
    if times > RETRIES:
        raise OfframpError(
            f"the workers of the group that starts with example {group[0]} died {times} times: attack it in one "
            "process to see why; what is finished is kept"
        )
