"""Our results as TextAttack's, for its loggers and metrics."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any, Literal, get_args

import numpy as np

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.result import AttackResult
from offramp.attacks.victims.base import Answer
from offramp.integrations.textattack.attack import (
    COLUMNS,
    EfficiencyGoalResult,
    depth_score,
    display,
    ground_truth,
)
from offramp.integrations.textattack.library import load_textattack

load_textattack()
from langdetect.lang_detect_exception import LangDetectException  # noqa: E402
from textattack import attack_results  # noqa: E402
from textattack.goal_function_results.goal_function_result import GoalFunctionResultStatus  # noqa: E402
from textattack.shared import AttackedText  # noqa: E402

Success = Literal["last", "later"]


class _Printable:
    """TextAttack guesses the language of a text before display, and fails for a text without letters."""

    def diff_color(self, color_method: str | None = None) -> Any:
        try:
            return super().diff_color(color_method)  # type: ignore[misc]
        except LangDetectException:
            results = (self.original_result, self.perturbed_result)  # type: ignore[attr-defined]
            return tuple(result.attacked_text.printable_text() for result in results)


# TextAttack's loggers distinguish results by the names of their classes.
class SuccessfulAttackResult(_Printable, attack_results.SuccessfulAttackResult):
    """The attack reached its goal."""


class FailedAttackResult(_Printable, attack_results.FailedAttackResult):
    """The attack did not reach its goal."""


class SkippedAttackResult(_Printable, attack_results.SkippedAttackResult):
    """The example left at the last exit before the attack."""


def logged_results(result: AttackResult, *, success: Success = "last") -> list[Any]:
    """Convert the examples of an attack to `textattack.attack_results`, for an `AttackLogManager`.

    TextAttack's summary reports accuracy: its "original accuracy" is the share of examples that were not skipped, its
    "accuracy under attack" the share attacked without success. Scores are `depth_score` without an
    objective, since a result keeps no logits.

    Args:
        result: of `offramp.attack`.
        success: the `last` exit, as in `EfficiencyGoal`, where texts that leave there anyway are skipped; or a `later`
            exit than before, or a longer time. `ConfigError` for anything else.
    """
    if success not in get_args(Success):
        raise ConfigError(unknown_name("kind of success", success, get_args(Success)))
    described = result.metadata.get("policy") or result.metadata
    exits = len(described.get("exit_layers") or ())
    return [_logged(row, exits, success) for row in result.rows]


def _logged(row: Mapping[str, Any], exits: int, success: Success) -> Any:
    clean, adversarial = (_answer(row, side, exits) for side in ("clean", "adversarial"))
    before, after = _texts(row)
    original = _goal_result(before, clean, row, clean.last, queries=1)
    if clean.last:
        original.goal_status = GoalFunctionResultStatus.SKIPPED
        return SkippedAttackResult(original)
    reached = bool(row["reached_last"] if success == "last" else row["success"])
    perturbed = _goal_result(after, adversarial, row, reached, queries=row["forward_queries"])
    return (SuccessfulAttackResult if reached else FailedAttackResult)(original, perturbed)


def _answer(row: Mapping[str, Any], side: str, exits: int) -> Answer:
    return Answer(
        logits=np.empty((exits, 0), np.float32),
        exit=row[f"{side}_exit"],
        layer=row[f"{side}_layer"],
        prediction=row[f"{side}_prediction"],
        spent=row[f"{side}_cost"],
        full_spent=row[f"{side}_full_cost"],
    )


def _goal_result(
    text: Any, answer: Answer, row: Mapping[str, Any], reached: bool, queries: int
) -> EfficiencyGoalResult:
    status = GoalFunctionResultStatus.SUCCEEDED if reached else GoalFunctionResultStatus.SEARCHING
    score, truth = depth_score(answer, ExitDepth()), ground_truth(row["label"])
    return EfficiencyGoalResult(text, answer, display(answer), status, score, queries, truth)


def _texts(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """The texts before and after, with the new index of each word."""
    before, after = (
        AttackedText(
            OrderedDict([("text", row[f"{side}text"])])
            if row["text_pair"] is None
            else OrderedDict(zip(COLUMNS, (row[f"{side}text"], row[f"{side}text_pair"]), strict=True))
        )
        for side in ("", "adversarial_")
    )
    after.attack_attrs["original_index_map"] = word_map(before.words, after.words)
    after.attack_attrs["modified_indices"] = after.all_words_diff(before)
    return before, after


def word_map(before: list[str], after: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each word `(words before,)` its index afterwards, or -1: edits may add words and join them."""
    indices = np.full(len(before), -1, dtype=np.int64)
    for kind, i, end, j, stop in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "delete" and kind != "insert":
            size = min(end - i, stop - j)
            indices[i : i + size] = np.arange(j, j + size)
    return indices
