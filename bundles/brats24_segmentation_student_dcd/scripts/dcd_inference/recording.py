"""A GPU can compute faster than a CPU launches its hundreds of small kernels: record them once, and replay."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from threading import Event, Lock
from typing import Any

import torch

logger = logging.getLogger(__name__)
# tensors, or None for what is not wanted
Outputs = tuple[Any, ...]
Compute = Callable[..., Outputs]
# of all recordings: the start of one waits for the device, which the capture of another does not survive
_ONE_AT_A_TIME = Lock()
# a capture failed: torch keeps its memory, so that this process begins no other
_FAILED = Event()


class _Recording:
    """A CUDA graph of one computation; tensors go in and come out as copies, for the next replay overwrites its own."""

    def __init__(self, compute: Compute, inputs: tuple[torch.Tensor, ...], pool: Any) -> None:
        self.compute = compute
        self.graph: torch.cuda.CUDAGraph | None = torch.cuda.CUDAGraph()
        device = inputs[0].device
        stream = torch.cuda.current_stream(device)
        # other threads, such as a data loader's, may go on using the device
        recorder = torch.cuda.graph(self.graph, pool, _stream(device), capture_error_mode="thread_local")
        capturing = False
        try:
            with torch.inference_mode(False), torch.no_grad():
                self.inputs = [x.clone() for x in inputs]
                compute(*self.inputs)  # loads the kernels for inputs of this layout
                # of an earlier recording, and freed with it
                torch._C._cuda_clearCublasWorkspaces()
                with recorder:
                    capturing = True
                    self.outputs: Outputs = compute(*self.inputs)
                capturing = False
                if not all(x is None or isinstance(x, torch.Tensor) for x in self.outputs):
                    raise RuntimeError("it gives more than tensors")
        except RuntimeError as error:  # also that of memory
            shapes, reason = [tuple(x.shape) for x in inputs], str(error).splitlines()[0]
            logger.warning("computation for %s is not recorded and takes longer: %s", shapes, reason)
            self.graph, self.inputs, self.outputs = None, [], ()
            if capturing and not isinstance(error, torch.OutOfMemoryError):
                _FAILED.set()
                _end_capture(device)
        finally:
            torch.cuda.set_stream(stream)

    def __call__(self, *inputs: torch.Tensor) -> Outputs:
        if self.graph is None:
            return self.compute(*inputs)
        for own, x in zip(self.inputs, inputs, strict=True):
            own.copy_(x)
        self.graph.replay()
        return tuple(None if x is None else x.clone() for x in self.outputs)


class Recordings:
    """Computations that a GPU records in the second call of a name, and replays from then on.

    Args:
        most: how many are kept, those used last; those of one stream share the memory of the largest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[Hashable, ...], _Recording | None] = OrderedDict()
        self._lock = Lock()

    def __call__(self, compute: Compute, name: Hashable, *inputs: torch.Tensor) -> Outputs:
        """``compute(*inputs)``.

        Args:
            compute: what depends on nothing but its inputs and ``name``, and on weights that stay where they are.
            name: tells apart what is computed; shapes, types and streams are told apart here.
            inputs: tensors of one device.
        """
        device = inputs[0].device
        if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return compute(*inputs)
        with self._lock, torch.cuda.device(device):
            with suppress(torch.OutOfMemoryError):
                return self._recorded(compute, name, inputs)
            # not while the error is handled, whose traceback keeps what was computed so far
            self.clear()  # what they hold may be enough
            torch.cuda.empty_cache()
            return compute(*inputs)

    def _recorded(self, compute: Compute, name: Hashable, inputs: tuple[torch.Tensor, ...]) -> Outputs:
        place = inputs[0].device, torch.cuda.current_stream().cuda_stream
        key = (name, *place, *((x.shape, x.dtype) for x in inputs))
        if key not in self._known:  # what is called once needs no recording
            self._known[key] = None
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return compute(*inputs)
        self._known.move_to_end(key)
        recording = self._known[key]
        if recording is None and _FAILED.is_set():
            return compute(*inputs)
        if recording is None:
            recording = self._known[key] = self._record(compute, inputs, place)
        return recording(*inputs)

    def _record(self, compute: Compute, inputs: tuple[torch.Tensor, ...], place: tuple[Hashable, ...]) -> _Recording:
        # what is replayed one after the other can use the same memory
        graphs = (x.graph for key, x in self._known.items() if x is not None and key[1:3] == place)
        pool = next((graph.pool() for graph in graphs if graph is not None), None)
        with _ONE_AT_A_TIME:
            return _Recording(compute, inputs, pool)

    def clear(self) -> None:
        """Forget all, and free their memory."""
        self._known.clear()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Recordings, (self._most,)  # graphs cannot be copied


def _end_capture(device: torch.device) -> None:
    """End a capture that failed by one that does not: torch to 2.12 refuses random numbers until then."""
    with (
        suppress(RuntimeError),
        torch.cuda.graph(torch.cuda.CUDAGraph(), stream=_stream(device), capture_error_mode="thread_local"),
    ):
        torch.zeros(1, device=device)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: the libraries keep memory for each stream that they were called on."""
    return torch.cuda.Stream(device)
