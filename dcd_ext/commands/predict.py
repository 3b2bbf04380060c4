"""Segment images with a trained bundle: files, folders, a datalist.json or DICOM series.

Writes OUTPUT/<name>_seg.nii.gz for each case and OUTPUT/summary.json with seconds per phase and peak memory. What is
done is skipped, so that an interrupted command goes on where it was; a folder has the label maps of one network. A
failed case does not stop the others, and the exit code is then 1. Several channels are found by the bundle's channel
names or by nnU-Net's _0000 at the end of the files' names; the channels of one case may also be given as files in
channel order.
"""

import argparse
import os
import re
from functools import partial
from pathlib import Path

from dcd_ext.commands.common import positive, positive_number
from dcd_ext.io import require_writable
from dcd_ext.parallel import cores
from dcd_ext.predict.backends import BACKENDS, build_pipeline, choose_backend, fingerprint
from dcd_ext.predict.cohort import claim, part, pending
from dcd_ext.predict.cohort import run as run_cases
from dcd_ext.predict.inputs import find_inputs, read_channels

EXAMPLE = "dcd predict bundles/hippocampus_segmentation_student scans --output masks --backend openvino"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder, with trained weights")
    parser.add_argument("input", type=Path, nargs="+", metavar="INPUT", help="images, folders, or a datalist.json")
    parser.add_argument("--output", type=Path, required=True, help="folder of the label maps")
    help_text = "default auto: the fastest on this machine, measured once"
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help=help_text)
    parser.add_argument("--device", default="cpu", help="for --backend eager, such as cuda:0 (default cpu)")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all cores, divided by --jobs")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes on this machine (default 1)")
    ram = "refuse cases that could need more, instead of running out of memory"
    parser.add_argument("--max_ram", type=positive_number, metavar="GIB", help=ram)
    shard = "part i of n, for arrays of jobs; default: rank and size of torchrun"
    parser.add_argument("--shard", type=_shard, default=_torchrun(), metavar="i/n", help=shard)


def run(options: argparse.Namespace) -> int:
    cases = find_inputs(options.input, read_channels(options.bundle), options.output)
    require_writable(options.output)
    network = f"{options.bundle.resolve().name} {fingerprint(options.bundle)}"
    claim(options.output, network, part(cases, options.shard))
    left = pending(cases, options.output, options.shard)
    threads = options.threads or max(1, cores() // options.jobs)
    # chosen before several processes would measure at once
    backend = options.backend
    if left:
        each = -(-len(left) // options.jobs)
        backend = choose_backend(options.bundle, backend, options.device, threads, each)
    build = partial(build_pipeline, options.bundle, backend, options.device, threads)
    failed = run_cases(build, cases, options.output, options.shard, options.jobs, options.max_ram)
    print(f"{len(left) - failed} segmented, {failed} failed, {len(cases) - len(left)} skipped: {options.output}")
    return 1 if failed else 0


def _shard(text: str) -> str:
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"expected i/n with 1 <= i <= n, found {text!r}")
    return text


def _torchrun() -> str:
    return f"{int(os.environ.get('RANK', 0)) + 1}/{os.environ.get('WORLD_SIZE', 1)}"
