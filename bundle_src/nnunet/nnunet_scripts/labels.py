"""Label maps from logits, and losses for labels that are regions or partly unknown."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import nn

# logits of voxels without a known label are replaced by this much certainty: no loss and no gradient are left
_CERTAIN = 30.0


class LabelMapd(MapTransform):
    """Logits (K, X, Y, Z) to a label map (1, X, Y, Z), as nnU-Net does.

    Args:
        keys: the prediction.
        region_values: None for classes, of which the most probable one wins; for overlapping regions the value that
            each paints where its probability exceeds 1/2, later ones over earlier ones (``regions_class_order``).
        ignore: label value of voxels that are not to be scored; there, prediction and label become 0.
        label_key: the label that ``ignore`` is looked for in.
    """

    def __init__(
        self,
        keys: KeysCollection,
        region_values: Sequence[int] | None = None,
        ignore: int | None = None,
        label_key: str = "label",
    ) -> None:
        super().__init__(keys)
        self.region_values, self.ignore, self.label_key = region_values, ignore, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self._label_map(d[key].float())
            if self.ignore is not None:
                unknown = d[self.label_key] == self.ignore
                d[key], d[self.label_key] = (d[name].masked_fill(unknown, 0) for name in (key, self.label_key))
        return d

    def _label_map(self, logits: torch.Tensor) -> torch.Tensor:
        if self.region_values is None:
            # after softmax, because its rounding makes ties, which the first class wins
            return logits.softmax(0).argmax(0, keepdim=True).float()
        label = torch.zeros_like(logits[:1])
        for region, value in enumerate(self.region_values):
            label[logits[region][None].sigmoid() > 0.5] = value
        return label


class LabelLoss(nn.Module):
    """A segmentation loss for label maps whose values make up regions, or mark voxels as unknown.

    Args:
        loss: called with logits (B, K, X, Y, Z) and a label map (B, 1, X, Y, Z), or with regions with a mask for each
            of them (B, K, X, Y, Z).
        regions: label values that each region consists of; None: classes.
        ignore: label value of unknown voxels, which add nothing.
    """

    def __init__(
        self, loss: nn.Module, regions: Sequence[Sequence[int]] | None = None, ignore: int | None = None
    ) -> None:
        super().__init__()
        self.loss, self.regions, self.ignore = loss, regions, ignore

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        if self.ignore is not None:
            unknown = label == self.ignore
            certain = torch.full_like(logits, -_CERTAIN)
            if self.regions is None:
                certain[:, 0] = _CERTAIN
            logits, label = torch.where(unknown, certain, logits), label.masked_fill(unknown, 0)
        if self.regions is not None:
            values = [torch.tensor(region, device=label.device) for region in self.regions]
            label = torch.cat([torch.isin(label, value.to(label.dtype)) for value in values], 1).to(logits.dtype)
        return self.loss(logits, label)
