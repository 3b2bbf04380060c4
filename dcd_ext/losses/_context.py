"""Global context block: one vector per patch, pooled from a feature and added to every voxel."""

import torch
from torch import nn

from dcd_ext.losses._projections import project


class ContextBlock(nn.Module):
    """Attention-pool a feature to one vector and transform it (the context block of GCNet and FGD).

    ``t(sum_v w_v F_v)`` with ``w = softmax_v(a · F_v)`` and t: linear C to C/2, normalisation, ReLU, linear C/2 to C.
    On one vector, 1×1×1 convolutions and a group norm of one group are linear layers and a layer norm. The last
    layer starts at zero, so that at first the context is zero. The attention has no bias: softmax would cancel it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 2)
        self.attention = nn.Linear(channels, 1, bias=False)
        nn.init.kaiming_normal_(self.attention.weight, nonlinearity="relu")
        last = nn.Linear(hidden, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)

    def forward(self, x: torch.Tensor, projection: nn.Module) -> torch.Tensor:
        """The transformed context (B, C) of the projection of ``x`` (B, C_x, N).

        Pooling and projection are both linear and the pooling weights sum to 1, so that the narrow ``x`` is pooled and
        the vector projected.
        """
        scores = self.attention.weight.to(x.dtype)
        if isinstance(projection, nn.Conv3d):
            scores = scores @ projection.weight.flatten(1).to(x.dtype)
        weights = torch.bmm(scores.expand(len(x), -1, -1), x).softmax(2)
        context = project(projection, torch.bmm(x, weights.mT))[:, :, 0]
        return self.transform(context.to(self.attention.weight.dtype)).to(x.dtype)
