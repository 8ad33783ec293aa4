"""Plans are YAML files whose keys pydantic models describe; an error names the key, what it takes and what it got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from offramp._core.arguments import percent_hint
from offramp._core.errors import ConfigError, unknown_name
from offramp._core.paths import UserPath, user_path

T = TypeVar("T")

# What a key takes, by pydantic's type of error; names in braces are filled from the error's context.
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "a name",
    "bool_type": "true or false",
    "dict_type": "values by name",
    "model_type": "options by name",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
}


class PlanModel(BaseModel):
    """Keys of a plan: a value of another type is refused, and so is an unknown key.

    Attributes:
        kind: what the keys describe, with its article, such as "a sweep".
        example: where an example is.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: ClassVar[str]
    example: ClassVar[str] = "the folder configs"

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """The validated keys; a key without a value counts as left out.

        Raises:
            ConfigError: one line for each unknown key, missing key and unusable value.
        """
        try:
            return cls.model_validate(
                {str(key): value for key, value in content.items() if value is not None}
            )
        except ValidationError as error:
            lines = dict.fromkeys(cls._line(detail) for detail in error.errors())
            raise ConfigError(";\n".join(lines)) from error

    @classmethod
    def _line(cls, error: Mapping[str, Any]) -> str:
        """One error of pydantic's in the project's words."""
        key, context = str((*error["loc"], "")[0]), error.get("ctx", {})
        if error["type"] == "extra_forbidden":
            return unknown_name(f"key of {cls.kind}", key, cls.model_fields)
        if error["type"] in ("missing", "too_short"):
            return f"{cls.kind} needs {key}: see {cls.example}"
        if error["type"] == "value_error":
            return str(context["error"])
        expected = EXPECTED.get(error["type"], error["msg"]).format(**context)
        where = ".".join(name for name in error["loc"] if name and isinstance(name, str))
        hint = (
            percent_hint(error["input"]) if error["type"] == "float_parsing" or context.get("le") == 1 else ""
        )
        return f"expected {expected} in {where}, got {error['input']!r:.80}{hint}"


def listed(given: Any) -> tuple[Any, ...]:
    """One value or several, as a tuple."""
    return () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)


def named(given: Any) -> dict[str, Any]:
    """Values by name, from a mapping, a list of names or one name; a name alone has the value None."""
    pairs = given.items() if isinstance(given, Mapping) else ((name, None) for name in listed(given))
    values: dict[str, Any] = {}
    for name, value in pairs:
        if str(name) in values:
            raise ConfigError(f"{name} is given twice: leave one out")
        values[str(name)] = value
    return values


Several = Annotated[tuple[T, ...], BeforeValidator(listed)]  # `a` or `[a, b]`
ByName = Annotated[
    dict[str, T], BeforeValidator(named)
]  # `{a: …}`; where T may be None, also `a` or `[a, b]`


def read_keys(path: UserPath) -> dict[str, Any]:
    """The keys of a plan's YAML file; `name` is the file's name unless the file gives another.

    Raises:
        ConfigError: no such file, or a file that is no YAML mapping.
    """
    path = user_path(path, "the plan")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no sweep at {path}: give a YAML file, see the folder configs") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} must hold keys of a plan, such as backbones and tasks, got {type(content).__name__}: see the "
            "folder configs"
        )
    return {"name": path.stem, **content}
