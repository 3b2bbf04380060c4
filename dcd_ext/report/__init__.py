"""Compare evaluated runs: statistics, tables, pictures, one HTML page."""

from dcd_ext.report.comparison import compare
from dcd_ext.report.page import build_page
from dcd_ext.report.runs import Run, load_runs
from dcd_ext.report.statistics import bootstrap_interval, describe, holm, paired_tests, trainings_test
from dcd_ext.report.tables import all_tables
from dcd_ext.report.write import write_report

__all__ = [
    "Run",
    "all_tables",
    "bootstrap_interval",
    "build_page",
    "compare",
    "describe",
    "holm",
    "load_runs",
    "paired_tests",
    "trainings_test",
    "write_report",
]
