"""MONAI Label app that serves bundles: MONAI Label's own bundle tasks, corrected where MONAI 1.6 breaks them.

MONAI Label loads this file by its path from the app folder, so it imports nothing of this project.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import monailabel
from monai.transforms import Spacingd
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask


class WithoutText:
    """Calls a dictionary transform with every ``<key>_…`` entry set aside that is no dictionary.

    MONAI Label puts the text ``image_path`` beside ``image``. ``Spacingd`` of MONAI 1.6 takes everything that starts
    with ``image_`` for metadata and calls ``.update`` on it. The transform itself
    is called, so that ``Invertd`` still finds its trace.
    """

    def __init__(self, transform: Spacingd) -> None:
        self.transform = transform

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        prefixes = tuple(f"{key}_" for key in self.transform.keys)
        aside = {k: v for k, v in data.items() if k.startswith(prefixes) and not isinstance(v, dict)}
        transformed: Any = self.transform({k: v for k, v in data.items() if k not in aside})
        return {**transformed, **aside}


class BundleInfer(BundleInferTask):
    """MONAI Label's inference task, working with MONAI 1.6.

    No ``dcd_ext.predict.Predictor``: the server asks its tasks for lists of transforms and an inferer, and runs them.
    """

    def pre_transforms(self, data: dict[str, Any] | None = None) -> Sequence[Callable]:
        return [WithoutText(t) if isinstance(t, Spacingd) else t for t in super().pre_transforms(data)]


class BundleTrain(BundleTrainTask):
    """MONAI Label's training task, for short trainings and for those from scratch."""

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        """MONAI Label asks for the file ``None`` when a client does not want pretrained weights."""
        if pretrained:
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Weights are written after a validation; a training shorter than the bundle's interval would write none."""
        epochs = overrides[self.const.key_train_trainer_max_epochs()]
        overrides["val_interval"] = min(self.bundle_config.get("val_interval", 1), epochs)
        return overrides

    def run_single_gpu(self, request: dict[str, Any], overrides: dict[str, Any]) -> None:
        """A viewer sends the option ``run_id`` back as it was offered, empty."""
        super().run_single_gpu({**request, "run_id": request.get("run_id") or "run"}, overrides)


class BundleApp(MONAILabelApp):
    """Serves the bundles in ``<app>/model`` that ``--conf models a,b`` names; asks no model zoo."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        names = [name.strip() for name in conf.get("models", "").split(",") if name.strip()]
        self.bundles = {name: os.path.join(app_dir, "model", name) for name in names}
        # the readers that the bundles' preprocessing names
        sys.path[:0] = [os.path.join(path, "scripts") for path in self.bundles.values()]
        description = "3D MRI segmentation bundles: teachers, students and distilled students"
        super().__init__(app_dir, studies, conf, "DCD bundles", description, version=monailabel.__version__)

    def init_infers(self) -> dict[str, InferTask]:
        """One per bundle. Weights have to fit: a half-loaded network segments, too."""
        return {name: BundleInfer(path, self.conf, load_strict=True) for name, path in self.bundles.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {name: BundleTrain(path, self.conf, load_strict=True) for name, path in self.bundles.items()}

    def init_strategies(self) -> dict[str, Strategy]:
        """Which image to label next."""
        return {"random": Random(), "first": First()}
