"""One attack on a ray cluster: workers get a group of examples at a time; a dead worker's group goes to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch import nn

from offramp._core.cluster import PATIENCE, RETRIES, connect, worker_slots
from offramp._core.errors import OfframpError
from offramp.attacks.examples import Example, Examples
from offramp.attacks.prepared import AttackSpec, Rows
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.model.loading import named_device


class Worker:
    """One process of the cluster, with the attack ready to run."""

    def __init__(self, spec: AttackSpec) -> None:
        if isinstance(spec.victim, WhiteBoxVictim):
            model: nn.Module = spec.victim.model  # the library types its own `to` for dtypes alone
            model.to(named_device("auto"))
        self.prepared = spec.prepare()

    def attack_group(self, examples: list[Example]) -> Rows:
        """Attack a group side by side, as in one process."""
        return self.prepared.attack_group(examples)


def on_ray(
    spec: AttackSpec, examples: Examples, groups: Sequence[Sequence[int]], workers: int | Literal["all"]
) -> Iterator[Rows]:
    """Yield the rows of all groups, in the order in which they are finished.

    A worker attacks a group side by side, as one process does, so its rows are the same, except for the clock. If a
    worker dies, a new one gets its group.

    Args:
        spec: the attack; it is sent to every worker once.
        examples: the data.
        groups: positions of examples.
        workers: how many, or "all" for as many as the cluster has processors (or GPUs) for.

    Raises:
        MissingExtraError: ray is not installed.
        OfframpError: a worker raised it, or the workers of one group died repeatedly.
    """
    if not groups:
        return
    ray = connect()
    count, takes = worker_slots(ray, None if workers == "all" else workers)
    remote, sent = ray.remote(**takes)(Worker), ray.put(spec)
    waiting, died = deque(range(len(groups))), [0] * len(groups)
    idle = deque(remote.remote(sent) for _ in range(min(count, len(groups))))
    running: dict[Any, tuple[Any, int]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                worker, number = idle.popleft(), waiting.popleft()
                running[worker.attack_group.remote(examples.take(groups[number]))] = worker, number
            finished, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
            for task in finished:
                worker, number = running.pop(task)
                rows = _collect(ray, task)
                if rows is None:
                    died[number] += 1
                    _give_up(died[number], groups[number])
                    waiting.appendleft(number)
                    worker = remote.remote(sent)
                idle.append(worker)
                if rows is not None:
                    yield rows
    finally:
        for worker in (*idle, *(worker for worker, _ in running.values())):
            ray.kill(worker)


def _collect(ray: Any, task: Any) -> Rows | None:
    """The rows of a group; None if its worker died."""
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
            "process to see why; finished groups are kept"
        )
