"""On a GPU, launching the hundreds of kernels of a loss takes longer than the kernels: record them once, and replay."""

from collections.abc import Callable, Hashable
from functools import cache

import torch

from dcd_ext.wavelets.energy.slabs import Energy

Compute = Callable[..., Energy]
# Each holds its memory; a training has one or two of them per stage, for full and shorter batches.
_MOST = 4


class _Recording:
    """A CUDA graph of one computation; tensors go in and come out as copies, for the next replay overwrites its own."""

    def __init__(self, compute: Compute, inputs: tuple[torch.Tensor, ...], wanted: tuple[bool, bool]) -> None:
        self.inputs = [x.clone() for x in inputs]
        self.graph, device = torch.cuda.CUDAGraph(), inputs[0].device
        # other threads, such as a data loader's, may go on using the device
        recorder = torch.cuda.graph(self.graph, stream=_stream(device), capture_error_mode="thread_local")
        with torch.cuda.device(device), recorder:
            self.outputs = compute(*self.inputs, *wanted)

    def __call__(self, *inputs: torch.Tensor) -> Energy:
        for own, x in zip(self.inputs, inputs, strict=True):
            own.copy_(x)
        self.graph.replay()
        energy, share, *gradients = self.outputs
        return Energy(energy.clone(), share.clone(), *(None if x is None else x.clone() for x in gradients))


def replayed(
    compute: Compute,
    recordings: dict[Hashable, _Recording | None],
    inputs: tuple[torch.Tensor, ...],
    wanted: tuple[bool, bool],
) -> Energy:
    """``compute(*inputs, *wanted)``: run as it is on a CPU, on a GPU recorded in the second call and replayed then."""
    if not inputs[0].is_cuda or torch.cuda.is_current_stream_capturing():
        return compute(*inputs, *wanted)
    key = (*((x.shape, x.dtype) for x in inputs), wanted, torch.get_float32_matmul_precision())
    if key not in recordings:
        # the first call loads kernels, which a recording must find loaded; what is called once needs no recording
        if len(recordings) < _MOST:
            recordings[key] = None
        return compute(*inputs, *wanted)
    recording = recordings[key]
    if recording is None:
        recording = recordings[key] = _Recording(compute, inputs, wanted)
    return recording(*inputs)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: the libraries keep memory for each stream that they were called on."""
    return torch.cuda.Stream(device)
