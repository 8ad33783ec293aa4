"""Figures, tables and a self-contained HTML page, from run records alone; see `schema` for their shape."""

from offramp.reports.build import report
from offramp.reports.contents import ReportContents, load_contents
from offramp.reports.records import Run, load_runs
from offramp.reports.tables import all_tables
from offramp.reports.text_table import TextTable

__all__ = ["ReportContents", "Run", "TextTable", "all_tables", "load_contents", "load_runs", "report"]
