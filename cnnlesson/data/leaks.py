"""Find images that are in both of two sets: a network may have memorised them in training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from cnnlesson.data.image_set import ImageSet
from cnnlesson.runtime.device import find_device

if TYPE_CHECKING:
    import pandas as pd

PICTURE = 64  # all images are resized to this number of pixels
SHIFT = 4  # largest shift of one picture against the other, in these pixels
WINDOW = PICTURE - 2 * SHIFT  # the part of a picture that is also in the other one, whatever the shift
CELL = 4  # the windows of a pair are compared as means of CELL×CELL pixels

# All pairs are first compared as thumbnails, at every third shift, so that one is at most 1 pixel off. Of 1,000
# images of TinyImageNet, at least 99 % pass after each of ten shifts, JPEG of quality 30 or 60, noise of standard
# deviation 10, a gamma of 1.5 and half the resolution. Of a million pairs of different photographs, about 22 pass.
THUMBNAIL = 5  # pixels
STEP = 3
CANDIDATE = 0.3  # largest distance between the thumbnails of a pair that is compared again

# Largest distance of a reported pair. Chosen by eye, on 24 pairs of CIFAR-10's training and test images (saved as JPEG)
# from each band of distances. From 0.15 to 0.22 all 72 pairs were the same picture, from 0.22 to 0.25 only 19 of 24.
# Below 0.22 there are 305 pairs, with 196 of the 10,000 test images (2.0 %). Barz and Denzler, who inspected pairs by
# eye, count 3.3 % ("Do we train on test data?", Journal of Imaging 6 (2020) 41,
# https://doi.org/10.3390/jimaging6060041), so more than a third of those are missed here. In the 20 classes of
# TinyImageNet that were tried, no pair is below 0.3.
NEAR = 0.22
CHUNK = 500  # pictures or pairs at a time


def find_leaks(train: ImageSet, other: ImageSet, device: torch.device | str | None = None) -> "pd.DataFrame":
    """The images of `other` that are also in `train`: one row per pair, the most similar first.

    The columns are train_index, other_index, kind and distance. kind is "exact" if every pixel is equal, and "near" if
    one picture is the other made lighter or darker, compressed again, mirrored or slightly shifted. An image can be in
    several pairs. distance is 0 if the two differ only in brightness and contrast.

    How it works: the mean of each channel is subtracted and the rest scaled to length 1, so that brightness and
    contrast do not count. The distance is the Euclidean distance of two such vectors. Images are resized to 64×64
    pixels. All pairs are compared as thumbnails of 5×5 pixels, also mirrored and shifted. Those closer than `CANDIDATE`
    are compared again in 14×14 cells, at all shifts of up to 4 of the 64 pixels, and reported if they are closer than
    `NEAR` at the shift where they fit best. Inspect each near pair: it may be two different pictures. Cropped and
    rotated copies are not found.

    Args:
        device: where to compute; None uses the GPU if there is one.

    Raises:
        ValueError: the two sets have images of different sizes.
    """
    import pandas as pd

    if train.images.shape[1:] != other.images.shape[1:]:
        raise ValueError(f"both sets must have images of the same size, got {train} and {other}")
    device = find_device(device)
    starts = range(SHIFT % STEP, 2 * SHIFT + 1, STEP)  # of the windows of `other`
    chunks = [_thumbnails(images.to(device), [SHIFT])[0] for images in train.images.split(CHUNK)]
    thumbnails = torch.cat(chunks)  # (training images, 75)
    found = []
    for start in range(0, len(other), CHUNK):
        images = other.images[start : start + CHUNK].to(device)
        for views in (images, images.flip(3)):
            is_candidate = torch.zeros(len(views), len(train), dtype=torch.bool, device=device)
            for shifted in _thumbnails(views, starts):
                is_candidate |= torch.cdist(shifted, thumbnails) < CANDIDATE
            for place in is_candidate.any(dim=1).nonzero().flatten().tolist():
                for train_index in is_candidate[place].nonzero().flatten().split(CHUNK):
                    train_images = train.images[train_index.to(train.images.device)].to(device)
                    distance = _distance(train_images, views[place])
                    is_exact = (train_images == images[place]).flatten(1).all(dim=1)
                    other_index = torch.full_like(train_index, start + place)
                    columns = (train_index, other_index, is_exact, distance.where(~is_exact, 0))
                    found += zip(*(column[distance < NEAR].tolist() for column in columns), strict=True)
    pairs = pd.DataFrame(found, columns=["train_index", "other_index", "kind", "distance"])
    pairs = pairs.sort_values(["distance", "train_index", "other_index"])
    pairs = pairs.drop_duplicates(["train_index", "other_index"])  # keep the closer of two mirror images
    pairs["kind"] = pairs["kind"].map({True: "exact", False: "near"})
    return pairs.reset_index(drop=True)


def _thumbnails(images: torch.Tensor, starts: Sequence[int]) -> list[torch.Tensor]:
    """The thumbnails of the windows that start in these rows and columns, as vectors: (N, 75) per window."""
    to_thumbnail = _resizing(WINDOW, THUMBNAIL, images.device)
    matrix = torch.cat([F.pad(to_thumbnail, (0, 0, start, 2 * SHIFT - start)) for start in starts], dim=1)
    tiles = matrix.T @ _resize(images) @ matrix  # (N, 3, 5 * starts, 5 * starts)
    return [_shape(tile) for row in tiles.split(THUMBNAIL, dim=2) for tile in row.split(THUMBNAIL, dim=3)]


def _distance(images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The distance of each image (N, 3, H, W) from `other` (3, H, W), at the shift where they fit best: (N,)."""
    centres = F.avg_pool2d(_resize(images)[:, :, SHIFT:-SHIFT, SHIFT:-SHIFT], CELL)
    means = F.avg_pool2d(_resize(other[None]), CELL, stride=1)
    windows = F.unfold(means, WINDOW // CELL, dilation=CELL)[0].T.unflatten(1, centres.shape[1:])  # (shifts, 3, 14, 14)
    distances = torch.cdist(_shape(centres), _shape(windows), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.amin(dim=1)


def _resize(images: torch.Tensor) -> torch.Tensor:
    images = images.float()
    height, width = images.shape[2:]
    if (height, width) == (PICTURE, PICTURE):
        return images
    return _resizing(height, PICTURE, images.device).T @ images @ _resizing(width, PICTURE, images.device)


def _resizing(size: int, new_size: int, device: torch.device) -> torch.Tensor:
    """The matrix (size, new_size) that resizes one dimension of an image: bilinear, and antialiased."""
    identity = torch.eye(size)[None, None]
    return F.interpolate(identity, (size, new_size), mode="bilinear", antialias=True)[0, 0].to(device)


def _shape(images: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) as vectors (N, 3 * H * W) without brightness and contrast."""
    centred = (images - images.mean(dim=(2, 3), keepdim=True)).flatten(1)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1)  # a uniform colour becomes 0, not noise
