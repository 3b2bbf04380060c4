"""Pack a bundle for others: weights, TorchScript, configs, card, licences and checksums in one reproducible zip."""

import re
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import yaml

from dcd_ext.bundles.card import front_matter, packed_readme
from dcd_ext.bundles.export import export_torchscript
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.sums import LARGE_FILES, write_sums, write_zip
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, sha256, write_json, write_text
from dcd_ext.networks import count_parameters
from dcd_ext.readers import read_metrics, read_pipeline
from dcd_ext.weights import read_checkpoint

# what a bundle consists of; everything else in its folder (eval, other weights) stays at home
_PARTS = ("configs/**/*", "docs/**/*", "*scripts/**/*.py", "LICENSE")


def pack(
    bundle: Path,
    checkpoint: Path,
    output: Path,
    reduction_factor: int | None = None,
    metrics: Path | None = None,
    large_files_url: str | None = None,
) -> Path:
    """Write ``<output>/<name>_v<version>.zip`` and return its path; the options are explained by ``dcd pack --help``.

    Refused if the bundle is incomplete, the weights do not fit, or the metrics belong to others.
    """
    if large_files_url is not None:
        _check_address(large_files_url)
    source = BundleFolder(bundle)
    stem = f"{source.name}_v{source.version}"
    with tempfile.TemporaryDirectory(dir=make_folder(output)) as folder:
        root, away = Path(folder, source.name), Path(folder, f"{stem}_files")
        _stage(source, root, checkpoint, reduction_factor, metrics)
        write_sums(root, _move_out(root, away, large_files_url) if large_files_url is not None else None)
        made = Path(folder, f"{stem}.zip")
        write_zip(root, made)
        if away.is_dir():
            shutil.rmtree(output / away.name, ignore_errors=True)
            away.replace(output / away.name)
        return made.replace(output / made.name)


def _check_address(url: str) -> None:
    """Refuse an address that is neither https nor this machine's."""
    parts = urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
        raise UserError("address of the weights", url, "https://...", "something else", "use an encrypted address")


def _move_out(root: Path, target: Path, url: str) -> dict[str, str]:
    """Move a bundle's ``models`` to ``target``, which is to be uploaded to ``url``, and write ``large_files.yml``.

    The SHA-256 of each file is returned by its path inside the bundle, which is that below ``target``, too.
    """
    sums = {}
    for file in sorted((root / "models").glob("model.*")):
        path = file.relative_to(root).as_posix()
        sums[path] = sha256(file)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        file.replace(target / path)
    urls = {path: f"{url.rstrip('/')}/{path}" for path in sums}
    entries = [{"path": p, "url": urls[p], "hash_val": sums[p], "hash_type": "sha256"} for p in sums]
    write_text(yaml.safe_dump({"large_files": entries}, sort_keys=False), root / LARGE_FILES)
    return sums


def _stage(
    source: BundleFolder, root: Path, checkpoint: Path, reduction_factor: int | None, metrics: Path | None
) -> None:
    """Everything of the packed bundle but its checksums."""
    if not checkpoint.is_file():
        step = "train it, or --checkpoint FILE"
        raise UserError("weights not found", checkpoint, "a checkpoint", "no such file", step)
    _copy_parts(source.root, root)
    if reduction_factor is not None:
        _set_reduction_factor(root, reduction_factor)
    _write_metadata(BundleFolder(root), _measured(metrics, checkpoint), _copy_int8(source.root, root, checkpoint))
    bundle = BundleFolder(root)
    _write_weights(bundle, checkpoint)
    export_torchscript(bundle, root / "models" / "model.ts")
    _write_card(bundle)


def _copy_parts(source: Path, root: Path) -> None:
    for pattern in _PARTS:
        for file in source.glob(pattern):
            if file.is_file():
                target = root / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    for needed in ("LICENSE", "configs/inference.json", "docs/README.md"):
        if not (root / needed).is_file():
            raise UserError("incomplete bundle", source, needed, "no such file", "take a bundle of this collection")


