#!/usr/bin/env python3
"""Export the network of a trained bundle: TorchScript, ONNX, OpenVINO. Verify with dcd verify."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.bundles.export import FORMATS, export
from dcd_ext.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 for an error of the user's.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle's folder with models/model.pt")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["torchscript"], help="default: torchscript")
    options = parser.parse_args(arguments)
    try:
        for path, difference in export(options.bundle, options.formats):
            print(f"{path}  {path.stat().st_size:,} bytes, largest difference to the network {difference:.1e}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
