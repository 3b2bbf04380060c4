"""Segment one MR study with a bundle: DICOM in, one DICOM segmentation out; ``scripts/monai_deploy.sh`` calls it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError
from deploy.dicom.bundle import check_weights, read_channels
from deploy.dicom.series import DEFAULTS, channel_patterns


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/monai_deploy.sh", description="Segment one MR study with a bundle.")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--input", type=Path, required=True, help="folder with one study as DICOM files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the DICOM segmentation")
    parser.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="[CHANNEL=]REGEX",
        help="description of a channel's series, once per channel; without CHANNEL= for a bundle of one channel, whose "
        f"default is the only MR series (defaults for brats24: {DEFAULTS.name})",
    )
    return parser


def segment(bundle: BundleFolder, source: Path, output: Path, series: list[str]) -> Path:
    """Segment one study.

    Args:
        bundle: with weights.
        source: folder with one study as DICOM files, at any depth.
        output: folder for the segmentation, made if needed.
        series: ``CHANNEL=REGEX`` texts for :func:`channel_patterns`.

    Returns:
        The DICOM segmentation.

    Raises:
        UserError: if something of the bundle or the study is missing, or they do not fit each other.
    """
    if not source.is_dir():
        raise UserError("no input", source, "a folder of DICOM files", "no such folder", "pass --input <folder>")
    if output.exists() and not output.is_dir():
        raise UserError("no output folder", output, "a folder", "a file", "pass another --output <folder>")
    patterns = channel_patterns(read_channels(bundle), series)
    check_weights(bundle)
    from deploy.dicom.app import SegmentationApp  # seconds, and holoscan's messages

    before = set(output.glob("*.dcm"))
    SegmentationApp(bundle, patterns, source, output).run()
    written = sorted(set(output.glob("*.dcm")) - before)
    if len(written) != 1:
        raise UserError("no segmentation", output, "one new file", len(written), "read the log above")
    return written[0]


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    options = _parser().parse_args(arguments)
    try:
        bundle = BundleFolder(options.bundle)
        print(segment(bundle, options.input.resolve(), options.output.resolve(), options.series))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
