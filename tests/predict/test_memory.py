"""What ``dcd predict`` takes for a large image: less than it says."""

import json
import os
from pathlib import Path

import pytest

from scripts.measure_memory import measure
from tests.bundles.conftest import make_small
from tests.conftest import BUNDLES, read_json

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize(
    ("task", "shape"), [("hippocampus", (256, 224, 160)), ("brats24", (144, 160, 120))], ids=["one channel", "four"]
)
def test_a_large_image_takes_no_more_than_its_headers_say(task: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    found = measure(make_small(f"{task}_segmentation_student", tmp_path), shape, threads=1)
    assert found["image"][1:] == list(shape)
    needed = found["peak"] - found["base"]
    # a bound that is never reached would refuse what fits
    assert found["stated"] / 4 < needed <= found["stated"], json.dumps(found)


@pytest.mark.parametrize("name", sorted(path.name for path in BUNDLES.iterdir() if not path.name.endswith("_dcd")))
def test_the_shipped_bundles_keep_their_stated_bound(name: str) -> None:
    if os.environ.get("DCD_FULL") != "1":
        pytest.skip("minutes: set DCD_FULL=1")
    stated = read_json(BUNDLES / name / "configs" / "metadata.json")["memory"]
    found = measure(BUNDLES / name, threads=stated["threads"])
    assert found["image"] == stated["image"] and found["peak"] <= stated["bound_gib"]
