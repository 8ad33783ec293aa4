"""Figures, tables and a self-contained HTML page, from run records alone; see `schema` for their shape."""

from offramp.reports.build import report
from offramp.reports.schema import Run, load_runs
from offramp.reports.study import Study, load_study
from offramp.reports.tables import all_tables
from offramp.reports.text_table import TextTable

__all__ = ["Run", "Study", "TextTable", "all_tables", "load_runs", "load_study", "report"]
