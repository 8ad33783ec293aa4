"""`offramp`: the entry point. Options come from the commands' signatures, YAML files from the same declaration."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from pathlib import Path

import yaml
from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict

from offramp import __version__
from offramp._core.errors import ConfigError, MissingExtraError, OfframpError

TORCH_EXTRA = ("torch", "transformers", "datasets", "accelerate", "safetensors", "matplotlib", "plotly")
USAGE_ERROR = 2
INTERRUPTED = 130
# Each command's module is imported when it is run; the line beside it is what the list of commands shows.
COMMANDS = {
    "demo": ("offramp.cli.demo:demo", "train three ways on real data, compare, attack, report"),
    "data": ("offramp.cli.data:data", "show a data set, or list those with a name"),
    "train": ("offramp.cli.train:train", "fine-tune an encoder so that it can leave early"),
    "import": (
        "offramp.cli.import_checkpoint:import_checkpoint",
        "read a checkpoint of DeeBERT or PABEE code",
    ),
    "tune": ("offramp.cli.tune:tune", "choose the threshold to leave at, on calibration data"),
    "evaluate": ("offramp.cli.evaluate:evaluate", "measure exits, curves and speed; compare models"),
    "attack": ("offramp.cli.attack:attack", "edit words so that a model runs deep"),
    "conflict": ("offramp.cli.conflict:conflict", "how far the exits' gradients pull apart"),
    "sweep": ("offramp.cli.sweep:sweep", "many models, over strategies, encoders, tasks and seeds"),
    "export": ("offramp.cli.export:export", "write a folder that runs without PyTorch"),
    "bench": ("offramp.cli.bench:bench", "time models against full-depth peers"),
    "report": ("offramp.cli.report:report", "tables, figures and a page from records"),
    "pack": ("offramp.cli.pack:pack", "keep the records of many runs in a few small files"),
}
# Of a command with others below it: `offramp bench MODEL DATA`, but also `offramp bench attack MODEL DATA`.
SUBCOMMANDS = {
    "bench": {
        "attack": "offramp.cli.bench_attack:bench_attack",
        "train": "offramp.cli.bench_train:bench_train",
        "stream": "offramp.cli.bench_stream:bench_stream",
        "coverage": "offramp.cli.bench_coverage:bench_coverage",
    },
}
HELP = """Train text classifiers that leave early, measure what that saves, and attack the savings.

A first look, on real data: `offramp demo`. A study of your own, step by step:

    offramp train movies --strategy sweet --output runs/sweet
    offramp tune runs/sweet movies --max-accuracy-drop 0.01
    offramp evaluate runs/sweet --data movies
    offramp attack runs/sweet movies --recipe same-word
    offramp report runs/sweet
    offramp export runs/sweet --output served --precision int8 --data movies

Many models, over strategies, encoders, tasks and seeds: `offramp sweep configs/sweet-minilm.yaml`.

Every option can stand in a YAML file: `offramp train --config train.yaml`."""


def make_app(options: Dict | None = None, *, chosen: bool = True) -> App:
    """The application.

    Args:
        options: out of a file; those of the command line come first.
        chosen: whether a command was named, so that its own help is wanted, not the list of commands.
    """
    app = App(
        name="offramp",
        help=HELP,
        help_format="markdown",
        version=__version__,
        config=[] if options is None else [options],
        default_parameter=Parameter(consume_multiple=True, negative=()),
        suppress_keyboard_interrupt=False,  # what was saved, and how to go on, is ours to say
    )
    for name, (target, line) in COMMANDS.items():
        # A line given here would stand in the place of the command's own help: it is for the list alone.
        if chosen and name in SUBCOMMANDS:
            app.command(_make_group(name, target))
        else:
            app.command(target, name=name, help=None if chosen else line)
    return app


def _make_group(name: str, target: str) -> App:
    """A command that does something by itself, and has others below it."""
    module, _, function = target.partition(":")
    group = App(name=name)
    group.default(getattr(import_module(module), function))
    for below, path in SUBCOMMANDS[name].items():
        group.command(path, name=below)
    return group


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
        options = None if config is None else read_config(config, rest)
        make_app(options, chosen=any(argument in COMMANDS for argument in rest))(
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
        return _fail(str(error) or "stopped: run the same command again to resume", INTERRUPTED)
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
