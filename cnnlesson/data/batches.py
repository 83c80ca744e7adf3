"""From a set of images to the batches that a network is trained on."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as transforms

from cnnlesson.data.image_set import ImageSet
from cnnlesson.runtime.device import find_device, free_bytes

# The mean and standard deviation of ImageNet's training images by channel, for values from 0 to 1: the constants
# that torchvision's recipes use. They come from other images than ours, so nothing leaks from validation or test.
CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)


class Batches:
    """Iterate over batches of (images, labels), ready for the network, on its device.

    images is float32 (B, 3, image_size, image_size), normalised to about mean 0 and standard deviation 1, in
    channels-last memory; labels is int64 (B,). Every image comes once an epoch; the last batch may be smaller.

    The uint8 images stay in the device's memory where they fill less than half of what is free, and every operation
    works on a whole batch at once. That is much faster than decoding and transforming one file at a time.

    Args:
        image_set: the images.
        batch_size: images a batch.
        image_size: height and width in pixels that the network wants; images of another size are resized.
        seed: shuffles the images, differently in each epoch and identically in each run. None keeps their order.
        augment: also flips each image with probability 1/2 and shifts it by up to an eighth of its size, the edge
            filled by reflection, differently in each epoch.
        device: such as "cpu" or "cuda"; None takes the GPU where there is one.
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
            raise ValueError("augment=True draws random numbers: give a seed, such as seed=0, so that a run can repeat")
        self.device = find_device(device)
        fits = image_set.images.nbytes < free_bytes(self.device) / 2
        self.image_set = image_set.to(self.device) if fits else image_set
        self.batch_size = batch_size
        self.image_size = image_size
        self.seed = seed
        self.augment = augment
        self._epoch = 0
        self.mean = self._as_image(CHANNEL_MEAN)
        self.std = self._as_image(CHANNEL_STD)

    def _as_image(self, channels: tuple[float, float, float]) -> torch.Tensor:
        """The three numbers, scaled to 0..255, at every pixel: broadcasting three over channels-last memory is slow."""
        values = 255 * torch.tensor(channels, device=self.device).view(1, 3, 1, 1)
        values = values.expand(1, 3, self.image_size, self.image_size)  # (1, 3, S, S)
        return values.contiguous(memory_format=torch.channels_last)

    def __len__(self) -> int:
        return -(-len(self.image_set) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order, flips and shifts of the pass with index `epoch`, which is 0 for the first one.

        `train` calls it before each epoch. In a loop of your own, call it too, as with torch's DistributedSampler:
        until you do, every pass is the same.
        """
        self._epoch = epoch

    def fingerprint(self) -> dict[str, int | str | bool | None]:
        """Plain values that tell these batches apart from others: a checkpoint refuses to continue with others.

        The digest is of all labels and up to 500 evenly spaced images.
        """
        every = -(-len(self.image_set) // 500)
        digest = hashlib.sha256(self.image_set.labels.cpu().numpy().tobytes())
        digest.update(self.image_set.images[::every].cpu().numpy().tobytes())
        return {
            "num_images": len(self.image_set),
            "digest": digest.hexdigest()[:12],
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "seed": self.seed,
            "augment": self.augment,
        }

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        num_images, _, height, width = self.image_set.images.shape
        margin = max(height, width) // 8
        order = torch.arange(num_images)
        # All of the epoch's random numbers are drawn at once: a GPU then never waits for one of them.
        if self.seed is not None:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + self._epoch)
            order = torch.randperm(num_images, generator=generator)
        if self.augment:
            flips = (torch.rand(num_images, generator=generator) < 0.5).to(self.device)
            shifts = torch.randint(2 * margin + 1, (num_images, 2), generator=generator).to(self.device)
        order = order.to(self.image_set.images.device)

        for number, start in enumerate(range(0, num_images, self.batch_size)):
            if not _watcher(self, number):
                return
            batch = slice(start, start + self.batch_size)
            images = self.image_set.images[order[batch]].to(self.device)  # uint8 (B, 3, H, W)
            labels = self.image_set.labels[order[batch]].to(self.device)  # (B,)
            if self.augment:
                images = random_shift(images, shifts[batch], margin)
                images = random_flip(images, flips[batch])
            images = images.contiguous(memory_format=torch.channels_last)
            if images.shape[2:] != (self.image_size, self.image_size):
                images = transforms.resize(images, [self.image_size, self.image_size])  # (B, 3, S, S)
            yield images.float().sub_(self.mean).div_(self.std), labels
        _watcher(self, len(self))


def _let_all_pass(batches: Batches, number: int) -> bool:
    return True


_watcher = _let_all_pass


@contextmanager
def watch_batches(watcher: Callable[[Batches, int], bool]) -> Iterator[None]:
    """While it lasts, every pass over any `Batches` calls `watcher(batches, number)` between its batches.

    `number` is how many batches were used so far, from 0 to len(batches). The pass ends where the watcher gives
    False. A search shows its progress with this, and a forecast makes a few steps of an epoch. Watchers may be nested.
    """
    global _watcher
    before = _watcher

    def both(batches: Batches, number: int) -> bool:
        return watcher(batches, number) and before(batches, number)

    _watcher = both
    try:
        yield
    finally:
        _watcher = before


def random_flip(images: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Mirror left and right the images (B, 3, H, W) for which `flips` (B,) is True."""
    return torch.where(flips[:, None, None, None], images.flip(3), images)


def random_shift(images: torch.Tensor, shifts: torch.Tensor, margin: int) -> torch.Tensor:
    """Cut a window of the old size out of each image (B, 3, H, W) after widening it by `margin` pixels on all sides.

    `shifts` (B, 2) has each window's top and left corner, from 0 to 2 * margin; (margin, margin) changes nothing.
    """
    batch_size, _, height, width = images.shape
    padded = F.pad(images, (margin, margin, margin, margin), mode="reflect")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, 3, 2 * margin + 1, 2 * margin + 1, H, W), a view
    top, left = shifts.unbind(dim=1)
    return windows[torch.arange(batch_size, device=images.device), :, top, left]  # (B, 3, H, W)
