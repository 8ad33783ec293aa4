"""Build the documentation site: `make site`.

The pages link to code, configs and reports by relative paths, which work on a code host. So that they work on the site,
too, all files of the repository are laid out under `build/pages` as they are here. The reference is written there
from docstrings and from the command line's own help.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from importlib import import_module
from pathlib import Path

import offramp
from offramp.cli.main import COMMANDS, SUBCOMMANDS, make_app

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
REFERENCE = Path("docs", "reference")
# The script that draws the flowcharts; the theme would load it from another host whenever a page is read.
MERMAID = "mermaid@12.3.0"
# Rooms with names for users, beside those that `offramp` itself has.
ROOMS = {
    "data": "Data",
    "backbones": "Encoders",
    "layer_zero": "Layer 0",
    "model": "Models",
    "criteria": "Exit rules",
    "calibration": "Thresholds and guarantees",
    "evaluation": "Measuring",
    "attacks": "Attacks",
    "reports": "Reports",
}


def main() -> None:
    """Lay out the pages and build the site in `build/site`; a warning is an error."""
    lay_out(PAGES)
    for name, text in reference().items():
        (PAGES / REFERENCE).mkdir(parents=True, exist_ok=True)
        (PAGES / REFERENCE / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(code)
    bundle_mermaid(ROOT / "build" / "site", ROOT / "build" / "npm")


def lay_out(pages: Path) -> None:
    """Copy the files that git knows, and new ones that it does not ignore."""
    shutil.rmtree(pages, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (pages / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, pages / name)


def bundle_mermaid(site: Path, cache: Path) -> None:
    """Give the pages with drawings the script that draws them, which npm fetches once: no page needs a network."""
    script = cache / f"{MERMAID}.min.js"
    npm = shutil.which("npm")
    if not script.is_file() and npm is None:
        print("npm is not installed: the drawings will need a network to be seen", file=sys.stderr)
        return
    if not script.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        packed = [npm, "pack", "--silent", "--pack-destination", str(cache), MERMAID]
        archive = subprocess.run(packed, check=True, capture_output=True, text=True).stdout.strip()
        with tarfile.open(cache / archive) as tar:
            member = tar.extractfile("package/dist/mermaid.min.js")
            assert member is not None
            script.write_bytes(member.read())
    shutil.copyfile(script, site / "mermaid.min.js")
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if '<pre class="mermaid">' in text:
            up = "../" * (len(page.relative_to(site).parts) - 1)
            added = text.replace("</head>", f'<script src="{up}mermaid.min.js"></script></head>', 1)
            page.write_text(added, encoding="utf-8")


def reference() -> dict[str, str]:
    """The reference's pages by file name: one for `offramp`, one for each room, one for the commands."""
    pages = {"offramp.md": python_page("offramp", "offramp", offramp.__all__)}
    for room, title in ROOMS.items():
        module = f"offramp.{room}"
        pages[f"{room}.md"] = python_page(title, module, import_module(module).__all__)
    return pages | {"commands.md": commands_page()}


def python_page(title: str, module: str, names: list[str]) -> str:
    """A page with the docstrings of a module's names."""
    blocks = [f"# {title}", f"`from {module} import …`", *(f"::: {module}.{name}" for name in names)]
    return "\n\n".join(blocks) + "\n"


def commands_page() -> str:
    """The help of every command."""
    below = [name for commands in SUBCOMMANDS.values() for name in commands]
    return make_app(words=[*COMMANDS, *below]).generate_docs()


if __name__ == "__main__":
    main()
