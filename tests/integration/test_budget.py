"""A student for a budget, by real measurements of a real volume: a minute or two of one core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dcd_ext.commands.main import main as dcd
from tests.integration.conftest import slow_alone
from tests.students.zoo import NETWORKS, make_bundle

pytestmark = [pytest.mark.integration, slow_alone]


def test_what_is_chosen_for_a_real_volume_meets_the_budget(data_dir: Path, tmp_path: Path, capsys: Any) -> None:
    """Memory, which a busy machine does not change; measured in processes of their own."""
    teacher = make_bundle(tmp_path / "zoo", {**NETWORKS["SegResNet"], "init_filters": 32})
    path = teacher / "configs" / "inference.json"
    config = json.loads(path.read_text("utf-8"))
    config["inferer"].update(roi_size=[96, 96, 96], overlap=0)
    config["preprocessing"]["transforms"][3]["pixdim"] = [2.0, 2.0, 2.0]
    path.write_text(json.dumps(config), "utf-8")
    image = sorted((data_dir / "LPBA40_2mm" / "imagesTr").glob("*.nii.gz"))[0]
    command = ["distil", str(teacher), "--output", str(tmp_path / "student"), "--threads", "1", "--image", str(image)]
    assert dcd([*command, "--max_ram", "0.01"]) == 1 and not (tmp_path / "student").exists()
    printed = capsys.readouterr()
    needs = {int(row[0]): row[3] for line in printed.out.splitlines() if (row := line.split())[:1] in (["1"], ["2"])}
    assert "GiB at reduction " in printed.err and float(needs[1]) > float(needs[2]) + 0.05, printed
    between = (float(needs[1]) + float(needs[2])) / 2
    assert dcd([*command, "--max_ram", f"{between:.3f}"]) == 0
    assert "reduction 2 is within the budget, measured twice" in capsys.readouterr().out
    assert '"init_filters": 16' in (tmp_path / "student" / "configs" / "inference.json").read_text("utf-8")
