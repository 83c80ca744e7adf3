"""Pictures that are in two sets at once: a network is then tested on what it may have learned by heart."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from cnnlesson.data.image_set import ImageSet
from cnnlesson.runtime.device import find_device

if TYPE_CHECKING:
    import pandas as pd

THUMBNAIL = 8  # pixels, for a first look at all pairs
PICTURE = 32  # pixels, for a second look at the pairs that are alike at first sight
SHIFT = 2  # of these pixels, by which a picture is moved to lie on the other
ALIKE_AT_FIRST_SIGHT = 0.45

# Chosen by looking at pairs of CIFAR-10's training and test images (saved as JPEG), 16 drawn from each band of
# distances: from 0.2 to 0.25 all 16 were one picture, from 0.25 to 0.3 only 13 were, from 0.4 on hardly any. Below
# 0.25 there are 189 pairs, with 148 of the 10,000 test images (1.5 %). Barz and Denzler, who judged pairs by eye, count
# 3.3 % ("Do we train on test data?", Journal of Imaging 6 (2020) 41, https://doi.org/10.3390/jimaging6060041): more
# than half of those are missed here. The 20 classes of TinyImageNet that were tried have no pair below 0.25.
NEAR = 0.25
CHUNK = 500  # pictures or pairs at a time


def find_leaks(train: ImageSet, other: ImageSet, device: torch.device | str | None = None) -> "pd.DataFrame":
    """The pictures of `other` that are in `train` too: a row a pair, the most alike first.

    The columns are train_index, other_index, kind and distance. kind is "exact" where every pixel is equal, and "near"
    for the same picture made lighter or darker, compressed anew, mirrored, or shifted by a little. An image can be in
    several pairs. distance is 0 for pictures that differ in brightness and contrast at most.

    How it works: the mean of each channel is taken off, and what is left is scaled to length 1, so that brightness
    and contrast do not count. The distance is that of two such vectors. Thumbnails of 8×8 pixels are compared first,
    each with each, and once more mirrored; those nearer than `ALIKE_AT_FIRST_SIGHT` are compared again at 32×32
    pixels, moved by up to 2 pixels to the place where they fit best, and reported if they are nearer than `NEAR`.
    A near pair is a suspicion: look at it. And where none is found there may still be some, cropped or turned.

    Args:
        device: where to compute; None takes the GPU where there is one.

    Raises:
        ValueError: the two sets have images of different sizes.
    """
    import pandas as pd

    if train.images.shape[1:] != other.images.shape[1:]:
        raise ValueError(
            f"both sets must have images of one size, got {tuple(train.images.shape)} and {tuple(other.images.shape)}"
        )
    device = find_device(device)
    thumbnails = torch.cat([_shape(_shrink(images.to(device), THUMBNAIL)) for images in train.images.split(CHUNK)])
    found = []
    for start in range(0, len(other), CHUNK):
        images = other.images[start : start + CHUNK].to(device)
        for views in (images, images.flip(3)):
            distances = torch.cdist(_shape(_shrink(views, THUMBNAIL)), thumbnails)  # (CHUNK, training images)
            for pairs in (distances < ALIKE_AT_FIRST_SIGHT).nonzero().split(CHUNK):
                place, train_index = pairs.unbind(dim=1)
                train_images = train.images[train_index.to(train.images.device)].to(device)
                distance = _distance(train_images, views[place])
                is_exact = (train_images == images[place]).flatten(1).all(dim=1)
                columns = {"train_index": train_index, "other_index": start + place}
                columns |= {"kind": is_exact, "distance": distance.where(~is_exact, 0)}
                found.append(pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()}))
    pairs = pd.concat(found)
    pairs = pairs[pairs["distance"] < NEAR].sort_values(["distance", "train_index", "other_index"])
    pairs = pairs.drop_duplicates(["train_index", "other_index"])  # the picture or its mirror image, what is nearer
    pairs["kind"] = pairs["kind"].map({True: "exact", False: "near"})
    return pairs.reset_index(drop=True)


def _distance(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The distance of each image (N, 3, H, W) from its partner, at the shift where the two fit best: (N,)."""
    images, others = _shrink(images, PICTURE), _shrink(others, PICTURE)
    size = PICTURE - 2 * SHIFT

    def window(pictures: torch.Tensor, top: int, left: int) -> torch.Tensor:
        return _shape(F.avg_pool2d(pictures[:, :, top : top + size, left : left + size], 2))

    middles = window(images, SHIFT, SHIFT)
    shifts = range(2 * SHIFT + 1)
    distances = [(middles - window(others, top, left)).norm(dim=1) for top in shifts for left in shifts]
    return torch.stack(distances).amin(dim=0)


def _shrink(images: torch.Tensor, size: int) -> torch.Tensor:
    return F.adaptive_avg_pool2d(images.float(), size)  # (N, 3, size, size)


def _shape(images: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) as vectors (N, 3 * H * W) without brightness and contrast."""
    centred = (images - images.mean(dim=(2, 3), keepdim=True)).flatten(1)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1)  # an even colour becomes 0, not noise
