"""The template engine of the page, its script, and the policy that lets no other script run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from offramp._core.errors import MissingExtraError
from offramp._core.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def macros() -> Any:
    """The macros that make the blocks of the page."""
    return environment().get_template("macros.html.j2").module


def page_script() -> str:
    """The script of the page, which may stand in an element as it is."""
    script = resources.files("offramp.reports").joinpath("templates/page.js").read_text(encoding="utf-8")
    assert "</script" not in script.lower()
    assert "<!--" not in script
    return script


@cache
def environment() -> Environment:
    """The template engine: escapes every value and writes out invisible characters."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", "torch") from error

    made = Environment(
        loader=PackageLoader("offramp.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )
    # The filter `tojson` also escapes whatever could end the script element.
    made.policies["json.dumps_kwargs"] = {
        "sort_keys": True,
        "allow_nan": False,
        "separators": (",", ":"),
        "ensure_ascii": False,
    }
    return made


def content_policy(script: str) -> str:
    """The content security policy: this script may run, nothing may be fetched."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    scripts = f"script-src 'sha256-{digest}'"
    return f"default-src 'none'; {scripts}; style-src 'unsafe-inline'; img-src data: blob:"
