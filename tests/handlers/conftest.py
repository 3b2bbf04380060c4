"""A stock trainer on random data, for tests of single handlers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss

from tests.conftest import ToyNet


@pytest.fixture
def make_trainer():
    """Build a ``SupervisedTrainer`` on four random cases."""

    def make(network: torch.nn.Module | None = None, handlers: Any = (), parameters: Any = None, **kwargs: Any):
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(4, 1, 8, 8, 8, generator=generator)
        data = [{"image": x, "label": (x > 0.7).float()} for x in images]
        network = network or ToyNet()
        optimizer = torch.optim.SGD(parameters or network.parameters(), lr=kwargs.pop("lr", 0.01))
        return SupervisedTrainer(
            device="cpu",
            max_epochs=kwargs.pop("max_epochs", 2),
            train_data_loader=torch.utils.data.DataLoader(data, batch_size=2),
            network=network,
            loss_function=kwargs.pop("loss_function", DiceCELoss(to_onehot_y=True, softmax=True)),
            optimizer=optimizer,
            train_handlers=list(handlers),
            decollate=kwargs.pop("decollate", False),
            **kwargs,
        )

    return make
