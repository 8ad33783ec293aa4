"""The task table: columns, class names and metrics of each task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from offramp._core.trace import Kind


@dataclass(frozen=True)
class Task:
    """One labelled task.

    Attributes:
        labels: class names in their official order; empty for regression.
        metrics: names from `offramp.metrics`; the first is the main one.
        values: spelling of each class in the files, in the same order; empty if the files have the names.
        text: column of the text; a number for files without a header.
        text_pair: column of the second text, or None.
        folder: usual name of the task's folder.
        bounds: lowest and highest label of a regression task.
    """

    name: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    values: tuple[str, ...] = ()
    text: str | int = "text"
    text_pair: str | int | None = None
    label: str | int = "label"
    folder: str = ""
    bounds: tuple[float, float] | None = None

    @property
    def kind(self) -> Kind:
        return "classification" if self.labels else "regression"

    @property
    def columns(self) -> tuple[str | int, ...]:
        """The columns a labelled file must have."""
        pair = () if self.text_pair is None else (self.text_pair,)
        return (self.text, *pair, self.label)


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_sentences = partial(Task, text="sentence1", text_pair="sentence2")

# Wang et al. 2018 (arXiv 1804.07461), table 1; class order as in the official scripts.
GLUE: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "cola",
            ("unacceptable", "acceptable"),
            ("matthews", "accuracy"),
            _BINARY,
            text=3,
            label=1,
            folder="CoLA",
        ),
        Task("sst2", ("negative", "positive"), ("accuracy",), _BINARY, text="sentence", folder="SST-2"),
        Task(
            "mrpc",
            ("not_equivalent", "equivalent"),
            ("accuracy", "f1"),
            _BINARY,
            text="#1 String",
            text_pair="#2 String",
            label="Quality",
            folder="MRPC",
        ),
        Task(
            "qqp",
            ("not_duplicate", "duplicate"),
            ("accuracy", "f1"),
            _BINARY,
            text="question1",
            text_pair="question2",
            label="is_duplicate",
            folder="QQP",
        ),
        _sentences("stsb", (), ("pearson", "spearman"), label="score", folder="STS-B", bounds=(0.0, 5.0)),
        _sentences(
            "mnli",
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            label="gold_label",
            folder="MNLI",
        ),
        Task("qnli", _ENTAILMENT, ("accuracy",), text="question", text_pair="sentence", folder="QNLI"),
        _sentences("rte", _ENTAILMENT, ("accuracy",), folder="RTE"),
        _sentences("wnli", ("not_entailment", "entailment"), ("accuracy",), _BINARY, folder="WNLI"),
    )
}


def plain_name(name: str) -> str:
    """A task's name without case, hyphens and underscores: "SST-2" and "sst2" are one."""
    return name.lower().replace("-", "").replace("_", "")
