"""What identifies an attack's policy, weights and texts in its records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from offramp.engine.policy import Policy


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Everything that decides a policy's exits, as JSON."""
    criterion = {"name": policy.criterion.name, **asdict(policy.criterion)}
    return {"criterion": criterion, "exit_layers": policy.exit_layers, "temperatures": policy.temperatures}


def weights_fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits that change with any weight."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def texts_fingerprint(rows: Iterable[tuple[int, tuple[str, ...]]]) -> str:
    """16 hexadecimal digits of ids and texts in their order."""
    digest = hashlib.sha256(b"[")
    for i, row in enumerate(rows):
        digest.update((", " * (i > 0) + repr(row)).encode("utf-8", "surrogatepass"))
    digest.update(b"]")
    return digest.hexdigest()[:16]
