"""The command, and the page it writes."""

import base64
import html.parser
import re
import xml.etree.ElementTree as ET

import numpy as np

from dcd_ext.commands.main import main as dcd
from dcd_ext.report import compare, load_runs, page
from dcd_ext.report.slices import choose_plane, crop_around, most_different
from dcd_ext.report.volumes import CaseVolumes, case_files, load_case
from dcd_ext.tables import Table, to_markdown, to_text
from tests.conftest import read_json
from tests.report.conftest import runs_of

VOID = {"meta", "img", "br", "link", "input"}


class Checker(html.parser.HTMLParser):
    """Balanced tags, images, links and anything that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.fetched, self.ids, self.links = [], [], [], set(), []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if tag in ("script", "link", "iframe", "object"):
            self.fetched.append(tag)
        self.fetched += [v for k, v in attrs.items() if k in ("src", "srcset") and not v.startswith("data:")]
        self.links += [attrs["href"]] if "href" in attrs else []
        self.ids.add(attrs.get("id"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_complete_and_fetches_nothing(report):
    text = report.read_text("utf-8")
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and checker.fetched == []
    assert "url(" not in text and "@import" not in text and len(text) < 10e6
    assert {link[1:] for link in checker.links} <= checker.ids
    assert 'name="viewport"' in text and re.search(r"\.scroll\{overflow-x:auto", text)
    # boxes and differences of three metrics, training plots, two cases with two modalities and four columns
    assert len(checker.images) >= 3 + 3 + 4 + 2 * 2 * 4
    for image in checker.images:
        assert image["alt"].strip() and int(image["width"]) > 0 and int(image["height"]) > 0
        kind, data = re.fullmatch(r"data:image/(svg\+xml|png);base64,(.+)", image["src"]).groups()
        content = base64.b64decode(data, validate=True)
        if kind == "png":
            assert content.startswith(b"\x89PNG")
        else:
            assert ET.fromstring(content).tag.endswith("svg")


def test_names_of_folders_are_text_and_no_tags(tmp_path):
    runs = runs_of(tmp_path, {"<i>student & co": [[0.6, 0.5]] * 3, "<u>other": [[0.8, 0.5]] * 3})
    text = page.build_page(runs, compare(runs), pictures=0)
    assert "<i>" not in text and "<u>" not in text
    for name in ("&lt;i&gt;student &amp; co", "&lt;u&gt;other"):
        assert f"<h3>{name}</h3>" in text and f">{name}</th>" in text


def test_page_says_what_the_numbers_say(report, three_runs):
    text, numbers = report.read_text("utf-8"), read_json(report.with_suffix(".json"))
    for section in (
        "summary",
        "scores",
        "distribution",
        "differences",
        "cost",
        "training",
        "cases",
        "details",
        "methods",
    ):
        assert f'<section id="{section}">' in text, section
    for run in ("teacher", "student", "student_dcd"):
        assert f"{numbers['results']['dice']['mean'][run]['mean']:.4f}" in text
    assert numbers["runs"]["student"]["missed"] == 1 and numbers["baseline"] == "student"
    markdown = report.with_suffix(".md").read_text("utf-8")
    assert markdown.startswith("# toy: teacher, student, student_dcd") and "| student_dcd | core |" in markdown


def test_same_input_same_bytes(report, three_runs, tmp_path):
    again = tmp_path / "again.html"
    assert dcd(["compare", *map(str, three_runs), "--output", str(again), "--pictures", "2"]) == 0
    for suffix in (".html", ".md", ".json"):
        assert again.with_suffix(suffix).read_bytes() == report.with_suffix(suffix).read_bytes()


def test_terminal_table(report):
    out = report.with_suffix(".txt").read_text("utf-8")
    assert re.search(r"^run +core +rim +mean of classes$", out, re.MULTILINE)
    assert "paired difference to student" in out and "gap recovered" in out and "GFLOPs per patch" in out


def test_unknown_baseline(three_runs, tmp_path, capsys):
    assert dcd(["compare", *map(str, three_runs), "--baseline", "me", "--output", str(tmp_path / "x.html")]) == 1
    assert "no such run – me – expected one of teacher, student, student_dcd, found me" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_moved_data_set_is_named(report, three_runs, tmp_path, monkeypatch):
    # plots take most of the time and have nothing to do with it
    for plot in ("box_plot", "difference_plot"):
        monkeypatch.setattr(page, plot, lambda *_: "")
    monkeypatch.setattr(page, "training_plots", lambda _: [])
    runs, comparison = load_runs(list(map(str, three_runs))), read_json(report.with_suffix(".json"))
    titles = []
    for pictures in (2, 0):
        text = page.build_page(runs, comparison, pictures, str(tmp_path))
        assert ("give its folder with --dataset_dir" in text) is (pictures > 0)
        titles.append(re.findall("<h2>(.*?)</h2>", text))
    assert "Cases" in titles[0] and "Cases" not in titles[1] and "Training" not in titles[1]


def test_cases_with_the_largest_spread_come_first(three_runs):
    runs = load_runs(list(map(str, three_runs)))
    spread = {
        case: np.ptp([np.mean([c["dice"] for c in run.cases[case].values()]) for run in runs]) for case in runs[0].cases
    }
    chosen = most_different(runs, 5)
    assert [spread[c] for c in chosen] == sorted(spread.values(), reverse=True)


def test_plane_across_thick_voxels_where_masks_disagree(three_runs):
    runs = load_runs(list(map(str, three_runs)))
    volumes = load_case(case_files(runs, None)["case1"], runs, ["T1", "FLAIR"])
    assert list(volumes.images) == ["T1", "FLAIR"] and volumes.spacing == (1, 1, 4)
    plane, index = choose_plane(volumes)
    assert plane == 2 and index in range(1, 5)
    rows, columns = crop_around(volumes, plane, index)
    assert volumes.truth[rows, columns].any() and volumes.truth.shape[:2] == (20, 22)


def test_agreement_shows_the_middle_of_the_truth():
    truth = np.zeros((8, 9, 10), np.uint8)
    truth[2:5, 3:6, 6] = 1
    volumes = CaseVolumes({"T1": truth}, truth, {"a": truth}, (1.0, 1.0, 1.0))
    assert choose_plane(volumes) == (2, 6)


def test_tables_escape_what_names_contain():
    table = Table("a < b", ["run", "x|y"], [["<b>", "1"]], bold={(0, 1)})
    text = str(page.TEMPLATES.get_template("macros.html").module.table(table))
    assert "&lt;b&gt;" in text and "<strong>1</strong>" in text and "a &lt; b" in text
    assert "| <b> | **1** |" in to_markdown(table) and "x\\|y" in to_markdown(table)
    assert to_text(table).splitlines()[1] == "run  x|y"
