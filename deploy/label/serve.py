"""Start MONAI Label on loopback with bundles of this collection; ``scripts/monai_label.sh`` calls it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from dcd_ext.errors import UserError, show_plainly

ROOT = Path(__file__).resolve().parents[2]
_NOT_COPIED = shutil.ignore_patterns("eval", "__pycache__", "*.part")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/monai_label.sh", description=__doc__)
    parser.add_argument(
        "bundles", type=Path, nargs="*", help="bundle folders (default: those of bundles/ with weights)"
    )
    parser.add_argument("--studies", type=Path, required=True, help="folder of images; labels/ and an index are added")
    parser.add_argument(
        "--app", type=Path, default=ROOT / "runs" / "monai_label", help="folder with the copies of the bundles"
    )
    parser.add_argument("--port", type=int, default=8811, help="port on 127.0.0.1 (default 8811)")
    parser.add_argument("--fresh", action="store_true", help="replace earlier copies, and what was trained into them")
    return parser


def find_bundles(folders: list[Path]) -> list[Path]:
    """The bundles to serve.

    Args:
        folders: bundles named by the user; empty takes those of ``bundles/`` that have weights.

    Raises:
        UserError: if there is none, or a folder is no bundle.
    """
    if not folders:
        folders = sorted({path.parents[1] for path in ROOT.glob("bundles/*/models/model.[pt][ts]")})
    if not folders:
        raise UserError(
            "no bundle with weights", ROOT / "bundles", "models/model.pt in one of them", "none", "train a bundle first"
        )
    for folder in folders:
        if not (folder / "configs" / "inference.json").is_file():
            raise UserError("no bundle", folder, "configs/inference.json in it", "none", "name a folder of bundles/")
    return [folder.resolve() for folder in folders]


def prepare_app(app: Path, bundles: list[Path], fresh: bool = False) -> list[str]:
    """Fill the app folder: ``main.py`` and a copy of every bundle in ``model``.

    The server trains into its copies; the bundles themselves stay as they are. A copy that exists is kept, because it
    may have been trained; only missing weights are added to it.

    Args:
        app: the app folder, made if needed.
        bundles: bundle folders.
        fresh: replace existing copies.

    Returns:
        Names of the bundles.
    """
    models = app / "model"
    models.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("main.py"), app / "main.py")
    for bundle in bundles:
        copy = models / bundle.name
        if copy.exists() and fresh:
            shutil.rmtree(copy)
        if not copy.exists():
            # MONAI Label takes whatever lies in model/ for a bundle, also half a one
            part = app / f"{bundle.name}.{os.getpid()}.part"
            shutil.copytree(bundle, part, ignore=_NOT_COPIED)
            part.rename(copy)
            continue
        print(f"[label] kept {copy} as it is (--fresh replaces it)")
        for weights in (bundle / "models").glob("model.[pt][ts]"):
            if not (copy / "models" / weights.name).exists():
                shutil.copyfile(weights, copy / "models" / weights.name)
    return [bundle.name for bundle in bundles]


def server_command(app: Path, studies: Path, names: list[str], port: int) -> list[str]:
    """What starts the server. It is reachable from this machine alone and asks no model zoo."""
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    return [*command, "--conf", "models", ",".join(names), "--host", "127.0.0.1", "--port", str(port)]


def main(arguments: list[str] | None = None) -> None:
    """Prepare the app folder and become the server.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.
    """
    show_plainly()
    options = _parser().parse_args(arguments)
    if not options.studies.is_dir():
        raise UserError(
            "no studies", options.studies, "a folder of *.nii.gz", "no such folder", "run scripts/make_studies.py first"
        )
    app = options.app.resolve()
    names = prepare_app(app, find_bundles(options.bundles), options.fresh)
    # otherwise the server writes below the home directory
    environment = {"MONAI_LABEL_SESSION_PATH": str(app / "sessions"), **os.environ}
    os.chdir(app)  # MONAI Label reads a file .env of the working directory
    command = server_command(app, options.studies.resolve(), names, options.port)
    print(f"[label] http://127.0.0.1:{options.port}/info/ serves {', '.join(names)}", flush=True)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
