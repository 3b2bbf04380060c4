"""The application: load DICOM, choose and stack series, run a bundle, write a DICOM segmentation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Image, IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator
from monai.deploy.operators.dicom_utils import ModelInfo
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
)

from dcd_ext.errors import UserError
from deploy.dicom.bundle import read_labels, read_origin
from deploy.dicom.operators import ChannelSelector, ChannelStack
from deploy.dicom.segments import describe_segments
from deploy.dicom.weights import check_weights

__all__ = ["SegmentationApp", "run"]


class SegmentationApp(Application):
    """DICOM in, DICOM SEG out.

    Args:
        bundle: folder with ``configs`` and ``models/model.ts`` or ``models/model.pt``.
        patterns: regular expression of the series description per channel, in channel order.
        source: folder with one study as DICOM files, at any depth.
        output: receives the segmentation.
    """

    def __init__(self, bundle: Path, patterns: Mapping[str, str], source: Path, output: Path) -> None:
        # first of all: holoscan's destructor fails on an application that an error left half made
        super().__init__([sys.executable, "app"])
        self.bundle = bundle
        self.patterns = dict(patterns)
        self.source = source
        self.output = output
        self.labels = read_labels(bundle)
        self.origin = read_origin(bundle)

    def compose(self) -> None:
        """Connect the operators."""
        authors, version = self.origin
        # that nothing was loaded is said by the selector, in a line
        once = CountCondition(self, 1)
        load = DICOMDataLoaderOperator(self, once, input_folder=self.source, must_load=False, name="load")
        choose = ChannelSelector(self, patterns=self.patterns, source=self.source, name="choose")
        stack = ChannelStack(self, name="stack")
        infer = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            # without a model of its own the context would pick up any folder "models" of the working directory
            app_context=AppContext({"model": str(self.bundle / "models" / "none")}),
            bundle_path=self.bundle,
            bundle_config_names=BundleConfigNames(config_names=["inference"]),
            name="infer",
        )
        write = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=describe_segments(self.labels, self.bundle.name, version),
            model_info=ModelInfo(authors, self.bundle.name, version, ""),
            custom_tags={"SeriesDescription": f"{self.bundle.name} (AI, not for diagnosis)"[:64]},
            output_folder=self.output,
            name="write",
        )
        self.add_flow(load, choose, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(choose, stack, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(stack, infer, {("image", "image")})
        self.add_flow(choose, write, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(infer, write, {("pred", "seg_image")})


def run(bundle: Path, patterns: Mapping[str, str], source: Path, output: Path) -> Path:
    """Segment one study.

    Args:
        bundle: the bundle's folder.
        patterns: regular expression of the series description per channel.
        source: folder with one study as DICOM files.
        output: folder for the segmentation, made if needed.

    Returns:
        The DICOM segmentation.

    Raises:
        UserError: if something of the bundle or the study is missing, or they do not fit each other.
    """
    config = bundle / "configs" / "inference.json"
    if not config.is_file():
        raise UserError("no bundle", config, "the bundle's config", "no such file", "pass --bundle <folder>")
    if not source.is_dir():
        raise UserError("no input", source, "a folder of DICOM files", "no such folder", "pass --input <folder>")
    if output.exists() and not output.is_dir():
        raise UserError("no output folder", output, "a folder", "a file", "pass another --output <folder>")
    check_weights(bundle)
    before = set(output.glob("*.dcm"))
    SegmentationApp(bundle, patterns, source, output).run()
    written = sorted(set(output.glob("*.dcm")) - before)
    if len(written) != 1:
        raise UserError("no segmentation", output, "one new file", len(written), "read the log above")
    return written[0]
