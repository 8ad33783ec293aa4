"""The files of deploy parse, and name options that commands have."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from offramp.cli.main import COMMANDS
from offramp.cli.watching import WatchOptions
from offramp.reports.conditions import Condition

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
SERVE = yaml.safe_load((DEPLOY / "serve.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_the_options_of_watching_are_its_own() -> None:
    given = {name: value for name, value in SERVE.items() if name in WatchOptions.__dataclass_fields__}
    assert set(given) == {"client_rate", "total_rate", "audit_share", "retuned"}
    assert all(isinstance(value, float) for name, value in given.items() if name != "retuned")
    WatchOptions(**given)


@pytest.mark.skipif(find_spec("offramp.cli.serve") is None, reason="the command does not exist yet")
def test_every_option_of_the_file_is_one_of_the_command() -> None:
    command = import_module("offramp.cli.serve").serve
    options = set(inspect.signature(command).parameters)
    for parameter in inspect.signature(command).parameters.values():
        options |= set(getattr(type(parameter.default), "__dataclass_fields__", ()))
    assert set(SERVE) <= options


def test_commands_of_the_page_and_the_files_exist() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((DEPLOY / "offramp.service").read_text(encoding="utf-8"))
    program, command, *options = shlex.split(unit["Service"]["ExecStart"])
    assert (Path(program).name, options[1]) == ("offramp", "--config")
    named = {command, *re.findall(r"`offramp (\w+)", PAGE)}
    assert named - {"serve"} <= set(COMMANDS)
    assert '["offramp", "serve"]' in DOCKERFILE
    assert json.loads(DOCKERFILE.rpartition("CMD ")[2]) == COMPOSE["services"]["offramp"]["command"]


def test_extras_that_are_installed_exist() -> None:
    extras = re.search(
        r"\[project.optional-dependencies\](.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.S
    )
    assert extras is not None
    for text in (PAGE, DOCKERFILE):
        for names in re.findall(r"offramp\[([\w,]+)\]", text):
            for name in names.split(","):
                assert re.search(rf"^{name} = ", extras[1], flags=re.MULTILINE), name


def mounts(service: dict[str, Any]) -> dict[str, str]:
    return dict(volume.split(":")[:2] for volume in service["volumes"])


def test_files_that_compose_mounts_exist_where_they_are_read() -> None:
    services = COMPOSE["services"]
    sources = {source for service in services.values() for source in mounts(service)}
    assert [s for s in sources - {"./models", "retuned"} if not (DEPLOY / s).exists()] == []
    inside = set(mounts(services["offramp"]).values())
    model, _, config = services["offramp"]["command"]
    for path in (model.partition("=")[2], config, SERVE["retuned"]):
        assert any(path.startswith(mount) for mount in inside), path
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert set(prometheus["rule_files"]) <= set(mounts(services["prometheus"]).values())
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["job_name"] == "offramp"  # that of the alert on `up`
    assert scrape["static_configs"][0]["targets"] == [f"offramp:{SERVE['port']}"]
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/offramp.yml").read_text())[
        "providers"
    ][0]
    assert f"{provider['options']['path']}/offramp.json" in mounts(services["grafana"]).values()


def test_every_service_answers_this_machine_only() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert f"127.0.0.1:{SERVE['port']}/health" in DOCKERFILE


def test_the_options_that_the_page_names_exist() -> None:
    for name in re.findall(r"^\| `(\w+_rate|\w+_burst|beyond_\w+)` \|", PAGE, flags=re.MULTILINE):
        assert name in WatchOptions.__dataclass_fields__
    for name in ("labelled_clients", "drift_every", "audit_every", "audit_share", "retuned"):
        assert f"`{name}`" in PAGE
        assert name in WatchOptions.__dataclass_fields__


def test_the_conditions_of_the_page_are_conditions() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len([Condition(**item) for item in yaml.safe_load(block)["conditions"]]) == 5


def test_every_link_leads_somewhere() -> None:
    for path in re.findall(r"\]\((?!https?://)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
