"""Whether a case fits the memory that this process may take."""

import numpy as np
import psutil

from dcd_ext.data.memory import PeakMemory
from dcd_ext.errors import UserError
from dcd_ext.predict.pipelines import MonaiPipeline
from dcd_ext.predict.runtime import Case, Pipeline, PredictError


class Budget:
    """Refuses cases that could need more memory than ``max_gib``, before they are read.

    Refused is, too, a pipeline whose network alone needs more, or that is no fast backend's.
    """

    def __init__(self, pipeline: Pipeline, max_gib: float) -> None:
        if isinstance(pipeline, MonaiPipeline):
            expected = "a backend whose memory is known"
            raise UserError("no memory bound", "--max_ram", expected, "eager", "choose --backend openvino")
        self._pipeline, self._max = pipeline, max_gib
        before, memory = psutil.Process().memory_info().rss / 2**30, PeakMemory()
        pipeline.network(np.zeros((len(pipeline.channels), *pipeline.window.size), np.float32), 1)
        self._base = memory.gib() or psutil.Process().memory_info().rss / 2**30
        self._window = self._base - before
        if self._base > max_gib:
            raise UserError("memory bound too low", "--max_ram", f"at least {self._base:.2f}", max_gib, "raise it")

    def windows(self, case: Case) -> int:
        """How many windows of a case may be computed at once; a ``PredictError`` if even one could need too much.

        The next case is read while one is computed: both count.
        """
        needed = self._base + 1.5 * self._pipeline.bytes_needed(case.files) / 2**30
        if needed > self._max:
            found = f"may need {needed:.1f} GiB, --max_ram is {self._max:g}"
            raise PredictError(f"image too large – {case.files[0]} – {found} – crop it, or raise the bound")
        # what was compiled for one window may be kept beside what is compiled for several
        return max(1, int((self._max - needed) / max(self._window, 0.01)))
