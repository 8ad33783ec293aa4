"""The blocks of a page, and how each kind of block is run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.cli.main import make_app, run

DOCS = Path(__file__).parents[2] / "docs"
START = DOCS / "start.md"
GUIDES = sorted(DOCS.glob("guides/*.md"))
CONCEPTS = sorted(DOCS.glob("concepts/*.md"))
PAGES = [START, *GUIDES, *CONCEPTS]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
ELSEWHERE = {"pip", "curl"}  # what installs packages or asks a running service


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
        for arguments in self.commands():
            if arguments[0] == "serve" or "--help" in arguments:  # serve runs until it is stopped
                check_arguments(arguments)
            else:
                assert run(arguments) == 0, shlex.join(arguments)

    def commands(self) -> list[list[str]]:
        """The arguments of each `offramp` command of a shell block."""
        if self.language != "sh":
            return []
        lines = [shlex.split(line, comments=True) for line in self.text.splitlines()]
        assert {words[0] for words in lines} <= {"offramp", *ELSEWHERE}, self.text
        return [words[1:] for words in lines if words[0] == "offramp"]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [Block(*parts) for parts in BLOCK.findall(page.read_text(encoding="utf-8"))]


def check_arguments(arguments: list[str]) -> None:
    """Read the arguments of a command without running it; an option that does not exist is an error."""
    app = make_app(words=arguments)
    app.parse_args(arguments, exit_on_error=False, print_error=False)
