"""The tables of a comparison."""

from dcd_ext.report import compare
from dcd_ext.report.tables import all_tables
from tests.report.conftest import runs_of


def test_the_best_run_is_bold_in_both_directions(tmp_path):
    """HD95 is made equal to the Dice here: the run that is best in one is the worst in the other. Ties share."""
    values = {"a": [[0.6, 0.5]] * 3, "b": [[0.8, 0.5]] * 3, "c": [[0.7, 0.5]] * 3}
    tables = dict(zip(("dice", "hd95_mm"), all_tables(compare(runs_of(tmp_path, values)))["scores"], strict=False))
    assert [row[0] for row in tables["dice"].rows] == ["a", "b", "c"] and "HD95" in tables["hd95_mm"].title
    ties = {(0, 2), (1, 2), (2, 2)}
    assert tables["dice"].bold == {(1, 1), (1, 3)} | ties
    assert tables["hd95_mm"].bold == {(0, 1), (0, 3)} | ties
