import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandGaussianNoised

from dcd_ext.handlers import EpochSeed


class FakeEngine:
    def __init__(self, epoch, loader):
        self.state = type("State", (), {"epoch": epoch, "dataloader": loader})()


def draws(epochs, seed=1, workers=0):
    """Augmented data of the given epochs, each preceded by the handler."""
    data = [{"image": np.zeros((1, 2, 2, 2), np.float32)} for _ in range(4)]
    dataset = CacheDataset(data, Compose([RandGaussianNoised("image", prob=1.0)]), progress=False)
    sampler = torch.utils.data.RandomSampler(dataset)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers)
    handler = EpochSeed(seed)
    result = {}
    for epoch in epochs:
        handler(FakeEngine(epoch, loader))
        result[epoch] = torch.cat([batch["image"] for batch in loader])
    return result


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_does_not_depend_on_those_before(workers):
    whole, resumed = draws([1, 2, 3], workers=workers), draws([3], workers=workers)
    assert torch.equal(whole[3], resumed[3])
    assert not torch.equal(whole[2], whole[3])


def test_seeds_differ():
    assert not torch.equal(draws([1], seed=1)[1], draws([1], seed=2)[1])
