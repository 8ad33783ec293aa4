"""Figures, tables and a self-contained HTML page, from run records alone; see `records` for their shape."""

from offramp.reports.build import report
from offramp.reports.contents import ReportContents, load_contents
from offramp.reports.records import Run, load_runs
from offramp.reports.tables import all_tables
from offramp.reports.text_table import TextTable
from offramp.reports.write import ALL_FIGURES, check_report, write_report

__all__ = [
    "ALL_FIGURES",
    "ReportContents",
    "Run",
    "TextTable",
    "all_tables",
    "check_report",
    "load_contents",
    "load_runs",
    "report",
    "write_report",
]
