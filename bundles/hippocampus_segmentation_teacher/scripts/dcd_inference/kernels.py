"""Whether kernels written in Triton work here: they need a compiler, Python's headers and a folder to write to."""

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

logger = logging.getLogger(__name__)


@cache
def works(attempt: Callable[[torch.device], Any], device: torch.device, what: str) -> bool:
    """Whether ``attempt``, which runs a small kernel, succeeds on a device; tried once, and a failure is logged.

    Without compute capability 8.0 or Triton nothing is tried. ``what`` is slower then.
    """
    if device.type != "cuda" or find_spec("triton") is None or torch.version.cuda is None:
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        with torch.cuda.device(device):  # Triton launches on the current one
            attempt(device)
            torch.cuda.synchronize(device)
    except Exception as problem:  # whatever a foreign tool chain raises
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[-1]
        logger.warning("%s does without Triton, which fails here, and takes longer: %s", what, reason)
        return False
    return True
