"""The example in docs/textattack.md runs, where TextAttack is installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.model import MultiExitForSequenceClassification

PAGE = Path(__file__).parents[2] / "docs" / "textattack.md"


@pytest.mark.skipif(
    importlib.util.find_spec("textattack") is None, reason="TextAttack is not installed: make textattack"
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.usefixtures("stop_words")
def test_the_example_on_a_tiny_model_and_a_file(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for split in tiny_data.values() for row in split]
    lines = ["text,label", *(f"{row['text']}{end},{row['label']}" for row in rows for end in ("", " film"))]
    (tmp_path / "sentences.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2, 4])
    model.save_pretrained(tmp_path / "runs" / "sweet" / "model")
    policy = Policy(make_criterion("confidence", 0.5), model.exit_layers)
    policy.save(tmp_path / "runs" / "sweet" / "policy-confidence.json")

    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name, stand_in in {'"movies"': '"sentences.csv"', "take(20)": "take(3)"}.items():
        assert name in code
        code = code.replace(name, stand_in)
    quick = code.replace('"same-word")', '"same-word", similarity="none", rounds=1, top_n=4)')
    assert quick != code
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(quick, str(PAGE), "exec"), scope)
    assert len(scope["results"]) == len(scope["ours"]) == 3
    for name in ("deepwordbug.csv", "same-word.csv"):
        assert len((tmp_path / name).read_text().splitlines()) == 4
