"""What only a GPU can show; skipped without one."""

from collections.abc import Iterator

import pytest
import torch

from cnnlesson.data import Batches, shapes, split
from cnnlesson.models import resnet18
from cnnlesson.training import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")


class Unsynchronised:
    """Batches after the first of which the CPU must not wait for the GPU."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        try:
            for number, batch in enumerate(self.batches):
                yield batch
                if number == 0:
                    torch.cuda.set_sync_debug_mode("error")
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_resnet18_learns_and_the_cpu_never_waits_within_the_loop():
    torch.manual_seed(0)
    train_set, val_set = split(shapes(seed=0).train, (0.9, 0.1), seed=0)
    train_batches = Batches(train_set, batch_size=32, image_size=64, seed=0, augment=True)
    val_batches = Batches(val_set, batch_size=250, image_size=64)
    assert train_batches.image_set.images.is_cuda
    model = resnet18(num_classes=10).to(train_batches.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    history = list(train(model, Unsynchronised(train_batches), Unsynchronised(val_batches), optimizer, epochs=5))
    assert history[-1].val_accuracy > 0.85


def test_the_error_for_a_too_large_batch_names_what_to_lower():
    train_set = shapes(seed=0).train
    batches = Batches(train_set, batch_size=5000, image_size=128)
    model = resnet18(num_classes=10, small_images=True).to(batches.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    with pytest.raises(torch.OutOfMemoryError, match="lower batch_size"):
        list(train(model, batches, batches, optimizer, epochs=1))
