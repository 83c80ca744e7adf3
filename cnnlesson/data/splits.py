"""Dividing a set of images into parts that share no image and have the same mix of classes."""

from collections.abc import Iterator, Sequence

import torch

from cnnlesson.data.image_set import ImageSet


def split(image_set: ImageSet, fractions: Sequence[float], seed: int) -> tuple[ImageSet, ...]:
    """Divide `image_set` at random into one part for each fraction; the same seed gives the same parts.

    The parts are stratified: each has the classes in the proportions of the whole set. Together they hold every
    image once. `split(images, (0.8, 0.1, 0.1), seed=0)` gives training, validation and test images.

    Raises:
        ValueError: the fractions are not positive or do not add up to 1, or a class has too few images.
    """
    return tuple(image_set[part] for part in _split_indices(image_set, fractions, seed))


def take(image_set: ImageSet, num_images: int, seed: int) -> ImageSet:
    """`num_images` images drawn at random, with the classes in the proportions of the whole set; or the set itself,
    where it has no more."""
    if num_images >= len(image_set):
        return image_set
    kept = num_images / len(image_set)
    part, _ = _split_indices(image_set, (kept, 1 - kept), seed)
    return image_set[part]


def _split_indices(image_set: ImageSet, fractions: Sequence[float], seed: int) -> list[torch.Tensor]:
    from sklearn.model_selection import train_test_split

    if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and add up to 1, got {tuple(fractions)}")
    _need_images_of_each_class(image_set, len(fractions))
    rest = torch.arange(len(image_set)).numpy()
    parts = []
    for fraction in fractions[:-1]:
        try:
            part, rest = train_test_split(
                rest,
                train_size=round(fraction * len(image_set)),
                random_state=seed,
                stratify=image_set.labels.cpu()[rest],
            )
        except ValueError as error:
            raise ValueError(
                f"{len(image_set)} images of {len(image_set.classes)} classes are too few to split into "
                f"{tuple(fractions)}: {error}"
            ) from error
        parts.append(torch.from_numpy(part))
    return [*parts, torch.from_numpy(rest)]


def k_folds(image_set: ImageSet, k: int, seed: int) -> Iterator[tuple[ImageSet, ImageSet]]:
    """Yield k pairs (training images, validation images); each image is in just one validation part.

    The folds are stratified, and the same seed gives the same folds. Each pair is made when it is asked for, since
    k copies of a large set would not fit in memory.
    """
    from sklearn.model_selection import StratifiedKFold

    if not 2 <= k <= len(image_set):
        raise ValueError(f"k must be from 2 to the number of images ({len(image_set)}), got {k}")
    _need_images_of_each_class(image_set, k)
    folds = StratifiedKFold(n_splits=k, shuffle=True, random_state=seed)
    for train_indices, val_indices in folds.split(torch.zeros(len(image_set)), image_set.labels.cpu()):
        yield image_set[torch.from_numpy(train_indices)], image_set[torch.from_numpy(val_indices)]


def _need_images_of_each_class(image_set: ImageSet, number: int) -> None:
    counts = torch.bincount(image_set.labels, minlength=len(image_set.classes))
    if counts.min() < number:
        name = image_set.classes[counts.argmin()]
        raise ValueError(
            f"class {name!r} has {counts.min()} images: to be in each of {number} parts it needs at least {number}"
        )
