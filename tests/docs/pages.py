"""The blocks of a page, and how each kind of block is run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.cli.main import make_app, run

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "start.md", *sorted(DOCS.glob("guides/*.md")), *sorted(DOCS.glob("concepts/*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
LASTING = {"serve"}  # commands that run until they are stopped: only their options are read


@dataclass(frozen=True)
class Block:
    """A code block: its language, the file that its title names (or ""), and its text."""

    language: str
    title: str
    text: str

    def run(self, scope: dict[str, Any]) -> None:
        """Run it in the current folder; a block with a title is written to the file of that name.

        Args:
            scope: the names that the Python blocks of a page share.
        """
        if self.title:
            Path(self.title).write_text(self.text, encoding="utf-8")
        elif self.language == "python":
            exec(compile(self.text, "a block of the page", "exec"), scope)
        elif self.language == "sh":
            for words in commands(self.text):
                run_command(words)


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [Block(*parts) for parts in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str]) -> None:
    """Run an `offramp` command in this process; what installs packages, or asks a running service, is left alone."""
    program, *arguments = words
    assert program in ("offramp", "pip", "make", "curl"), f"no block may call {program}"
    if program != "offramp":
        return
    if arguments[0] in LASTING:
        make_app(words=arguments).parse_args(arguments, exit_on_error=False, print_error=False)
    else:
        assert run(arguments) == 0, shlex.join(words)
