"""Segment one MR study with a bundle: DICOM in, one DICOM segmentation out; ``scripts/monai_deploy.sh`` calls it."""

import argparse
from pathlib import Path

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError, show_plainly
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
    """Segment the one study below ``source``, with ``CHANNEL=REGEX`` texts, and return the new file in ``output``.

    Refused if something of the bundle or the study is missing, or they do not fit each other.
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command and print the segmentation's path."""
    options = _parser().parse_args(arguments)
    bundle = BundleFolder(options.bundle)
    print(segment(bundle, options.input.resolve(), options.output.resolve(), options.series))


if __name__ == "__main__":
    show_plainly()
    main()
