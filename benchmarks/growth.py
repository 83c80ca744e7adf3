"""How the cost grows: an epoch with the number of images, memory with epochs, a grid with the number of points.

    python benchmarks/growth.py --archive data/tiny-imagenet-200.zip

The network is resnet18 at 64 pixels with batch size 64. The grid trains on 320 images of `shapes` for one epoch.
"""

import argparse
import tempfile
import time
from pathlib import Path

from throughput import prepare

from cnnlesson.data import Batches, ImageSet, shapes, split, take, tiny_imagenet
from cnnlesson.runtime.device import describe, find_device
from cnnlesson.runtime.memory import peak_memory, reset_peak_memory, reuse_freed_memory
from cnnlesson.search import GridSearch
from cnnlesson.training import train, train_one_epoch

LEARNING_RATES = [0.001 * 2**step for step in range(9)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", required=True, help="a zip file with TinyImageNet's layout")
    parser.add_argument("--images", nargs="+", type=int, default=[10_000, 30_000, 100_000])
    parser.add_argument("--epochs", type=int, default=10, help="of the run whose memory is measured (10)")
    options = parser.parse_args()
    reuse_freed_memory()
    print(describe(find_device(None)))
    with tempfile.TemporaryDirectory() as folder:
        train_set = tiny_imagenet(folder, options.archive).train
        for num_images in options.images:
            seconds = epoch_seconds(take(train_set, num_images, seed=0))
            print(f"an epoch of {num_images:,} images: {seconds:.1f} s, {1e6 * seconds / num_images:,.0f} µs per image")
        memory_of_epochs(take(train_set, 2000, seed=0), options.epochs)
        for num_points in (1, 3, 9):
            seconds = grid_seconds(LEARNING_RATES[:num_points], Path(folder) / f"{num_points}.journal")
            print(f"a grid of {num_points} points: {seconds:.1f} s, {seconds / num_points:.2f} s per point")


def epoch_seconds(train_set: ImageSet) -> float:
    model, batches, optimizer = prepare("resnet18", train_set, 64, fused=True)
    train_one_epoch(model, [next(iter(batches))], optimizer)  # warm-up: the first step also allocates memory
    start = time.perf_counter()
    train_one_epoch(model, batches, optimizer)
    return time.perf_counter() - start


def memory_of_epochs(train_set: ImageSet, epochs: int) -> None:
    model, batches, optimizer = prepare("resnet18", train_set, 64, fused=True)
    peaks = []
    for _ in train(model, batches, batches, optimizer, epochs):
        peaks.append(peak_memory(batches.device))
        reset_peak_memory(batches.device)
    print(f"peak memory of epochs 1 to {epochs} (MB): " + ", ".join(f"{peak / 1e6:,.0f}" for peak in peaks))


def grid_seconds(learning_rates: list[float], storage: Path) -> float:
    train_set, val_set = split(take(shapes(seed=0).train, 400, seed=0), (0.8, 0.2), seed=0)

    def run(lr, checkpoint):
        model, batches, optimizer = prepare("resnet18", train_set, 64, lr=lr, fused=True)
        yield from train(model, batches, Batches(val_set, 80, image_size=64), optimizer, 1, checkpoint=checkpoint)

    search = GridSearch(run, {"lr": learning_rates}, storage=storage)
    start = time.perf_counter()
    search.run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
