"""Statically inspect a bundle: an inventory of what it would execute. Nothing is executed, imported or unpacked."""

import os
import shlex
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dcd_ext.bundles.contents import Contents, open_contents
from dcd_ext.bundles.inspect_code import OTHER, SENSITIVE, kind_of_name
from dcd_ext.bundles.inspect_files import Inventory

_WIDTH = 160
_MAX_FILES = 20_000
# of the groups; with the first line and the last three there are 40
_MAX_LINES = 36


def inspect(path: Path, seconds: float = 10.0, everything: bool = False) -> list[str]:
    """The inventory as lines for a terminal: control characters escaped, at most 40 lines unless everything is wanted.

    After ``seconds`` no further file is read; the remaining ones are listed as not read.
    """
    contents = open_contents(path)
    inventory, end = Inventory(contents), time.monotonic() + seconds
    for number, file in enumerate(sorted(contents.files, key=_likely_code_first)):
        if time.monotonic() > end or number >= _MAX_FILES:
            inventory.unread["no time left"].append(file)
        else:
            inventory.read(file)
    size = sum(contents.sizes.values())
    lines = [f"{contents.name}: {len(contents.files)} files, {size:,} bytes. If this bundle is run, it can run:"]
    groups = list(_groups(contents, inventory))
    limits = [len(entries) for _, entries, _ in groups] if everything else _limits(groups)
    for (title, entries, _), limit in zip(groups, limits, strict=True):
        lines.extend(_format_group(title, entries, limit))
    lines += [
        "This is an inventory, not a verdict: harmful code can look harmless.",
        "Run an untrusted bundle in a container without network access:",
    ]
    shown = (escape(line) for line in lines)
    return [*(line if everything else _shorten(line) for line in shown), f"  {container_command(path)}"]


def _likely_code_first(path: str) -> tuple[int, str]:
    """Many large data files must not use up the time before code and configs are read."""
    endings = ((".py",), (".json", ".yaml", ".yml", ".conf"))
    return next((i for i, ending in enumerate(endings) if path.lower().endswith(ending)), 2), path


def _groups(contents: Contents, inventory: Inventory) -> Iterable[tuple[str, list[str], int]]:
    """Title, lines, and how many of these are shown at most; all of them together stay below 40 lines."""
    lines, counts = inventory.lines, inventory.counts
    familiar = ", ".join(f"{name} {count}" for name, count in counts["familiar"].most_common())
    unread = [f"{reason}: {_few(files)}" for reason, files in inventory.unread.items()]
    yield "Python files", lines["python"], 5
    yield f"_target_ outside MONAI, torch and ignite (others: {familiar or 'none'})", _joined(counts["targets"]), 3
    yield f"names in {inventory.expression_count} $ expressions", _expression_lines(counts["expressions"]), 7
    yield "weights and pickles", lines["archives"], 3
    yield "downloads", lines["downloads"], 2
    yield "addresses in configs", _joined(counts["addresses"]), 1
    yield "paths outside the bundle in configs", _joined(counts["outside"]), 1
    yield "links and paths that leave the bundle", contents.problems, 2
    yield "files that tools run automatically", [_few(lines["started"])] if lines["started"] else [], 1
    yield "NOT READ", unread, 3
    yield "other files", _joined(counts["others"]), 1


def _limits(groups: list[tuple[str, list[str], int]]) -> list[int]:
    """Lines shown per group: the lines that short groups do not use go to the first groups that need more."""
    limits = [limit for *_, limit in groups]
    spare = _MAX_LINES - sum(len(_format_group(*group)) for group in groups)
    for i, (_, entries, limit) in enumerate(groups):
        limits[i] += min(max(len(entries) - limit, 0), spare)
        spare -= limits[i] - limit
    return limits


def _format_group(title: str, entries: list[str], limit: int) -> list[str]:
    """A group's title and at most ``limit`` lines below it; a single entry stands beside its title."""
    rest = len(entries) - limit
    more = f"… {rest + (limit > 1)} more (--all)" if rest > 0 else ""
    if min(len(entries), limit) <= 1:
        return [" ".join([f"{title}:", *(entries[:1] or ["none"]), more]).rstrip()]
    shown = [*entries[: limit - 1], more] if more else entries
    return [f"{title}:", *(f"  {entry}" for entry in shown)]


def _expression_lines(names: Counter[str]) -> list[str]:
    """Names by kind, the sensitive ones first."""
    groups: dict[str, Counter[str]] = {SENSITIVE: Counter(), OTHER: Counter()}
    for name, count in names.most_common():
        groups.setdefault(kind_of_name(name), Counter())[name] = count
    return [f"{kind}: {line}" for kind, counts in groups.items() for line in _joined(counts)]


def _joined(counts: Counter[str]) -> list[str]:
    """Names with counts, as many to a line as fit."""
    lines: list[str] = []
    for name, count in counts.most_common():
        entry = f"{_shorten(name, 100)} {count}"
        if lines and len(lines[-1]) + len(entry) < _WIDTH - 30:
            lines[-1] += f", {entry}"
        else:
            lines.append(entry)
    return lines


def _few(files: list[str]) -> str:
    return ", ".join(files[:4]) + (f" and {len(files) - 4} more" if len(files) > 4 else "")


def escape(text: str) -> str:
    """Text that a terminal only prints: control and direction characters are written as ``\\x1b``, ``\\u202e``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _shorten(text: str, width: int = _WIDTH) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def container_command(path: Path) -> str:
    """One command that runs a bundle's inference without network, with a read-only file system and no privileges.

    Names from inside the bundle are no part of it.
    """
    packed = not path.is_dir()
    target, root = ("/bundle.zip", "/tmp/bundle/*") if packed else ("/bundle", "/bundle")
    unpack = "python -m zipfile -e /bundle.zip /tmp/bundle && " if packed else ""
    source = shlex.quote(f"type=bind,src={escape(os.path.abspath(path))},dst={target},readonly")
    return (
        "docker run --rm --network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "
        f'--user "$(id -u):$(id -g)" --mount {source} -v "$PWD/data:/data:ro" -v "$PWD/output:/output" '
        f"projectmonai/monai:latest sh -c '{unpack}cd {root} && python -m monai.bundle run inference "
        "--config_file configs/inference.json --dataset_dir /data --output_dir /output'"
    )
