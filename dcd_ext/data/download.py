"""Fetch a Decathlon task through MONAI's own downloader, checked against MONAI's own checksum."""

import textwrap
from pathlib import Path

from dcd_ext.errors import UserError
from dcd_ext.io import make_folder


def download_msd(task: str, folder: Path) -> Path:
    """Download and unpack one task of the Medical Segmentation Decathlon; the folder with its ``dataset.json``.

    A task that is already unpacked is used as it is; an archive with the right checksum is not fetched again. Refused
    are unknown tasks and files with a wrong checksum.
    """
    # MONAI and torch take seconds to import, and only this command needs them
    from monai.apps import DecathlonDataset, download_and_extract

    if task not in DecathlonDataset.resource:
        known = ", ".join(sorted(DecathlonDataset.resource))
        raise UserError("unknown Decathlon task", "--download", known, task, "name one of them")
    target = folder / task
    if (target / "dataset.json").is_file():
        return target
    archive = make_folder(folder) / f"{task}.tar"
    url = DecathlonDataset.resource[task]
    try:
        download_and_extract(url, archive, folder, DecathlonDataset.md5[task], hash_type="md5")
    # the downloader lets through whatever urllib, tarfile and its own checksum test raise
    except Exception as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 120)
        expected = f"an archive with MD5 {DecathlonDataset.md5[task]}"
        step = f"fetch it from medicaldecathlon.com with another computer, unpack it, and pass --source .../{task}"
        raise UserError("cannot download the data", url, expected, reason, step) from error
    return target