def _copy_int8(source: Path, root: Path, checkpoint: Path) -> dict[str, Any]:
    """The INT8 network, if there is one, and what it reached; refused if it was made of other weights."""
    folder = source / "models" / "int8"
    if not (folder / "pipeline.json").is_file():
        return {}
    reached = dict(read_pipeline(folder).get("int8", {}))
    found, made_of = sha256(checkpoint), reached.pop("weights_sha256", None)
    if made_of != found:
        step = "run dcd export --formats int8 again, or remove the folder"
        raise UserError("INT8 network of other weights", folder, found, made_of, step)
    for name in ("pipeline.json", "network_int8.xml", "network_int8.bin"):
        shutil.copyfile(folder / name, make_folder(root / "models" / "int8") / name)
    return {"int8": reached}


def _set_reduction_factor(root: Path, factor: int) -> None:
    """Change one number in the text of the configs, so that their layout stays."""
    for name in ("train", "inference"):
        file = root / "configs" / f"{name}.json"
        text, changes = re.subn(r'("reduction_factor": )\d+', rf"\g<1>{factor}", file.read_text("utf-8"), count=1)
        if not changes:
            raise UserError("no width to reduce", file, "an entry reduction_factor", "none", "leave the option out")
        write_text(text, file)


def _measured(metrics: Path | None, checkpoint: Path) -> dict[str, Any]:
    """The scores for ``eval_metrics``, refused if they were measured with other weights."""
    if metrics is None:
        return {}
    record = read_metrics(metrics)
    means = {m: {c: v[m]["mean"] for c, v in record["summary"].items()} for m in ("dice", "hd95_mm", "nsd")}
    found = sha256(checkpoint)
    if record.get("weights_sha256") != found:
        where = f"{found} ({checkpoint})"
        next_step = "evaluate exactly this checkpoint"
        raise UserError("metrics of other weights", metrics, record.get("weights_sha256"), where, next_step)
    return {
        "fold": record["fold"],
        "cases": len(record["cases"]),
        "nsd_tolerance_mm": record["nsd_tolerance_mm"],
        **means,
    }


def _write_metadata(bundle: BundleFolder, measured: dict[str, Any], int8: dict[str, Any]) -> None:
    """Exact versions of this environment, which made and checks the exports, and the measured scores."""
    metadata = {**bundle.metadata, "version": bundle.version}
    versions = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
    metadata.update({key: _installed(package) for key, package in versions.items()})
    packages = metadata.get("required_packages_version", {})
    metadata["required_packages_version"] = {name: _installed(name) for name in packages}
    metadata["eval_metrics"] = measured
    metadata |= int8
    write_json(metadata, bundle.root / "configs" / "metadata.json")


def _installed(package: str) -> str:
    """Public version: indexes have no ``2.13.0+cpu``."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError as e:
        raise UserError("package missing", package, "installed", "not found", f"pip install {package}") from e


def _write_weights(bundle: BundleFolder, checkpoint: Path) -> None:
    """A flat state dict of tensors; a checkpoint that is one already is copied byte by byte."""
    network = bundle.network(checkpoint)
    bundle.weights.parent.mkdir(exist_ok=True)
    state = read_checkpoint(checkpoint, "train the bundle first")
    if list(state) == list(network.state_dict()):
        shutil.copyfile(checkpoint, bundle.weights)
    else:
        torch.save(network.state_dict(), bundle.weights)


def _write_card(bundle: BundleFolder) -> None:
    network, widths = bundle.build("network_def"), bundle.build("network_def::features_per_stage")
    readme = bundle.root / "docs" / "README.md"
    text = packed_readme(
        readme.read_text("utf-8"), bundle.name, bundle.metadata, count_parameters(network), list(widths)
    )
    write_text(text, readme)
    license_text = (bundle.root / "LICENSE").read_text("utf-8")
    write_text(front_matter(license_text) + text, bundle.root / "README.md")
