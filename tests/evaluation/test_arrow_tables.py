from __future__ import annotations

import csv
import io
from typing import Any

import pyarrow as pa
import pytest

from offramp.evaluation.arrow_tables import to_csv


def cells(**columns: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(to_csv(pa.table(columns)).decode(), newline="")))


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", '=HYPERLINK("x")']
)
def test_no_text_becomes_a_formula_of_a_spreadsheet(text: str) -> None:
    assert cells(name=[text, "plain"]) == [["name"], [f"'{text}"], ["plain"]]
    assert cells(**{text: [1]})[0] == [f"'{text}"]


def test_numbers_stay_numbers_and_other_text_stays_as_it_is() -> None:
    names = ["-0.5", "+1", "-1e-3", "a=b", 'é, "x"', "", None]
    rows = cells(name=names, value=[-1.5, 0.0, None, 2.0, 1.0, 1.0, -1.0])
    assert [row[0] for row in rows[1:]] == ["-0.5", "+1", "-1e-3", "a=b", 'é, "x"', "", ""]
    assert [row[1] for row in rows[1:]] == ["-1.5", "0", "", "2", "1", "1", "-1"]
