"""Find images that are in both of two sets: a network may have memorised them in training."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from cnnlesson.data.image_set import ImageSet
from cnnlesson.runtime.device import find_device

if TYPE_CHECKING:
    import pandas as pd

THUMBNAIL = 8  # size in pixels at which all pairs are compared
PICTURE = 32  # size in pixels at which the most similar pairs are compared again
SHIFT = 2  # largest shift of one picture against the other, in these pixels
CANDIDATE = 0.45  # largest distance between the thumbnails of a pair that is compared again

# Largest distance of a reported pair. Chosen by eye, on 16 pairs of CIFAR-10's training and test images (saved as
# JPEG) from each band of distances. From 0.2 to 0.25 all 16 pairs were the same picture, from 0.25 to 0.3 only 13,
# from 0.4 hardly any. Below 0.25 there are 189 pairs, with 148 of the 10,000 test images (1.5 %). Barz and Denzler,
# who inspected pairs by eye, count 3.3 % ("Do we train on test data?", Journal of Imaging 6 (2020) 41,
# https://doi.org/10.3390/jimaging6060041), so more than half of those are missed here. In the 20 classes of
# TinyImageNet that were tried, no pair is below 0.25.
NEAR = 0.25
CHUNK = 500  # pictures or pairs at a time


def find_leaks(train: ImageSet, other: ImageSet, device: torch.device | str | None = None) -> "pd.DataFrame":
    """The images of `other` that are also in `train`: one row per pair, the most similar first.

    The columns are train_index, other_index, kind and distance. kind is "exact" if every pixel is equal, and "near" if
    one picture is the other made lighter or darker, compressed again, mirrored or slightly shifted. An image can be in
    several pairs. distance is 0 if the two differ only in brightness and contrast.

    How it works: the mean of each channel is subtracted and the rest scaled to length 1, so that brightness and
    contrast do not count. The distance is the Euclidean distance of two such vectors. All pairs are compared as
    thumbnails of 8×8 pixels, also mirrored. Those closer than `CANDIDATE` are compared again at 32×32 pixels, shifted
    by up to 2 pixels to where they fit best, and reported if they are closer than `NEAR`. Inspect each near pair: it
    may be two different pictures. Cropped and rotated copies are not found.

    Args:
        device: where to compute; None uses the GPU if there is one.

    Raises:
        ValueError: the two sets have images of different sizes.
    """
    import pandas as pd

    if train.images.shape[1:] != other.images.shape[1:]:
        raise ValueError(f"both sets must have images of the same size, got {train} and {other}")
    device = find_device(device)
    thumbnails = torch.cat([_shape(_shrink(images.to(device), THUMBNAIL)) for images in train.images.split(CHUNK)])
    found = []
    for start in range(0, len(other), CHUNK):
        images = other.images[start : start + CHUNK].to(device)
        for views in (images, images.flip(3)):
            distances = torch.cdist(_shape(_shrink(views, THUMBNAIL)), thumbnails)  # (CHUNK, training images)
            for pairs in (distances < CANDIDATE).nonzero().split(CHUNK):
                place, train_index = pairs.unbind(dim=1)
                train_images = train.images[train_index.to(train.images.device)].to(device)
                distance = _distance(train_images, views[place])
                is_exact = (train_images == images[place]).flatten(1).all(dim=1)
                columns = {"train_index": train_index, "other_index": start + place, "kind": is_exact}
                columns["distance"] = distance.where(~is_exact, 0)
                found.append(pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()}))
    pairs = pd.concat(found)
    pairs = pairs[pairs["distance"] < NEAR].sort_values(["distance", "train_index", "other_index"])
    pairs = pairs.drop_duplicates(["train_index", "other_index"])  # keep the closer of two mirror images
    pairs["kind"] = pairs["kind"].map({True: "exact", False: "near"})
    return pairs.reset_index(drop=True)


def _distance(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The distance between each image (N, 3, H, W) and its partner, at the shift where they fit best: (N,)."""
    images, others = _shrink(images, PICTURE), _shrink(others, PICTURE)
    size = PICTURE - 2 * SHIFT

    def window(pictures: torch.Tensor, top: int, left: int) -> torch.Tensor:
        return _shape(F.avg_pool2d(pictures[:, :, top : top + size, left : left + size], 2))

    centres = window(images, SHIFT, SHIFT)
    shifts = range(2 * SHIFT + 1)
    distances = [(centres - window(others, top, left)).norm(dim=1) for top in shifts for left in shifts]
    return torch.stack(distances).amin(dim=0)


def _shrink(images: torch.Tensor, size: int) -> torch.Tensor:
    return F.adaptive_avg_pool2d(images.float(), size)  # (N, 3, size, size)


def _shape(images: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) as vectors (N, 3 * H * W) without brightness and contrast."""
    centred = (images - images.mean(dim=(2, 3), keepdim=True)).flatten(1)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1)  # a uniform colour becomes 0, not noise
