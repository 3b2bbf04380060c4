"""On a GPU, launching the hundreds of kernels of a loss takes longer than the kernels: record them once, and replay."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache

import torch

from dcd_ext.wavelets.energy.slabs import Energy

logger = logging.getLogger(__name__)
Compute = Callable[..., Energy]
# Each holds its memory; a training has one or two of them per stage, for full and shorter batches.
_MOST = 16


class _Recording:
    """A CUDA graph of one computation; tensors go in and come out as copies, for the next replay overwrites its own."""

    def __init__(self, compute: Compute, inputs: tuple[torch.Tensor, ...]) -> None:
        self.compute = compute
        self.graph: torch.cuda.CUDAGraph | None = torch.cuda.CUDAGraph()
        device = inputs[0].device
        stream = torch.cuda.current_stream(device)
        # other threads, such as a data loader's, may go on using the device
        recorder = torch.cuda.graph(self.graph, stream=_stream(device), capture_error_mode="thread_local")
        try:
            with torch.inference_mode(False), torch.no_grad():
                self.inputs = [x.clone() for x in inputs]
                compute(*self.inputs)  # loads the kernels for inputs of this layout
                with recorder:
                    self.outputs = compute(*self.inputs)
        except RuntimeError as error:  # also that of memory
            reason = str(error).splitlines()[0]
            logger.warning(
                "the wavelet loss of %s is not recorded and takes longer: %s", tuple(inputs[1].shape), reason
            )
            self.graph, self.inputs = None, []
        finally:
            torch.cuda.set_stream(stream)

    def __call__(self, *inputs: torch.Tensor) -> Energy:
        if self.graph is None:
            return self.compute(*inputs)
        for own, x in zip(self.inputs, inputs, strict=True):
            own.copy_(x)
        self.graph.replay()
        energy, share, *gradients = self.outputs
        return Energy(energy.clone(), share.clone(), *(None if x is None else x.clone() for x in gradients))


_recordings: OrderedDict[Hashable, _Recording | None] = OrderedDict()


def replayed(compute: Compute, name: Hashable, *inputs: torch.Tensor) -> Energy:
    """``compute(*inputs)``, which a GPU records in the second call of a ``name``, and replays from then on.

    Args:
        compute: what depends on nothing but its inputs and ``name``.
        name: tells apart what is computed; shapes, types and streams are told apart here.
        inputs: tensors of one device.
    """
    device = inputs[0].device
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return compute(*inputs)
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        key = (name, device, stream, *((x.shape, x.dtype) for x in inputs))
        if key not in _recordings:  # what is called once needs no recording
            _recordings[key] = None
            while len(_recordings) > _MOST:
                _recordings.popitem(last=False)
            return compute(*inputs)
        _recordings.move_to_end(key)
        recording = _recordings[key]
        if recording is None:
            recording = _recordings[key] = _Recording(compute, inputs)
        return recording(*inputs)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: the libraries keep memory for each stream that they were called on."""
    return torch.cuda.Stream(device)
