"""Compare evaluated runs: statistics, tables, pictures, one HTML page."""

from dcd_ext.report.comparison import compare
from dcd_ext.report.page import write_report
from dcd_ext.report.runs import load_runs
from dcd_ext.report.tables import all_tables

__all__ = ["all_tables", "compare", "load_runs", "write_report"]
