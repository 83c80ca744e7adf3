"""From a set of images to the batches that a network is trained on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as transforms

from cnnlesson.data.image_set import ImageSet
from cnnlesson.runtime.device import find_device, free_bytes

# The mean and standard deviation of ImageNet's training images in each channel, for values from 0 to 1. torchvision's
# recipes use the same constants. They come from other images than ours, so nothing leaks from validation or test.
CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)


class Batches:
    """Iterate over batches of (images, labels) that are ready for the network, on its device.

    images is float32 (B, 3, image_size, image_size), normalised to about mean 0 and standard deviation 1, in
    channels-last memory; labels is int64 (B,). A pass yields every image once. The last batch may be smaller, but a
    single last image joins the batch before it: batch norm cannot train on one image.

    The uint8 images stay in the memory of the device if they fill less than half of what is free, and every operation
    works on a whole batch. That is much faster than decoding and transforming one file at a time.

    Args:
        image_set: the images.
        batch_size: the number of images per batch.
        image_size: the height and width in pixels that the network expects. Images of another size are resized.
        seed: shuffles the images, reproducibly and differently in each epoch: see `set_epoch`. None keeps their order.
        augment: also flips each image with probability 1/2 and shifts it by up to an eighth of its size, with the edges
            filled by reflection.
        device: such as "cpu" or "cuda". None means the GPU if there is one, else the CPU.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        image_size: int,
        seed: int | None = None,
        augment: bool = False,
        device: torch.device | str | None = None,
    ):
        if not 1 <= batch_size <= len(image_set):
            raise ValueError(
                f"batch_size must be from 1 to the number of images in the set ({len(image_set)}), got {batch_size}"
            )
        if augment and seed is None:
            raise ValueError("augment=True needs a seed, so that the run can be repeated: pass one, such as seed=0")
        self.device = find_device(device)
        # Copy the images to the GPU once if they fit, with room for the network.
        fits = image_set.images.nbytes < free_bytes(self.device) / 2
        self.image_set = image_set.to(self.device) if fits else image_set
        self.batch_size = batch_size
        self.image_size = image_size
        self.seed = seed
        self.augment = augment
        self.mean = self._as_image(CHANNEL_MEAN)
        self.std = self._as_image(CHANNEL_STD)
        self._epoch = 0

    def _as_image(self, channels: tuple[float, float, float]) -> torch.Tensor:
        """Three numbers, scaled to 0..255, as an image: broadcasting three numbers over channels last is slow."""
        values = 255 * torch.tensor(channels, device=self.device).view(1, 3, 1, 1)
        values = values.expand(1, 3, self.image_size, self.image_size)  # (1, 3, S, S)
        return values.contiguous(memory_format=torch.channels_last)

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._starts())

    def _starts(self) -> list[int]:
        """The position of the first image of each batch."""
        starts = list(range(0, len(self.image_set), self.batch_size))
        has_single = len(self.image_set) - starts[-1] == 1 < self.batch_size
        return starts[:-1] if has_single else starts

    def set_epoch(self, epoch: int) -> None:
        """Choose the order, flips and shifts of the next passes. They follow from the seed and `epoch` only.

        `epoch` is 0 for the first pass, which is the default. `train` calls this method before each epoch. Call it in a
        loop of your own too, as you would call that of torch's DistributedSampler: otherwise all passes are the same.
        """
        self._epoch = epoch

    def fingerprint(self) -> dict[str, int | str | bool | None]:
        """Return plain values that identify these batches. A checkpoint refuses to continue with different ones."""
        return {
            "num_images": len(self.image_set),
            "digest": self.image_set.fingerprint(),
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "seed": self.seed,
            "augment": self.augment,
        }

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        num_images, _, height, width = self.image_set.images.shape
        margin = max(height, width) // 8
        order = torch.arange(num_images)
        # Draw all random numbers of the pass on the CPU now: they are the same on every device, and no GPU waits later.
        if self.seed is not None:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + self._epoch)
            order = torch.randperm(num_images, generator=generator)
        if self.augment:
            flips = (torch.rand(num_images, generator=generator) < 0.5).to(self.device)
            shifts = torch.randint(2 * margin + 1, (num_images, 2), generator=generator).to(self.device)
        order = order.to(self.image_set.images.device)

        for number, (start, end) in enumerate(pairwise([*self._starts(), num_images])):
            # Progress bars and forecasts watch the passes, and may end one early.
            if not _may_continue(self, number):
                return
            # Gather the images of this batch. As uint8 they are a quarter of the bytes to copy.
            batch = slice(start, end)
            images = self.image_set.images[order[batch]].to(self.device)  # uint8 (B, 3, H, W)
            labels = self.image_set.labels[order[batch]].to(self.device)  # (B,)
            # Augment before resizing: the images are usually smaller then, so this is cheaper.
            if self.augment:
                images = random_shift(images, shifts[batch], margin)
                images = random_flip(images, flips[batch])
            # Channels last: convolutions are faster in this memory layout.
            images = images.contiguous(memory_format=torch.channels_last)
            if images.shape[2:] != (self.image_size, self.image_size):
                images = transforms.resize(images, [self.image_size, self.image_size])  # (B, 3, S, S)
            # Normalise in place: that takes one float32 copy of the batch instead of three.
            yield images.float().sub_(self.mean).div_(self.std), labels
        _may_continue(self, len(self))


_watchers: list[Callable[[Batches, int], bool]] = []


@contextmanager
def watch_batches(watcher: Callable[[Batches, int], bool]) -> Iterator[None]:
    """Within this context, every pass over any `Batches` calls `watcher(batches, number)` between its batches.

    `number` is the number of batches used so far, from 0 to len(batches). If the watcher returns False, the pass ends.
    A search shows its progress with this, and a forecast runs only a few steps of an epoch. There can be several
    watchers: the newest is called first.
    """
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def _may_continue(batches: Batches, number: int) -> bool:
    return all(watcher(batches, number) for watcher in reversed(_watchers))


def random_flip(images: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Mirror the images (B, 3, H, W) for which `flips` (B,) is True, left to right."""
    return torch.where(flips[:, None, None, None], images.flip(3), images)


def random_shift(images: torch.Tensor, shifts: torch.Tensor, margin: int) -> torch.Tensor:
    """Pad the images (B, 3, H, W) by `margin` pixels on all sides, and crop each to its old size.

    `shifts` (B, 2) holds the top and left corner of each crop, from 0 to 2 * margin; (margin, margin) changes nothing.
    """
    batch_size, _, height, width = images.shape
    padded = F.pad(images, (margin, margin, margin, margin), mode="reflect")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, 3, 2 * margin + 1, 2 * margin + 1, H, W), a view
    top, left = shifts.unbind(dim=1)
    return windows[torch.arange(batch_size, device=images.device), :, top, left]  # (B, 3, H, W)
