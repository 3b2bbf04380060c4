"""Judge the code inside a TorchScript archive: it cannot call Python, but it has operators that work on files."""

from __future__ import annotations

import re

__all__ = ["torchscript_problems"]

# torch.save(x, "f"), torch.from_file("f", shared=True, ...) are TorchScript operators, too
_FILES = re.compile(r"\b(?:torch|ops\.aten)\.(save|load|from_file|_save|_load|classes|rpc_\w+)\b|\bopen\s*\(")
_OPERATORS = re.compile(r"\bops\.(\w+)\.(\w+)")
_NAMESPACES = {"aten", "prim", "prims", "quantized", "mkldnn", "mkldnn_prepacked"}


def torchscript_problems(code: str) -> list[str]:
    """What the serialised code of one module calls besides computations.

    Args:
        code: text of a ``code/*.py`` record; it looks like Python.
    """
    # the parser of TorchScript takes spaces, line breaks and comments around dots; a "#" may also be part of a text
    texts = [re.sub(r"\s*\.\s*", ".", text) for text in (code, re.sub(r"#[^\n]*|\\\n", "", code))]
    code = "\n".join(texts)
    calls = {match.group(0).strip("( ") for match in _FILES.finditer(code)}
    found = {f"TorchScript calls {name}, which reads or writes files" for name in calls}
    for namespace, name in _OPERATORS.findall(code):
        if namespace not in _NAMESPACES:
            found.add(f"TorchScript calls {namespace}::{name}, an operator that torch does not bring along")
    return sorted(found)
