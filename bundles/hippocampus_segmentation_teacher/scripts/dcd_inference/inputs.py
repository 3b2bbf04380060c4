"""The images of an inference: those of a data list, or what lies in a folder."""

import json
import logging
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dcd_inference.errors import UserError, refuse_unlisted, typed_options
from dcd_inference.dicom import check_series, is_dicom, read_series
from dcd_inference.names import SUFFIXES, case_names

logger = logging.getLogger(__name__)


def check_paths(**paths: Any) -> None:
    """Refuse what MONAI's command line has turned into something else than the path that was typed."""
    for name, path in paths.items():
        if not isinstance(path, (str, os.PathLike)):
            found = f"{path!r}, which reads as Python ({type(path).__name__})"
            raise UserError("no path", f"--{name}", "text", found, "write an absolute path, or one that starts with ./")
        # of a short name, "#" and what follows are gone as a comment
        words = (text for option, text in typed_options() if option == name and "#" in text)
        typed = next(words, str(path).replace("::", "#"))
        if "#" in typed:
            step = "rename the folder, or reach it through a link (ln -s)"
            what = "'#' in a path, where MONAI reads it as a separator"
            raise UserError(what, f"--{name}", "a path without '#'", typed, step)


def check_options(patch_size: Sequence[int], strides: Sequence[Sequence[int]] = (), **booleans: Any) -> None:
    """Refuse a patch that the strides do not divide, and booleans that are neither true nor false."""
    for name, value in booleans.items():
        if str(value).lower() not in ("true", "false"):
            raise UserError("unusable option", f"--{name}", "true or false", repr(value), "correct it")
    factors = [math.prod(stride[axis] for stride in strides) for axis in range(3)]
    if len(patch_size) != 3 or any(side % factor for side, factor in zip(patch_size, factors, strict=True)):
        what, expected = "the patch does not fit the strides", f"three sides divisible by {factors}"
        raise UserError(what, "--patch_size", expected, patch_size, "correct it")


def find_images(dataset_dir: str, datalist_path: str = "", output_dir: str = "") -> list[Any]:
    """Images as a bundle's ``datalist`` has them: paths that start from ``dataset_dir``, or lists of one per channel.

    With a data list, its ``test`` cases. Otherwise the images of the folder or, where there is none, those of its
    subfolders at any depth; a folder with DICOM files is one image. Hidden files and ``output_dir`` are left out.
    Refused if there is none, or the data list cannot be read.
    """
    check_paths(dataset_dir=dataset_dir, output_dir=output_dir)
    if datalist_path and os.path.isfile(datalist_path):
        return _listed(datalist_path)
    root = os.path.abspath(dataset_dir)
    if not os.path.isdir(root):
        raise UserError("no such folder", dataset_dir, "a folder of images", "none", "correct --dataset_dir")
    if output_dir and os.path.realpath(output_dir) == os.path.realpath(root):
        what = "results would lie among the images"
        raise UserError(what, output_dir, "another folder than --dataset_dir", "the same", "correct --output_dir")
    folders = _walk(root, os.path.realpath(output_dir) if output_dir else "")
    found = next(folders)
    below = [image for images in folders for image in images]
    if found and below:
        logger.warning("%s: %d images in subfolders are not used", dataset_dir, len(below))
    if images := sorted(found or below):
        return [os.path.relpath(image, root) for image in images]
    names = sorted(name for name in os.listdir(root) if not name.startswith("."))
    there = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    expected = f"test entries in datalist.json, or without one DICOM or *{', *'.join(SUFFIXES[:6])} …"
    raise UserError("no image", dataset_dir, expected, there or "an empty folder", "pass --dataset_dir or --datalist")


def make_cases(datalist: Any, dataset_dir: str) -> list[dict[str, Any]]:
    """``image`` (path, or list of paths) and ``case`` (its name) of each image; of ``torchrun``, this process's share.

    Refused if an entry is no path, or two cases would have one name.
    """
    entries = [datalist] if isinstance(datalist, str) else list(datalist)
    cases: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        files = list(entry) if isinstance(entry, (list, tuple)) else [entry]
        if not files or not all(isinstance(file, str) for file in files):
            step = "quote the names, as in --datalist \"['a.nii.gz']\""
            raise UserError("no image", f"datalist[{number}]", "a path, or one per channel", repr(entry), step)
        files = [os.path.normpath(os.path.join(dataset_dir, file)) for file in files]
        cases.append({"image": files if isinstance(entry, (list, tuple)) else files[0]})
    for case, name in zip(cases, case_names([all_images(case)[0] for case in cases]), strict=True):
        case["case"] = name
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return cases[rank::processes]


def check_image(file: str) -> None:
    """Refuse what is no readable image, by name; of DICOM, what is not one evenly spaced volume."""
    step = "correct the path, or leave the case out"
    try:
        kind = os.stat(file).st_mode
    except OSError as error:
        raise UserError("image not found", file, "a file", error.strerror, step) from error
    if stat.S_ISDIR(kind):
        check_series(read_series(Path(file)), file)
    elif not stat.S_ISREG(kind):
        raise UserError("no image", file, "a file", "a device or a pipe", step)
    elif os.stat(file).st_size == 0:
        raise UserError("image cannot be read", file, "an image", "an empty file", step)
    elif is_dicom(file):
        check_series(read_series(Path(file)), file)


def _listed(path: str) -> list[Any]:
    """The ``test`` cases of a data list; the Decathlon writes them as bare file names."""
    try:
        content = json.loads(Path(path).read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError("unreadable data list", path, "JSON", found, "prepare the data again") from error
    entries = content.get("test", []) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError("no data list", path, "a list 'test'", type(content).__name__, "prepare the data again")
    images = [entry.get("image") if isinstance(entry, dict) else entry for entry in entries]
    if not images:
        step = "pass --dataset_dir or --datalist"
        raise UserError("no image", path, "test entries in datalist.json", "none", step)
    return images


def _walk(root: str, left_out: str) -> Iterator[list[str]]:
    """Images of ``root``, then of each folder below it. Links are followed, but into no folder twice."""
    seen = {left_out}
    for folder, folders, files in os.walk(root, onerror=refuse_unlisted, followlinks=True):
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        # a folder named as an image is taken for one, so that it is not passed over in silence
        named = [n for n in folders + files if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in named)
        images = [os.path.join(folder, name) for name in named]
        others = (os.path.join(folder, name) for name in files if not name.startswith("."))
        yield images or ([folder] if any(map(is_dicom, others)) else [])


def all_images(case: dict[str, Any]) -> Sequence[str]:
    """The files of a case, one per channel."""
    image = case["image"]
    return [str(image)] if isinstance(image, (str, os.PathLike)) else [str(file) for file in image]
