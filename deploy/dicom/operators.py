"""Two operators between the App SDK's DICOM loader and its bundle inference: choose the series, stack their voxels."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.deploy.core import Fragment, Image, Operator, OperatorSpec
from monai.deploy.core.domain.dicom_series_selection import SelectedSeries, StudySelectedSeries

from dcd_ext.errors import UserError
from dcd_ext.inference.dicom import check_series
from dcd_ext.inference.geometry import require_same_grid
from deploy.dicom.geometry import series_grid, series_voxels
from deploy.dicom.series import choose_series

logger = logging.getLogger(__name__)


class ChannelSelector(Operator):
    """Chooses one series per channel by its description. The App SDK's selector takes the first of several in silence.

    Named input: ``dicom_study_list``. Named output: ``study_selected_series_list``, series in channel order.

    ``patterns`` has a regular expression per channel, in channel order; ``source`` is the folder that was loaded.
    """

    def __init__(self, fragment: Fragment, *, patterns: Mapping[str, str], source: Path, **kwargs: Any) -> None:
        self.patterns = patterns
        self.source = source
        super().__init__(fragment, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("dicom_study_list")
        spec.output("study_selected_series_list")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Emit one :class:`SelectedSeries` per channel; refused without one study and one series for each."""
        studies = op_input.receive("dicom_study_list")
        if len(studies) != 1:
            what = "several studies" if studies else "no DICOM files"
            raise UserError(what, self.source, "one study", len(studies), "pass --input <folder of one study>")
        mr = [series for series in studies[0].get_all_series() if series.Modality == "MR"]
        selection = StudySelectedSeries(studies[0])
        for channel, series in choose_series(self.patterns, mr).items():
            logger.info("channel %s: series %r", channel, series.SeriesDescription)
            selection.add_selected_series(SelectedSeries(channel, series))
        op_output.emit([selection], "study_selected_series_list")


class ChannelStack(Operator):
    """Stacks the chosen series into one image (X, Y, Z, C), after checking that they share a grid.

    Named input: ``study_selected_series_list``. Named output: ``image``, with the metadata MONAI's transforms read.
    """

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("study_selected_series_list")
        spec.output("image")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Emit the image; the series are sorted on the way, as the writer of the segmentation needs them.

        Refused if a series is no volume, has pixels that cannot be read, or lies on another grid than the first.
        """
        selection = op_input.receive("study_selected_series_list")[0]
        volumes, grids = [], []
        for chosen in selection.selected_series:
            series, name = chosen.series, f"{chosen.selection_name} ({chosen.series.SeriesDescription})"
            slices = check_series([s.get_native_sop_instance() for s in series.get_sop_instances()], name)
            rank = {id(dataset): position for position, dataset in enumerate(slices)}
            series.get_sop_instances().sort(key=lambda s, rank=rank: rank[id(s.get_native_sop_instance())])
            grids.append(series_grid(slices))
            where = f"series {name}, compared with {selection.selected_series[0].selection_name}"
            step = "register and resample the series first"
            require_same_grid(grids[0], grids[-1], "series do not fit on each other", where, step)
            volumes.append(series_voxels(slices, name))
        affine = grids[0].affine
        metadata = {"affine": affine, "original_affine": affine.copy(), "space": "RAS", "original_channel_dim": -1}
        # the inference operator leaves an image alone that has a spacing and an original affine
        metadata |= {"spacing": grids[0].spacing, "spatial_shape": np.array(grids[0].shape)}
        op_output.emit(Image(np.stack(volumes, axis=-1), metadata), "image")
