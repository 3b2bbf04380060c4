"""Read channels, labels and origin from a bundle's metadata, and check its weights."""

from dcd_ext.bundles.export import load_torchscript
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError

_METADATA = "configs/metadata.json"


def read_channels(bundle: BundleFolder) -> list[str]:
    """Names of the input channels, in channel order."""
    return list(_channel_def(bundle, "inputs", "image").values())


def read_labels(bundle: BundleFolder) -> list[str]:
    """Names of the labels 1, 2, … of the label map, without the background; refused if a number is left out."""
    labels = _channel_def(bundle, "outputs", "pred")
    if list(labels) != list(range(len(labels))) or len(labels) < 2:
        # a DICOM segmentation numbers its segments 1, 2, …
        raise UserError("labels with gaps", bundle.root / _METADATA, "0, 1, 2, …", list(labels), "correct the file")
    return list(labels.values())[1:]


def read_origin(bundle: BundleFolder) -> tuple[str, str]:
    """Authors and version, which a DICOM segmentation names; refused without one of the two."""
    for key in ("authors", "version"):
        text = bundle.metadata.get(key)
        if not isinstance(text, str) or not text.strip():
            found = "none" if text is None else repr(text)
            where = bundle.root / _METADATA
            raise UserError(f"bundle without {key}", where, f'a text "{key}"', found, "add it to the file")
    return bundle.metadata["authors"], bundle.metadata["version"]


def _channel_def(bundle: BundleFolder, side: str, key: str) -> dict[int, str]:
    try:
        names = bundle.metadata["network_data_format"][side][key]["channel_def"]
        return {int(index): names[index] for index in sorted(names, key=int)}
    except KeyError as error:
        where, found = bundle.root / _METADATA, f"{type(error).__name__}: {error}"
        raise UserError("no channels", where, f"{side}.{key}.channel_def", found, "correct the file") from error


def check_weights(bundle: BundleFolder) -> None:
    """Refuse weights that the bundle inference would fail on with a traceback. It takes the export if there is one."""
    path = next((file for file in (bundle.weights.with_suffix(".ts"), bundle.weights) if file.is_file()), None)
    if path is None:
        step = "train the bundle or download its weights"
        raise UserError("no weights", bundle.root / "models", "model.pt", "neither model.pt nor model.ts", step)
    try:
        load_torchscript(path)  # the SDK tries the same with model.pt
    except Exception as error:  # torch raises RuntimeError, ValueError and others on a damaged file
        if path.suffix == ".ts":
            found, step = type(error).__name__, "download or export them again"
            raise UserError("weights cannot be read", path, "TorchScript", found, step) from error
        bundle.network()
