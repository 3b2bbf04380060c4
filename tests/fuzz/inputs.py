"""Damaged and hostile variants of valid files, drawn by Hypothesis."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

_ODD = [None, True, -1, 0, 10**20, 0.5, 1e300, float("nan"), float("inf"), "", [], {}, [[]], [None], {"a": 1}]
_TEXTS = [
    "..",
    "../../../up",
    "/dev/zero",
    "a\x00b",
    "\ud800",
    "$1/0",
    "@no",
    "%no::entry",
    "1",
    "nan",
    "a\nb",
    "x" * 5000,
]
# copies, because a later change may be one within an earlier value
VALUES = st.one_of(
    st.sampled_from(_ODD).map(deepcopy), st.sampled_from(_TEXTS), st.text(max_size=6), st.integers(), st.floats()
)
_SPOILED = [b"", b"{", b"null", b"[" * 10**5, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<html>"]


@st.composite
def spoiled_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A file that was cut, overwritten, filled up, replaced, or stored in another encoding."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "zero", "other", "mark", "utf-16"]))
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :] if content else b"\0"
    if kind == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:]
    if kind == "zero":
        return content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :]
    if kind == "mark":
        return b"\xef\xbb\xbf" + content
    if kind == "utf-16":
        return content.decode("latin-1").encode("utf-16")
    return draw(st.sampled_from(_SPOILED))


def _places(content: Any, place: tuple = ()) -> list[tuple]:
    """The path of every entry of nested dictionaries and lists."""
    if isinstance(content, dict | list):
        entries = list(content.items() if isinstance(content, dict) else enumerate(content))
        return [place, *(p for key, value in entries for p in _places(value, (*place, key)))]
    return [place]


@st.composite
def spoiled_content(draw: st.DrawFn, content: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """One to three entries replaced, removed or added."""
    content = deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(_places(content)))
        if not place:
            content = draw(st.one_of(values, st.just(content)))
            continue
        *folder, key = place
        parent = content
        for name in folder:
            parent = parent[name]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if action == "replace":
            parent[key] = draw(values)
        elif action == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.one_of(st.sampled_from(_TEXTS), st.text(max_size=6)))] = draw(values)
        else:
            parent.append(draw(values))
    return content


def spoiled_json(content: Any) -> st.SearchStrategy[bytes]:
    """A JSON file with other entries, or with other bytes."""
    text = json.dumps(content).encode()
    other = spoiled_content(content).map(lambda c: json.dumps(c).encode())
    return st.one_of(other, other, other, spoiled_bytes(text))
