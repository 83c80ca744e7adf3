"""The effect of `reuse_freed_memory` on AlexNet on a CPU: images per second and peak memory, with and without it.

    python benchmarks/memory.py

Each measurement is one epoch over 320 images in a separate process; the two settings take turns.
"""

import resource
import subprocess
import sys

import torch

from cnnlesson.data import Batches, shapes
from cnnlesson.models import AlexNet
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.training import train

REPEATS = 3


def measure(batch_size: int) -> None:
    torch.manual_seed(0)
    images = shapes(seed=0).train
    train_batches = Batches(images[torch.arange(320)], batch_size, image_size=227, seed=0, device="cpu")
    val_batches = Batches(images[torch.arange(320, 384)], 64, image_size=227, device="cpu")
    model = AlexNet(num_classes=10, dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    (epoch,) = train(model, train_batches, val_batches, optimizer, epochs=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{epoch.images_per_second:.1f} images/s, peak {peak:,.0f} MB", flush=True)


def main() -> None:
    for batch_size in (16, 64):
        for _ in range(REPEATS):
            for way in ("default", "reuse"):
                print(f"batch size {batch_size}, {way}: ", end="", flush=True)
                subprocess.run([sys.executable, __file__, way, str(batch_size)], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        if sys.argv[1] == "reuse":
            reuse_freed_memory()
        measure(int(sys.argv[2]))
