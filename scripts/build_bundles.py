"""Generate ``bundles/``, every shipped task in every role, from ``bundle_src/``; ``--check`` only compares."""

import argparse
from pathlib import Path

from dcd_ext.bundles.build import build_bundle
from dcd_ext.bundles.sources import find_task, roles, shipped_tasks
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_text

ROOT = Path(__file__).resolve().parents[1]


def differences(files: dict[str, str], output: Path) -> list[str]:
    """Paths below ``output`` that are missing, differ, or should not be there (weights and results aside)."""
    wrong = [p for p, t in files.items() if not (output / p).is_file() or (output / p).read_text("utf-8") != t]
    kept = [p for d in ("configs", "docs", "scripts") for p in output.glob(f"*/{d}/**/*") if p.is_file()]
    kept = [p for p in kept if p.parent.name != "__pycache__"]
    return wrong + [str(p.relative_to(output)) for p in kept if p.relative_to(output).as_posix() not in files]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "bundles", help="folder of the bundles")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    args = parser.parse_args(argv)
    bundles = [build_bundle(find_task(task), role) for task in shipped_tasks() for role in roles()]
    files = {path: text for bundle in bundles for path, text in bundle.items()}
    wrong = differences(files, args.output)
    if args.check:
        if wrong:
            what = f"{len(wrong)} generated file(s) differ from bundle_src"
            step = "run: python scripts/build_bundles.py"
            raise UserError(what, wrong[0], "what scripts/build_bundles.py writes", "something else", step)
        print(f"{len(files)} files are up to date")
        return
    for path in wrong:
        if path in files:
            write_text(files[path], args.output / path)
        else:
            (args.output / path).unlink()
    print(f"{len(files)} files, {len(wrong)} changed")


if __name__ == "__main__":
    show_plainly()
    main()
