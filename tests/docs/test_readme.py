"""The README's quickstart runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"


def quickstart() -> str:
    """The Python block under "Quickstart"."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(block)


def test_quickstart_on_a_tiny_model_and_a_file(
    tiny_encoder: Path,
    tiny_data: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same code with names that need no download: every call and argument is real."""
    rows = [row for split in tiny_data.values() for row in split]
    lines = ["text,label", *(f"{row['text']}{end},{row['label']}" for row in rows for end in ("", " film"))]
    (tmp_path / "sentences.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    code = quickstart()
    for name, stand_in in {"movies": "sentences.csv", "minilm-l6": str(tiny_encoder)}.items():
        assert f'"{name}"' in code
        code = code.replace(f'"{name}"', repr(stand_in))
    code = code.replace("exits=[1, 2, 4, 6]", "exits=[1, 2, 4]").replace(
        "rounds=2", 'rounds=2, similarity="none"'
    )
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), scope)
    assert len(scope["curve"].table) > 3
    assert scope["result"].summary()["examples"] == 8
    assert "adversarial_depth" in capsys.readouterr().out


@pytest.mark.slow
def test_quickstart_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(quickstart(), str(README), "exec"), {})


def test_every_file_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
