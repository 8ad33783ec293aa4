"""`offramp`: the entry point. The commands' signatures declare the options of command lines and YAML files."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import yaml
from cyclopts import App, CoercionError, CycloptsError, Parameter, Token, UnusedCliTokensError, convert
from cyclopts.config import Dict, Env

from offramp import __version__
from offramp._core.arguments import percent_hint
from offramp._core.errors import ConfigError, MissingExtraError, OfframpError, unknown_name
from offramp._core.paths import user_path
from offramp._core.progress import quietly
from offramp._core.stopping import Stopped, stopping
from offramp._core.text import one_line

# Modules that come with the extra `torch`: one that is missing gives the line that installs them.
TORCH_EXTRA = {
    *("torch", "transformers", "datasets", "accelerate", "safetensors"),
    *("matplotlib", "jinja2", "pandas", "pydantic", "confusable_homoglyphs"),
}
QUIET = "--quiet"
COMPLETION = "--install-completion"
USAGE_ERROR = 2
SIGNALLED = 128  # plus the number of the signal, as shells count
CLOSED_PIPE = 141  # 128 + SIGPIPE, which Windows lacks
# A command's module is imported when the command runs; the list of commands shows the line beside it.
COMMANDS = {
    "demo": ("offramp.cli.demo:demo", "train three ways on real data, compare, attack, report"),
    "data": ("offramp.cli.data:data", "show a data set, or list those with a name"),
    "train": ("offramp.cli.train:train", "fine-tune an encoder so that it can leave early"),
    "import": (
        "offramp.cli.import_checkpoint:import_checkpoint",
        "read a checkpoint of other early-exit code",
    ),
    "tune": ("offramp.cli.tune:tune", "choose the threshold to leave at, on calibration data"),
    "evaluate": ("offramp.cli.evaluate:evaluate", "measure exits, curves and speed; compare models"),
    "attack": ("offramp.cli.attack:attack", "edit words so that a model runs deep"),
    "conflict": ("offramp.cli.conflict:conflict", "measure how far the exits' gradients conflict"),
    "sweep": ("offramp.cli.sweep:sweep", "run a grid of models, or of attacks on them"),
    "export": ("offramp.cli.export:export", "write a folder that runs without PyTorch"),
    "predict": ("offramp.cli.predict:predict", "answer every row of a file"),
    "serve": ("offramp.cli.serve:serve", "answer over HTTP"),
    "play": ("offramp.cli.play:play", "type a text on a page, and watch it climb the exits"),
    "bench": ("offramp.cli.bench:bench", "time a model against full-depth baselines"),
    "check": ("offramp.cli.check:check", "check that numbers of runs keep conditions, for CI"),
    "runs": ("offramp.cli.runs:runs", "list, filter and compare the records of runs"),
    "report": ("offramp.cli.report:report", "make tables, figures and a page from records"),
    "pack": ("offramp.cli.pack:pack", "keep the records of many runs in a few small files"),
}
# `offramp bench MODEL DATA` is a command, and so is `offramp bench attack MODEL DATA`.
SUBCOMMANDS = {
    "bench": {
        "attack": ("offramp.cli.bench_attack:bench_attack", "time attacks"),
        "train": ("offramp.cli.bench_train:bench_train", "time training steps, and measure their memory"),
        "stream": ("offramp.cli.bench_stream:bench_stream", "stream texts through an exported model"),
        "drift": ("offramp.cli.bench_drift:bench_drift", "time the alarms on texts that change"),
        "service": ("offramp.cli.bench_service:bench_service", "load a service, and others without exits"),
        "coverage": ("offramp.cli.bench_coverage:bench_coverage", "check how often guarantees hold"),
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

Every option can stand in a YAML file: `offramp train --config train.yaml`.

With `--json`, the result is one JSON object on stdout. With `--quiet`, a command prints only results and errors.
`offramp --install-completion` completes commands and options in bash, zsh and fish."""


def make_app(options: Dict | None = None, words: Sequence[str] = ()) -> App:
    """The application.

    Args:
        options: out of a file; those of the command line come first.
        words: the words of the command line. A command named there shows its own help, the others a line in a list.
    """
    app = App(
        name="offramp",
        help=HELP,
        help_format="markdown",
        version=__version__,
        # What a container is given: OFFRAMP_SERVE_PORT is `offramp serve --port`.
        config=[
            *([] if options is None else [options]),
            *([Env("OFFRAMP_")] if "serve" in words[:1] else []),
        ],
        default_parameter=Parameter(consume_multiple=True, negative=(), converter=read_value),
        suppress_keyboard_interrupt=False,  # our own message says what was saved and how to resume
    )
    app.register_install_completion_command(
        COMPLETION, help="install completion for the shell that runs, or for --shell bash, zsh or fish"
    )
    for name, (target, line) in COMMANDS.items():
        if name in SUBCOMMANDS and {name, COMPLETION} & set(words):
            module, _, function = target.partition(":")
            group = App(name=name)
            group.default(getattr(import_module(module), function))
            for below, (path, below_line) in SUBCOMMANDS[name].items():
                group.command(path, name=below, help=None if below in words else below_line)
            app.command(group)
        else:
            app.command(target, name=name, help=None if name in words else line)
    return app


