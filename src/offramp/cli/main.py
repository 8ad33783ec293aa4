"""`offramp`: the entry point. Options come from the commands' signatures, YAML files from the same declaration."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import yaml
from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict

from offramp import __version__
from offramp._core.errors import ConfigError, MissingExtraError, OfframpError

TORCH_EXTRA = ("torch", "transformers", "datasets", "accelerate", "safetensors", "matplotlib", "plotly")
USAGE_ERROR = 2
INTERRUPTED = 130
COMMANDS = {
    "demo": "offramp.cli.demo:demo",
    "data": "offramp.cli.data:data",
    "train": "offramp.cli.train:train",
    "evaluate": "offramp.cli.evaluate:evaluate",
    "tune": "offramp.cli.tune:tune",
    "attack": "offramp.cli.attack:attack",
    "conflict": "offramp.cli.conflict:conflict",
    "sweep": "offramp.cli.sweep:sweep",
    "report": "offramp.cli.report:report",
    "export": "offramp.cli.export:export",
    "bench": "offramp.cli.bench:bench",
}
HELP = """Train text classifiers that leave early, measure what that saves, and attack the savings.

A first look, on real data: `offramp demo`. A study of your own, step by step:

    offramp train movies --strategy sweet --output runs/sweet
    offramp tune runs/sweet movies --max-accuracy-drop 0.01
    offramp evaluate runs/sweet movies
    offramp attack runs/sweet movies --recipe same-word
    offramp report runs/sweet
    offramp export runs/sweet --output served --precision int8 --data movies

Many models, over strategies, encoders, tasks and seeds: `offramp sweep configs/sweet-minilm.yaml`.

Every option can stand in a YAML file: `offramp train --config train.yaml`."""


def make_app(options: Dict | None = None) -> App:
    """The application; `options` come from a file, and stand below those of the command line."""
    app = App(
        name="offramp",
        help=HELP,
        help_format="markdown",
        version=__version__,
        config=[] if options is None else [options],
        default_parameter=Parameter(consume_multiple=True, negative=()),
    )
    for name, target in COMMANDS.items():
        app.command(target, name=name)
    return app


def take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--config FILE`, and the file."""
    rest, config = list(arguments), None
    for i, argument in enumerate(arguments):
        if argument == "--config" and i + 1 < len(arguments):
            config = Path(arguments[i + 1])
            del rest[i : i + 2]
        elif argument.startswith("--config="):
            config = Path(argument.partition("=")[2])
            del rest[i]
    return rest, config


def read_config(path: Path, arguments: list[str]) -> Dict:
    """A YAML file whose keys are the options of the command that is run."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold options, one `name: value` a line, got {type(content).__name__}")
    # Under the command's name: an option may be called like another command (`data`).
    command = next((a for a in arguments if a in COMMANDS), "")
    return Dict({command: {str(k): v for k, v in content.items()}}, source=str(path))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    rest, config = take_config(arguments)
    try:
        make_app(None if config is None else read_config(config, rest))(
            rest, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except (CycloptsError, OfframpError) as error:
        return _fail(str(error), USAGE_ERROR)
    except FileNotFoundError as error:
        return _fail(f"no such file: {error.filename or error}", USAGE_ERROR)
    except OSError as error:
        return _fail(
            f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", USAGE_ERROR
        )
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TORCH_EXTRA:
            raise
        return _fail(str(MissingExtraError(str(error.name), "torch")), USAGE_ERROR)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "stopped: run the same command again to go on", INTERRUPTED)
    return 0


def _fail(message: str, code: int) -> int:
    """One clear line on stderr."""
    print(f"offramp: {' '.join(message.split())}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the `offramp` command."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
