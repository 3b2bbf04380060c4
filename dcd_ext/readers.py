"""Read JSON files, typed by the schemas in ``schemas/``: every fault is one line with the place in the file.

docs/file_formats.md describes the files.
"""

import functools
import json
import os
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError

SCHEMAS = Path(__file__).with_name("schemas")
_KINDS = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "const": "{}",
    "enum": "one of {}",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "minProperties": "at least {} entries",
    "minLength": "at least {} characters",
    "uniqueItems": "no entry twice",
}


def read_json(path: str | os.PathLike, schema: str | None, what: str, next_step: str) -> Any:
    """The content of a JSON file (UTF-8, with or without a byte-order mark) that fits a schema.

    The schema is the name of a file in ``schemas/``; None takes any JSON. Messages say ``what`` the file is. It is
    refused if it is missing, is no complete JSON, has NaN or a name twice in one object, or does not fit.
    """
    path = Path(path)
    if not os.path.isfile(path):  # False for a name that no file can have, too
        raise UserError(f"no {what}", path, "a file", "none", next_step)
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"unreadable {what}", path, "complete JSON", str(error), next_step) from error
    if schema is not None:
        check_content(content, schema, path, what, next_step)
    return content


def parse_json(data: bytes) -> Any:
    """The content of a JSON file; ValueError or RecursionError for what :func:`read_json` refuses."""
    content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
    # json takes NaN, 1e999 and half of a surrogate pair, which can be neither written nor printed
    json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return content


def check_content(content: Any, schema: str, path: str | os.PathLike, what: str, next_step: str) -> None:
    """Refuse content that does not fit a schema, with the place of the first fault."""
    error = next(_validator(schema).iter_errors(content), None)
    if error is not None:
        keys = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path)
        place = "".join(keys).removeprefix(".")
        where = f"{path}, {place}" if place else path
        raise UserError(f"unusable {what}", where, *_expected_found(error), next_step)


def read_metrics(path: str | os.PathLike) -> dict[str, Any]:
    """``metrics.json`` of an evaluation; refused, too, if a case lacks a class."""
    again = "evaluate the run again"
    metrics = read_json(path, "metrics", "result of an evaluation", again)
    for case, entry in metrics["cases"].items():
        if missing := [name for name in metrics["class_names"] if name not in entry["classes"]]:
            where = f"{path}, cases.{case}.classes"
            raise UserError("unusable result of an evaluation", where, f"'{missing[0]}'", "none", again)
    return metrics


def read_training(path: str | os.PathLike) -> dict[str, Any]:
    """``training.json`` of a training."""
    return read_json(path, "training", "record of a training", "train the run again, or remove it")


def read_pipeline(folder: str | os.PathLike) -> dict[str, Any]:
    """``pipeline.json`` of an exported network; refused, too, if the network does not lie beside it."""
    path, again = Path(folder, "pipeline.json"), "export it again, or remove the folder"
    spec = read_json(path, "pipeline", "description of an exported network", again)
    if not (path.parent / spec["network"]).is_file():
        raise UserError("no exported network", path.parent / spec["network"], "the file", "none", again)
    return spec


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{key!r} twice")
    return dict(pairs)


@functools.cache
def _validator(name: str) -> Any:
    # not needed where a bundle is deployed
    from jsonschema import Draft7Validator, validators

    # JSON Schema takes 3.0 for an integer, which no index or range does; json reads NaN and 1e999 as numbers
    types = {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
        ),
    }
    kind = validators.extend(Draft7Validator, type_checker=Draft7Validator.TYPE_CHECKER.redefine_many(types))
    return kind(_inlined(_load(f"{name}.json"), f"{name}.json"))


def _inlined(schema: Any, file: str) -> Any:
    """A schema of ``file`` without references; MONAI Label needs a jsonschema too old to follow them to other files."""
    if isinstance(schema, list):
        return [_inlined(part, file) for part in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: _inlined(value, file) for key, value in schema.items() if key not in ("$ref", "$schema")}
    if not isinstance(schema.get("$ref"), str):
        return rest
    other, _, path = schema["$ref"].partition("#/")
    target = _load(other or file)
    for key in filter(None, path.split("/")):
        target = target[key]
    return {"allOf": [rest, _inlined(target, other or file)]}


def _load(file: str) -> Any:
    return json.loads((SCHEMAS / file).read_text("utf-8"))


def _expected_found(error: Any) -> tuple[str, str]:
    """The two sides of the comparison in plain words; a schema's ``description`` says what its keywords cannot."""
    kind, value = str(error.validator), error.validator_value
    found = reprlib.repr(error.instance)
    if kind == "required":
        return f"'{next(name for name in value if name not in error.instance)}'", "none"
    if kind == "additionalProperties":
        return "no further entry", repr(next(name for name in error.instance if name not in error.schema["properties"]))
    if kind == "type":
        return " or ".join(_KINDS[name] for name in ([value] if isinstance(value, str) else value)), found
    if kind in _LIMITS:
        return _LIMITS[kind].format(", ".join(map(str, value)) if isinstance(value, list) else value), found
    return error.schema.get("description", f"{kind} {value}"), found
