"""The model card: a README.md in the folder of the weights, generated from the config and the records beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from offramp._core.environment import versions
from offramp._core.errors import DataError
from offramp._core.files import atomic_write
from offramp._core.markdown import plain_markdown
from offramp._core.paths import UserPath, user_path
from offramp._core.records import FILE_NAME, read_record
from offramp._core.run_files import RunFiles
from offramp._core.text import some_of
from offramp.model.config import MultiExitConfig

FILE = "README.md"
CONFIG = "config.json"
TRAINING_RECORD = "train.json"
WEIGHTS = "*.safetensors"
POLICIES = "policy*.json"  # of a run, and of an export
MOST_LABELS = 20
SHOWN = ("exits", "pooling", "gates", "max_tokens", "strategy", "pair")
TARGETS = ("max_accuracy_drop", "max_cost", "max_latency_ms", "guarantee", "risk", "alpha", "delta")
# The digest tells a generated block from one that somebody edited.
MARK = "<!-- offramp {digest}: generated from the records; text outside this block, or an edited block, is kept -->"
END = "<!-- /offramp -->"
BLOCK = re.compile(rf"<!-- offramp (\w+): [^>]*-->\n(.*?){re.escape(END)}", re.DOTALL)


def update_card(folder: UserPath, loaded_from: str = "") -> Path | None:
    """Write the card of the model in a folder, or bring its generated block up to date.

    A card without such a block, or with one that somebody edited, is left alone. So is all text outside the block.

    Args:
        folder: of a run, whose weights are in `model`; or of the weights.
        loaded_from: the folder that the model came from. If it holds the same weights, the records beside it count.

    Returns:
        The card; None where the folder holds no model.

    Raises:
        OfframpError: the card cannot be written.
    """
    root = user_path(folder)
    weights = next((path for path in (root, root / "model") if (path / CONFIG).is_file()), None)
    if weights is None:
        return None
    # Through the class, since a file of the library's holds only what differs from the defaults.
    config = MultiExitConfig.from_dict(json.loads((weights / CONFIG).read_text(encoding="utf-8")))
    source = Path(loaded_from)
    run = _run_of(source) if loaded_from and _same_weights(source, weights) else root
    return _write_card(weights / FILE, config, run, _policies((root, weights)))


def write_export_card(
    folder: Path, config: MultiExitConfig, loaded_from: str, exported: Mapping[str, Any]
) -> Path:
    """Write the card of an exported folder: that of its model, and how the export is run.

    Args:
        folder: of the export, with its policy.
        config: of the model.
        loaded_from: the folder of the model, whose records count.
        exported: its `precision`, and its `checks` against the model.
    """
    run = _run_of(Path(loaded_from)) if loaded_from else folder
    return _write_card(folder / FILE, config, run, _policies((folder,)), exported)


def _write_card(
    path: Path,
    config: MultiExitConfig,
    run: Path,
    policies: Sequence[Mapping[str, Any]],
    exported: Mapping[str, Any] | None = None,
) -> Path:
    """Write a card, or bring its generated block up to date, from the records of a run."""
    block = _render(_facts(config, run, policies) | {"exported": exported})
    marked = f"{MARK.format(digest=_digest(block))}\n{block}{END}"
    if not path.exists():
        _write(path, f"{_header(config)}\n{marked}\n")
        return path
    before = path.read_bytes().decode("utf-8", "surrogateescape")
    blocks = [match for match in BLOCK.finditer(before) if match[1] == _digest(match[2])]
    if len(blocks) == 1 and blocks[0][0] != marked:
        start, end = blocks[0].span()
        _write(path, before[:start] + marked + before[end:])
    return path


def _run_of(weights: Path) -> Path:
    """The folder of the run that weights belong to: the one above, where it holds the record of their training."""
    above = weights.resolve().parent
    return above if (above / TRAINING_RECORD).is_file() else weights


def _same_weights(source: Path, weights: Path) -> bool:
    """Whether two folders hold the same files of weights."""
    names = sorted(path.name for path in weights.glob(WEIGHTS))
    if not names or names != sorted(path.name for path in source.glob(WEIGHTS)):
        return False
    return all(_file_digest(source / name) == _file_digest(weights / name) for name in names)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    """Write a card; what is not UTF-8 in its owner's text stays, and so do line ends."""
    with atomic_write(path) as draft:
        draft.write_bytes(text.encode("utf-8", "surrogateescape"))


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _header(config: MultiExitConfig) -> str:
    """The YAML header that the model hub reads."""
    from huggingface_hub import ModelCardData

    strategy = [config.strategy] if config.strategy else []
    data = ModelCardData(
        library_name="offramp",
        pipeline_tag="text-classification",
        tags=["offramp", "early-exit", "multi-exit", *strategy],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _render(facts: Mapping[str, Any]) -> str:
    """The generated block. Every value is escaped, since names come from data."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("offramp.model"),
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # `_shown` escapes for Markdown
    )
    text = environment.get_template("card.md.j2").render(**facts)
    return re.sub(r"\n{3,}", "\n\n", text)


def _shown(value: Any) -> str:
    """A value as Markdown: three decimals for floats, a dash for what is missing."""
    if value is None or value != value:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return f"{value:.3f}" if isinstance(value, float) else plain_markdown(str(value))


def _facts(config: MultiExitConfig, root: Path, policies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    backbone = config.backbone
    records = _records(root)
    training = next((_training(record) for record in records if record["command"] == "train"), None)
    evaluation = next(filter(None, (_evaluation(record, root) for record in records)), None)
    if evaluation is not None:
        rules = [(policy["rule"], policy["threshold"]) for policy in policies]
        evaluation["outdated"] = (
            bool(rules) and (evaluation["criterion"], evaluation["threshold"]) not in rules
        )
    attacks = [_attack(record) for record in records if record["command"] == "attack"]
    return {
        "version": versions()["offramp"],
        "encoder": Path(config.backbone_config.get("_name_or_path") or "").name or backbone.model_type,
        "model_type": backbone.model_type,
        "depth": backbone.num_hidden_layers,
        **{name: getattr(config, name) for name in SHOWN},
        "task": _task(config),
        "training": training,
        "policies": policies,
        "evaluation": evaluation,
        "attacks": attacks,
        "limits": _limits(config, records),
    }


def _task(config: MultiExitConfig) -> str:
    texts = {True: "pairs of texts", False: "single texts", None: "texts"}[config.pair]
    if config.kind == "regression":
        return f"a score for {texts}"
    labels = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return f"{texts} in {len(labels)} classes: {some_of(labels, MOST_LABELS)}"


def _records(root: Path) -> list[dict[str, Any]]:
    """The readable records of a run, each with its folder as `path`. A damaged one is left out, as a report does."""
    records = []
    for path in (root / TRAINING_RECORD, *sorted(root.glob(f"*/{FILE_NAME}"))):
        with suppress(DataError):
            records.append({**read_record(path), "path": path.parent.relative_to(root)})
    return records


def _training(record: Mapping[str, Any]) -> dict[str, Any]:
    config, metrics, hardware = record["config"], record["metrics"], record["hardware"]
    names = ("examples", "data", "max_steps", "batch_size")
    return {
        **{name: config.get(name) for name in names},
        "epochs": f"{config.get('epochs', 0):g}",
        "name": metrics.get("data"),
        "minutes": metrics.get("train_seconds", 0.0) / 60,
        "seed": record["seed"],
        "started": record["started"][:10],
        "cpu": hardware.get("cpu"),
        "gpu": hardware.get("gpu"),
    }


def _policies(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The policies beside a model, each with its target and what it reached on the calibration data."""
    files = {path.resolve(): path for folder in folders for path in sorted(folder.glob(POLICIES))}
    policies = []
    for path in files.values():
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            policy = json.loads(path.read_text(encoding="utf-8"))
            target = policy.get("target", {})
            wanted = [f"{name} {target[name]}" for name in TARGETS if target.get(name) is not None]
            policies.append(
                {
                    "rule": policy["criterion"]["name"],
                    "threshold": policy["criterion"]["threshold"],
                    "temperatures": policy.get("temperatures"),
                    "target": ", ".join(wanted) or None,
                    "score": f"{target['metric']} {target['reached']:.3f}" if "reached" in target else None,
                    "cost": target.get("cost"),
                }
            )
    return policies


def _evaluation(record: Mapping[str, Any], root: Path) -> dict[str, Any] | None:
    """What a card shows of an evaluation; None for another record, or one whose table cannot be read."""
    table = record["tables"].get("per_exit")
    if record["command"] != "evaluate" or not isinstance(table, str):
        return None
    with suppress(DataError):
        rows = RunFiles(root).table((record["path"] / table).as_posix()).to_pylist()
        metrics = record["metrics"]
        shown = [row for row in rows if row.get("metric") == metrics.get("metric")]
        return {
            **{
                name: metrics.get(name)
                for name in ("metric", "score", "full", "cost", "criterion", "threshold")
            },
            **{name: record["config"].get(name) for name in ("data", "split", "examples")},
            "exits": [
                {name: row.get(name) for name in ("layer", "cost", "score", "low", "high")} for row in shown
            ],
        }
    return None


def _attack(record: Mapping[str, Any]) -> dict[str, Any]:
    metrics, config = record["metrics"], record["config"]
    metric = metrics.get("metric", "accuracy")
    return {
        **{name: config.get(name) for name in ("recipe", "data")},
        **{name: metrics.get(name) for name in ("examples", "clean_depth", "adversarial_depth", "gain_drop")},
        "metric": metric,
        "clean": metrics.get(f"clean_{metric}"),
        "adversarial": metrics.get(f"adversarial_{metric}"),
    }


def _limits(config: MultiExitConfig, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the model cannot do by its config, and the doubts of its records, each once."""
    limits = [
        f"It reads the first {config.max_tokens} tokens of a text.",
        "Its scores hold for texts like those that they were measured on.",
        "Where it leaves can be seen in the time of an answer, and tells something about the text.",
    ]
    doubts = [
        f"{record['command']}: {doubt}"
        for record in records
        for doubt in record["metrics"].get("doubts") or ()
    ]
    return [*limits, *dict.fromkeys(doubts)]
