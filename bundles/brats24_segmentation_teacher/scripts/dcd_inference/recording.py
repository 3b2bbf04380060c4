"""A GPU can compute faster than a CPU launches its hundreds of small kernels: record them once, and replay."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import Any

import torch

logger = logging.getLogger(__name__)
# tensors, or None for what is not wanted
Outputs = tuple[Any, ...]
Compute = Callable[..., Outputs]


class _Recording:
    """A CUDA graph of one computation; tensors go in and come out as copies, for the next replay overwrites its own."""

    def __init__(self, compute: Compute, inputs: tuple[torch.Tensor, ...], pool: Any) -> None:
        self.compute = compute
        self.graph: torch.cuda.CUDAGraph | None = torch.cuda.CUDAGraph()
        device = inputs[0].device
        stream = torch.cuda.current_stream(device)
        # other threads, such as a data loader's, may go on using the device
        recorder = torch.cuda.graph(self.graph, pool, _stream(device), capture_error_mode="thread_local")
        try:
            with torch.inference_mode(False), torch.no_grad():
                self.inputs = [x.clone() for x in inputs]
                compute(*self.inputs)  # loads the kernels for inputs of this layout
                with recorder:
                    self.outputs: Outputs = compute(*self.inputs)
                if not all(x is None or isinstance(x, torch.Tensor) for x in self.outputs):
                    raise RuntimeError("it gives more than tensors")
        except RuntimeError as error:  # also that of memory
            shapes, reason = [tuple(x.shape) for x in inputs], str(error).splitlines()[0]
            logger.warning("computation for %s is not recorded and takes longer: %s", shapes, reason)
            self.graph, self.inputs, self.outputs = None, [], ()
            _end_capture(device, pool)
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
        self._known: OrderedDict[Hashable, _Recording | None] = OrderedDict()
        # by device and stream: what is replayed one after the other can use the same memory
        self._pools: dict[Hashable, Any] = {}
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
            try:
                return self._recorded(compute, name, inputs)
            except torch.OutOfMemoryError:
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
        if recording is None:
            pool = self._pools.setdefault(place, torch.cuda.graph_pool_handle())
            recording = self._known[key] = _Recording(compute, inputs, pool)
            if recording.graph is None:
                del self._pools[place]
        return recording(*inputs)

    def clear(self) -> None:
        """Forget all, and free their memory."""
        self._known.clear()
        self._pools.clear()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Recordings, (self._most,)  # graphs cannot be copied


def _end_capture(device: torch.device, pool: Any) -> None:
    """Do what torch leaves undone where the end of a capture fails: give back its memory, and random numbers."""
    with suppress(RuntimeError):  # it had not begun, or had ended well
        torch._C._cuda_endAllocateToPool(device.index, pool)
        torch._C._cuda_releasePool(device.index, pool)
        generator = torch.cuda.default_generators[device.index]
        generator.graphsafe_set_state(generator.clone_state())


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: the libraries keep memory for each stream that they were called on."""
    return torch.cuda.Stream(device)
