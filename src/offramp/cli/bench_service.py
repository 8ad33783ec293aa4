"""`offramp bench service`: what a service adds to its engine, and what early exits add to a service."""

from __future__ import annotations

import secrets
import shutil
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter

from offramp._core.errors import ConfigError
from offramp._core.progress import track
from offramp._core.records import write_record, write_text
from offramp.bench.service_load import Load
from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    RuleOptions,
    Seed,
    Threads,
    emit,
    limit_threads,
    load_for,
    note,
    refuse_calibration,
    show,
)
from offramp.cli.paths import PathOption, results_folder, writing

if TYPE_CHECKING:
    from offramp.bench.service_load import Texts
    from offramp.bench.service_peers import ServerSpec
    from offramp.inference.engine import Engine

STARTS = 5
SCALED, COMPARED = 128, 64  # as of `offramp bench`


def bench_service(
    model: PathOption,
    data: str,
    *,
    attacked: PathOption | None = None,
    infinity: PathOption | None = None,
    load: Annotated[Load, Parameter(name="*")] = Load(),
    rule: RuleOptions = RuleOptions(),
    split: str = "validation",
    examples: int = 400,
    seed: Seed = 0,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Load `offramp serve` and services that know no exits, in turns, and compare its times with the engine's own.

    For example `offramp bench service runs/sweet movies --attacked runs/sweet/attack-same-word`. The model is exported
    in int8, with exits for `offramp serve` and the whole for the others. wrk drives the load.

    Args:
        model: folder that `offramp train` wrote, of a classifier of single texts.
        data: the data that the model was trained on. Its calibration split gives the scales of int8.
        attacked: folder that `offramp attack` wrote, whose adversarial texts an attacker sends; by default there is no
            attack.
        infinity: the command `infinity_emb`, which lives in an environment of its own; by default the one on the PATH.
        split: of the texts.
        examples: number of texts, chosen by the seed.
        seed: chooses the texts, their order and their times.
        output: folder of the exports and the record; by default `bench-service` inside the model's folder. Exports of
            the same model, policy and texts are reused.
    """
    count = limit_threads(threads)
    from offramp.bench.service_peers import find_wrk, infinity_versions

    refuse_calibration(split)
    find_wrk()
    command = infinity or _find_infinity()
    versions = infinity_versions(command) if command else None
    adversarial = _read_attacked(attacked)  # before the exports, which take minutes
    started, folder = datetime.now(UTC), results_folder(model, "bench-service", output)
    with writing(folder, "bench service"):
        content = reading.load(data)
        texts = _export(model, content, rule, split, examples, seed, folder)
        texts = replace(texts, attacked=adversarial)
        tables, metrics = _measure(folder, texts, command, load, count, seed)
        for name, table in tables.items():
            show(TITLES[name], table, names=2)
        config = {
            "data": data,
            "split": split,
            "threads": count,
            "examples": examples,
            "infinity": versions,
            **vars(load),
        }
        path = write_record(
            folder,
            command="bench service",
            config={**config, **vars(load)},
            metrics=metrics,
            seed=seed,
            tables=tables,
            started=started,
        )
    note(f"record: {path}")
    emit(json, {"record": str(path), **metrics, **tables})


TITLES = {
    "service": "services at saturation",
    "service_latency": "single texts that arrive at random: milliseconds",
    "service_attack": "honest clients while others send attacked texts: milliseconds",
}


def _export(
    model: Path, content: Any, rule: RuleOptions, split: str, examples: int, seed: int, folder: Path
) -> Texts:
    """Export the model with its exits and as a whole; returns the texts to send."""
    from offramp.bench.artifacts import prepare
    from offramp.bench.service_load import Texts
    from offramp.bench.service_peers import write_full_depth
    from offramp.exporting.run import Texts as Sources

    loaded = load_for(model, content, "calibration", split)
    if loaded.kind != "classification" or loaded.pair:
        raise ConfigError("bench service sends single texts to a classifier: give a model of that kind")
    policy = rule.of(model, loaded, content)
    note(f"exports: {folder}")
    rows = content.sample(split, examples, seed)
    compared = rows.select(range(min(COMPARED, len(rows))))
    prepare(model, folder, policy, Sources(content.sample("calibration", SCALED), compared), progress=True)
    write_full_depth(loaded, folder / "full" / "static.onnx", folder / "whole")
    return Texts(list(rows["text"]), [loaded.labels[label] for label in rows["label"]])


def _read_attacked(folder: Path | None) -> list[str]:
    """The adversarial texts of an attack; none where there is no attack."""
    from offramp.attacks.result import AttackResult

    if folder is None:
        note("no attack: give --attacked FOLDER, which `offramp attack` writes, to measure one")
        return []
    texts: list[str] = AttackResult.load(folder).table["adversarial_text"].to_pylist()
    return texts


def _find_infinity() -> Path | None:
    """infinity's command on the PATH, or a note that it is left out."""
    command = shutil.which("infinity_emb")
    if command is None:
        note(
            "infinity is left out: pip install 'infinity-emb[server,optimum]' into an environment of its own, and give "
            "--infinity ENVIRONMENT/bin/infinity_emb"
        )
    return None if command is None else Path(command)


def _measure(
    folder: Path, texts: Texts, infinity: Path | None, load: Load, threads: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables and metrics of a run."""
    from offramp.bench import service_peers as peers
    from offramp.bench.measures import OtherCpuLoad
    from offramp.bench.service import changed_answers, saturate, time_half_load
    from offramp.inference.engine import Engine

    log, exported = folder / "services.log", folder / "int8"
    own = peers.ours(exported, _write_keys(folder), threads)
    chosen = [own, *(peers.plain(folder / "whole", threads, batching) for batching in (False, True))]
    chosen += [peers.infinity(infinity, folder / "whole")] if infinity else []
    starts, other = [], OtherCpuLoad()
    # The first start reads the files from the disk, and does not count.
    for _ in track(range(STARTS + 1), "start the service"):
        with peers.running(own, texts.texts[:1], log) as server:
            starts.append(server.seconds)
    metrics = {
        "start_seconds": float(np.median(starts[1:])),
        "start_seconds_slowest": max(starts[1:]),
        "other_cores_busy": other.cores(),
    }
    with ExitStack() as stack:
        servers = [stack.enter_context(peers.running(peer, texts.texts[:1], log)) for peer in chosen]
        metrics["changed_answers"] = changed_answers(servers[0], texts.texts, seed, progress=True)
        tables = {"service": saturate(servers, texts, load, folder, seed, progress=True)}
        rate = load.half or tables["service"][0]["texts_per_second"] / 2
        engine = Engine(exported, threads=threads)
        tables["service_latency"] = time_half_load(
            servers[0], engine, texts, rate, load, folder, seed, progress=True
        )
    if texts.attacked:
        tables["service_attack"] = _attack(own, engine, texts, rate, load, folder, seed)
    return tables, metrics


def _attack(
    own: ServerSpec, engine: Engine, texts: Texts, rate: float, load: Load, folder: Path, seed: int
) -> list[dict[str, Any]]:
    """The table of honest clients under attack, without and with a budget."""
    from offramp.bench.service import allowance, time_under_attack
    from offramp.bench.service_peers import BUDGET, running

    each, burst = allowance(engine, texts.texts, rate)
    options = ("--client-rate", f"{each:.0f}", "--client-burst", f"{burst:.0f}")
    bounded = replace(own, name=BUDGET, command=(*own.command, *options))
    log, first = folder / "services.log", texts.texts[:1]
    with running(own, first, log) as free, running(bounded, first, log) as limited:
        return time_under_attack([free, limited], texts, rate, load, folder, seed, progress=True)


def _write_keys(folder: Path) -> Path:
    """New API keys of the honest clients and the attacker."""
    from offramp.bench.service import ATTACKER, CLIENTS

    path, names = folder / "keys", [*(f"honest-{i}" for i in range(CLIENTS)), ATTACKER]
    write_text(path, "".join(f"{name} {secrets.token_hex()}\n" for name in names))
    return path
