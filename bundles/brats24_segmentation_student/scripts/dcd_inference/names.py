"""Names of cases from the paths of their images: what differs between the paths."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence

from dcd_inference.errors import UserError

# of images that MONAI's readers know; an Analyze or NIfTI pair is named by its header
SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".hdr", ".gipl", ".gipl.gz")


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name; what follows a dot and is no suffix of an image, as in a UID, is kept."""
    for suffix in (*sorted(SUFFIXES, key=len, reverse=True), ".img", ".dcm"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def case_names(files: Sequence[str | os.PathLike]) -> list[str]:
    """One name per image, file or folder: its stem where that is enough, otherwise what differs in the paths.

    Refused if two names would be the same, also on a system that ignores the case of letters.

    Example:
        >>> case_names(["in/a.nii.gz", "in/b.mha"]), case_names(["p1/t1.nii", "p2/t1.nii"])
        (['a', 'b'], ['p1', 'p2'])
    """
    paths = [os.path.abspath(file) for file in files]
    split = [split_suffix(os.path.basename(path)) for path in paths]
    names = [stem for stem, _ in split]
    if not _unique(names):
        names = _differing(paths, names)
    if not _unique(names):
        counts = Counter(map(_folded, names))
        kinds = [suffix.replace(".", "_") for _, suffix in split]
        longer = [name + kind if counts[_folded(name)] > 1 else name for name, kind in zip(names, kinds, strict=True)]
        names = longer if _unique(longer) else names
    refuse_collisions(names, paths)
    return names


def refuse_collisions(names: Sequence[str], files: Sequence[str | os.PathLike]) -> None:
    """Refuse cases whose results would overwrite each other, accents and the case of letters aside."""
    seen: dict[str, tuple[str, str]] = {}
    for name, file in zip(names, map(str, files), strict=True):
        # a result's name has no folders in it
        before, other = seen.setdefault(_folded(name.replace(os.sep, "_")), (name, file))
        if other is not file:
            both = name if name == before else f"{before} and {name}"
            what = "image listed twice" if file == other else f"two cases of one name: {both}"
            raise UserError(what, file if file == other else f"{other} and {file}", next_step="remove or rename one")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _unique(names: Sequence[str]) -> bool:
    return len(set(map(_folded, names))) == len(names)


def _differing(paths: Sequence[str], stems: Sequence[str]) -> list[str]:
    """Folders and stems below the folder that all have in common; without those that are the same in all."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    parts = []
    for path, stem in zip(paths, stems, strict=True):
        folders = os.path.relpath(os.path.dirname(path), common)
        parts.append([*([] if folders == os.curdir else folders.split(os.sep)), stem])
    if len(set(map(len, parts))) == 1:
        kept = [i for i, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
        parts = [[part[i] for i in kept] or part[-1:] for part in parts]
    return ["_".join(part) for part in parts]
