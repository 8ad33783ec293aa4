from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offramp._core.errors import DataError
from offramp._core.records import write_record
from offramp._core.run_files import pack
from offramp.reports import load_runs, report
from offramp.reports.records import ATTACK_METADATA, TABLES
from tests.reports.made_up_runs import attack_rows, write_attack


def write(folder: Path, tables, command="offramp evaluate movies", name="record.json", **metrics) -> None:
    write_record(
        folder / name, command=command, config={"data": "movies"}, metrics=metrics, seed=3, tables=tables
    )


def test_runs_with_their_tables_and_names(runs: Path) -> None:
    found, left_out = load_runs(runs)
    assert left_out == []
    told = {run.record["path"]: (run.name, run.command, sorted(run.tables)) for run in found}
    assert told == {
        "compare.json": ("runs", "compare", ["curves", "scores", "timing", "winners"]),
        "joint/evaluate.json": ("Early-Exit", "evaluate", ["curves", "histogram", "per_exit", "policy"]),
        "joint/train.json": ("joint", "train", []),
        "sweet/attack/attack.json": (
            "sweet",
            "attack",
            ["attack"],
        ),  # after the folder of its training record
        "sweet/conflict/conflict.json": ("sweet", "conflict", ["conflict"]),
        "sweet/evaluate.json": ("SWEET", "evaluate", ["curves", "histogram", "per_exit", "policy"]),
        "sweet/train.json": ("sweet", "train", []),
    }
    for run in found:
        for name, table in run.tables.items():
            assert set(TABLES[name]) <= set(table.column_names)


def test_tables_may_be_rows_columns_or_files(tmp_path: Path) -> None:
    rows = [{"exit": 0, "layer": 1, "count": 3, "share": 1.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "h.parquet")
    write(tmp_path, {"histogram": rows}, name="a.json")
    write(tmp_path, {"histogram": {k: [v] for k, v in rows[0].items()}}, name="b.json")
    write(tmp_path, {"histogram": "h.parquet"}, name="c.json")
    assert [run.tables["histogram"].to_pylist() for run in load_runs(tmp_path)[0]] == [rows] * 3


def test_values_come_from_metrics_before_config(tmp_path: Path) -> None:
    write(tmp_path, {}, data="cola")
    (run,) = load_runs(tmp_path)[0]
    assert run.get("data") == "cola"
    assert run.get("nothing", 5) == 5
    assert run.seed == 3
    assert run.exit_layers == ()


def test_an_attack_table_may_say_its_exit_layers_itself(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(attack_rows())
    for content, layers in (('{"policy": {"exit_layers": [1, 2, 4]}}', (1, 2, 4)), ("{", ()), ("[]", ())):
        described = table.replace_schema_metadata({ATTACK_METADATA: content.encode()})
        pq.write_table(described, tmp_path / "attack.parquet")
        write(tmp_path, {"attack": "attack.parquet"})
        assert load_runs(tmp_path)[0][0].exit_layers == layers


def test_one_record_is_a_study_too(runs: Path) -> None:
    (run,) = load_runs(runs / "sweet" / "evaluate.json")[0]
    assert run.tables["per_exit"].num_rows == 9


def test_packed_runs_give_the_same_report(runs: Path, tmp_path: Path) -> None:
    packed = tmp_path / runs.name
    pack(runs, packed)
    assert sorted(path.name for path in packed.iterdir()) == ["records.jsonl", "rows.parquet"]
    reports = [report(folder, tmp_path / side) for side, folder in (("a", runs), ("b", packed))]
    assert reports[0]["report.md"].read_bytes() == reports[1]["report.md"].read_bytes()
    assert reports[0]["index.html"].read_bytes() == reports[1]["index.html"].read_bytes()


def test_a_broken_pack_is_told_by_the_table(runs: Path, tmp_path: Path) -> None:
    pack(runs, tmp_path)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(
        DataError, match=r"'per_exit' of joint/evaluate.json cannot be read: .*pack its runs again"
    ):
        load_runs(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no run records below .*: give a folder that an offramp command wrote to"
    ):
        load_runs(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_runs(tmp_path / "nowhere")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(
        DataError, match=r"no run records below .* \(left out 1 unreadable .*broken.json is not valid"
    ):
        load_runs(tmp_path)


def test_broken_records_beside_good_ones_are_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / "broken.json").write_text("{")
    found, left_out = load_runs(tmp_path)
    assert len(found) == 1
    assert "broken.json is not valid JSON" in left_out[0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("gone.parquet", "table 'curves' of record.json is missing: expected a Parquet file gone.parquet"),
        ("bad.parquet", "table 'curves' of record.json cannot be read"),
        ("../outside.parquet", "lies at ../outside.parquet, outside its run's folder"),
        ([{"method": "a"}], "table 'curves' of record.json needs the columns model, criterion"),
        ({"method": ["a"], "model": [1, 2]}, "table 'curves' of record.json cannot be read"),
        (7, "table 'curves' of record.json cannot be read"),
    ],
)
def test_broken_tables_are_told_by_name(tmp_path: Path, table, message: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "bad.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "outside.parquet").write_bytes(b"secret")
    write(folder, {})
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"tables": {"curves": table}}))
    with pytest.raises(DataError, match=message):
        load_runs(folder)


def test_attack_without_exit_layers_is_refused(tmp_path: Path) -> None:
    from offramp.reports import load_contents

    write_attack(tmp_path, attack_rows(), exit_layers=None)
    with pytest.raises(DataError, match="does not say the model's exit_layers"):
        load_contents(tmp_path)
