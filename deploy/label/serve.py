"""Start MONAI Label on loopback with bundles of this collection; ``scripts/monai_label.sh`` calls it."""

import argparse
import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_atomically

ROOT = Path(__file__).resolve().parents[2]
_NOT_COPIED = shutil.ignore_patterns("eval", "__pycache__", ".tmp-*")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/monai_label.sh", description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="*", help="bundle folders (default: bundles/ with weights)")
    parser.add_argument("--studies", type=Path, required=True, help="folder of images; labels/ and an index are added")
    parser.add_argument("--app", type=Path, default=ROOT / "runs" / "monai_label", help="folder of the bundles' copies")
    parser.add_argument("--port", type=int, default=8811, help="port on 127.0.0.1 (default 8811)")
    parser.add_argument("--fresh", action="store_true", help="replace earlier copies, and what was trained into them")
    return parser


def find_bundles(folders: list[Path]) -> dict[str, Path]:
    """The bundles to serve, by name; without ``folders``, those of ``bundles/`` that have weights.

    Refused if there is none, a folder is no bundle, or two have one name, under which the server knows only one.
    """
    if not folders:
        folders = sorted({path.parents[1] for path in ROOT.glob("bundles/*/models/model.[pt][ts]")})
    if not folders:
        expected = "models/model.pt in one of them"
        raise UserError("no bundle with weights", ROOT / "bundles", expected, "none", "train a bundle first")
    named: dict[str, Path] = {}
    for folder in (given.resolve() for given in folders):
        if not (folder / "configs" / "inference.json").is_file():
            raise UserError("not a bundle", folder, "configs/inference.json in it", "none", "name a folder of bundles/")
        if named.setdefault(folder.name, folder) != folder:
            where = f"{named[folder.name]} and {folder}"
            step = "rename one of the folders, or serve them one at a time with an --app each"
            raise UserError("duplicate bundle name", where, "another name for each", folder.name, step)
    return named


def prepare_app(app: Path, bundles: dict[str, Path], fresh: bool = False) -> None:
    """Fill the app folder: ``main.py``, ``guard.py`` and a copy of every bundle in ``model``.

    The server trains into its copies; the bundles themselves stay as they are. A copy that exists is kept, because it
    may have been trained, unless ``fresh``; only missing weights are added to it. Interrupted, it leaves whole copies
    or none.
    """
    (app / "model").mkdir(parents=True, exist_ok=True)
    for script in ("main.py", "guard.py"):
        shutil.copyfile(Path(__file__).with_name(script), app / script)
    for name, bundle in bundles.items():
        copy = app / "model" / name
        if fresh or not copy.exists():
            _copy_bundle(bundle, copy)
            continue
        print(f"[label] kept {copy} as it is (--fresh replaces it)")
        for weights in (bundle / "models").glob("model.[pt][ts]"):
            if not (copy / "models" / weights.name).exists():
                write_atomically(copy / "models" / weights.name, functools.partial(shutil.copyfile, weights))


def _copy_bundle(bundle: Path, copy: Path) -> None:
    # beside model/, because MONAI Label takes whatever lies in there for a bundle, also half a one
    with tempfile.TemporaryDirectory(prefix=f"{bundle.name}.", suffix=".part", dir=copy.parents[1]) as folder:
        new = Path(folder, "new")
        shutil.copytree(bundle, new, ignore=_NOT_COPIED)
        if copy.exists():
            copy.rename(Path(folder, "old"))
        new.rename(copy)


def server_command(app: Path, studies: Path, names: list[str], port: int) -> list[str]:
    """What starts the server, in the app folder. It is reachable from this machine alone and asks no model zoo."""
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--conf", "models", ",".join(names), "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--uvicorn_app", "guard:app"]


def main(arguments: list[str] | None = None) -> None:
    """Prepare the app folder and become the server."""
    options = _parser().parse_args(arguments)
    if not options.studies.is_dir():
        step = "run dcd studies first"
        raise UserError("no studies", options.studies, "a folder of *.nii.gz", "no such folder", step)
    app = options.app.resolve()
    bundles = find_bundles(options.bundles)
    prepare_app(app, bundles, options.fresh)
    # otherwise the server writes below the home directory
    environment = {"MONAI_LABEL_SESSION_PATH": str(app / "sessions"), **os.environ}
    os.chdir(app)  # MONAI Label reads a file .env of the working directory
    command = server_command(app, options.studies.resolve(), list(bundles), options.port)
    print(f"[label] http://127.0.0.1:{options.port}/info/ serves {', '.join(bundles)}", flush=True)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    show_plainly()
    main()
