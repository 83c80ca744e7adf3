"""How fast images reach the network: `Batches` compared with ImageFolder and DataLoader in one run.

    python benchmarks/loading.py path/to/tiny-imagenet-200.zip [number of training images]

Both read the same training images, and take turns. Each result is the median of the repeats.
"""

import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cnnlesson.data import Batches, ImageSet, tiny_imagenet
from cnnlesson.data.batches import CHANNEL_MEAN, CHANNEL_STD
from cnnlesson.runtime.memory import reuse_freed_memory

BATCH_SIZE = 64
REPEATS = 3
WORKERS = 2


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def read_all(batches) -> int:
    return sum(len(labels) for _, labels in batches)


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    archive = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = tiny_imagenet(root, archive)
        print(f"{len(data.train):,} training and {len(data.test):,} labelled test images, torch {torch.__version__}")
        with zipfile.ZipFile(archive) as unpacked:
            unpacked.extractall(root)
        (train_folder,) = root.glob("*/train")
        for image_size in (64, 227):
            compare(data.train, train_folder, image_size, int(sys.argv[2]) if len(sys.argv) == 3 else len(data.train))


def compare(train_set: ImageSet, train_folder: Path, image_size: int, num_images: int) -> None:
    indices = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))[:num_images]
    transform = transforms.Compose(
        [
            transforms.Resize((image_size, image_size)),
            transforms.ToTensor(),
            transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD),
        ]
    )
    folder = Subset(ImageFolder(train_folder, transform), indices.tolist())
    loader = DataLoader(folder, BATCH_SIZE, shuffle=True, num_workers=WORKERS)
    batches = Batches(train_set[indices], BATCH_SIZE, image_size, seed=0, device="cpu")
    theirs, ours = [], []
    for _ in range(REPEATS):
        theirs.append(num_images / seconds(lambda: read_all(loader)))
        ours.append(num_images / seconds(lambda: read_all(batches)))
    print(
        f"{image_size} pixels: ImageFolder + DataLoader({WORKERS} workers) "
        f"{statistics.median(theirs):,.0f} images/s ({min(theirs):,.0f} to {max(theirs):,.0f}), "
        f"Batches {statistics.median(ours):,.0f} images/s ({min(ours):,.0f} to {max(ours):,.0f}), "
        f"ratio {statistics.median(ours) / statistics.median(theirs):.1f}"
    )


if __name__ == "__main__":
    reuse_freed_memory()
    main()