def read_value(hint: Any, tokens: Sequence[Token]) -> Any:
    """A value as cyclopts reads it, except that no number is rounded: to cyclopts, 1.5 is the whole number 2."""
    return convert(
        hint, tokens, converter=lambda kind, text: int(text, 0) if kind is int else convert(kind, [text])
    )


def take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--config FILE`, and the file."""
    rest, config = list(arguments), None
    for i, argument in enumerate(arguments):
        if argument == "--config" and i + 1 < len(arguments):
            config = user_path(arguments[i + 1], "--config")
            del rest[i : i + 2]
        elif argument.startswith("--config="):
            config = user_path(argument.partition("=")[2], "--config")
            del rest[i]
    return rest, config


def take_quiet(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without `--quiet`, and whether it was there."""
    rest = [argument for argument in arguments if argument != QUIET]
    return rest, len(rest) < len(arguments)


def read_config(path: Path, arguments: list[str]) -> Dict:
    """A YAML file whose keys are the options of the command that is run."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold options, one `name: value` a line, got {type(content).__name__}")
    # Under the command's name, since an option may have the name of another command (`data`).
    command = next((a for a in arguments if a in COMMANDS), "")
    return Dict({command: {str(k): v for k, v in content.items()}}, source=str(path))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit code.

    It is 0, 1 where a condition of `offramp check` fails, 2 for an error that the user can fix, or 128 and the number
    of the signal that ended the command: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 141 if the reader of stdout
    went away.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    rest, quiet = take_quiet(arguments)
    logging.getLogger().setLevel(logging.ERROR if quiet else logging.WARNING)
    try:
        rest, config = take_config(rest)
        options = None if config is None else read_config(config, rest)
        check_subcommand(rest)
        app = make_app(options, rest)
        with stopping(), quietly(everything="--json" in rest) if quiet else nullcontext():
            code = app(rest, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(usage_error(error, rest), USAGE_ERROR)
    except OfframpError as error:
        return _fail(str(error), USAGE_ERROR)
    except FileNotFoundError as error:
        return _fail(f"no such file: {error.filename or error}", USAGE_ERROR)
    except BrokenPipeError:  # as `| head` does: no error of the user's
        return CLOSED_PIPE
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{file}", USAGE_ERROR)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TORCH_EXTRA:
            raise
        return _fail(str(MissingExtraError(str(error.name), "torch")), USAGE_ERROR)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        message = str(error) or "stopped: run the same command again, which resumes where it can"
        return _fail(message, SIGNALLED + number)
    return code or 0


def check_subcommand(words: Sequence[str]) -> None:
    """Raise `ConfigError` for a misspelt subcommand, which would be taken for the name of a file."""
    command, name = (*words, "", "")[:2]
    names = SUBCOMMANDS.get(command, {})
    if name not in names and get_close_matches(name, names) and not Path(name).exists():
        raise ConfigError(unknown_name(f"subcommand of {command}", name, names))


def usage_error(error: CycloptsError, words: Sequence[str]) -> str:
    """What is wrong with a command line, and what to write."""
    if isinstance(error, CoercionError) and error.token is not None:
        hint = "" if error.target_type is int else percent_hint(error.token.value)
        return str(error).rstrip(".") + hint
    if isinstance(error, UnusedCliTokensError):
        unused = ", ".join(map(repr, error.unused_tokens or ()))
        return f"expected no further words, got {unused}: offramp {words[0]} --help shows what it takes"
    return str(error)


def _fail(message: str, code: int) -> int:
    """One clear line on stderr."""
    print(f"offramp: {one_line(message)}", file=sys.stderr)
    return code


class _OneLine(logging.Formatter):
    """Messages of the log on one line each: they quote names from data, which must not steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def main() -> None:
    """Entry point of the `offramp` command."""
    logging.captureWarnings(True)
    # Python gives None for a stream that was closed from the start, as by `2>&-`.
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = LastingStream(sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # reported by `emit`
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python itself would report it again
    sys.exit(code)


class LastingStream(io.TextIOWrapper):
    """stderr that may be closed, as by `2>&1 | head` or a lost terminal: lines for people must not end the work."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream.buffer, stream.encoding, "backslashreplace", line_buffering=True)
        self.stream = stream  # which would close the buffer with itself

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


if __name__ == "__main__":
    main()
