"""What augmentation may do to a label."""

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from tests.conftest import BUNDLES, TASKS, read_json


@pytest.mark.parametrize("task", TASKS)
def test_augmented_labels_are_whole_classes_and_images_are_interpolated(task):
    """With every random transform applied: between 0 and the last class, a blurred label has other values."""
    config = read_json(BUNDLES / f"{task}_segmentation_student" / "configs" / "train.json")
    config["patch_size"] = [16, 16, 16]
    for entry in config["train"]["random_transforms"]:
        entry |= {"prob": 1.0} if "prob" in entry else {}
    last = config["num_classes"] - 1
    label = last * (torch.rand(1, 20, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.6)
    item = {"image": label.float().repeat(config["in_channels"], 1, 1, 1), "label": label.float()}
    spatial = [t for t in config["train"]["random_transforms"] if "label" in t["keys"]]
    parser = ConfigParser({**config, "spatial": spatial})
    chain = Compose(parser.get_parsed_content("spatial")).set_random_state(3)
    (made,) = chain(item)
    assert set(made["label"].unique().tolist()) == {0.0, float(last)}
    assert made["image"].unique().numel() > 100
