"""Split a set of images into disjoint parts with the same proportions of classes."""

from collections.abc import Iterator, Sequence

import torch

from cnnlesson.data.image_set import ImageSet


def split(image_set: ImageSet, fractions: Sequence[float], seed: int) -> tuple[ImageSet, ...]:
    """Split `image_set` at random into one part per fraction; the same seed returns the same parts.

    The parts are stratified: each has the classes in the proportions of the whole set. Every image is in exactly one
    part. `split(images, (0.8, 0.1, 0.1), seed=0)` returns training, validation and test images.

    Raises:
        ValueError: the fractions are not positive or do not add up to 1, or a class has too few images.
    """
    return tuple(image_set[part] for part in _split_indices(image_set, fractions, seed))


def take(image_set: ImageSet, num_images: int, seed: int) -> ImageSet:
    """`num_images` images drawn at random, stratified; the set itself if it has no more than that."""
    num_classes = len(image_set.classes)
    if num_images >= len(image_set):
        return image_set
    if num_images < num_classes:
        raise ValueError(f"num_images must be at least the number of classes, {num_classes}, got {num_images}")
    # scikit-learn leaves out at least one image per class; if fewer are to be left out, put some of those back.
    num_drawn = min(num_images, len(image_set) - num_classes)
    kept = num_drawn / len(image_set)
    part, rest = _split_indices(image_set, (kept, 1 - kept), seed)
    return image_set[torch.cat([part, rest[: num_images - num_drawn]])]


def _split_indices(image_set: ImageSet, fractions: Sequence[float], seed: int) -> list[torch.Tensor]:
    from sklearn.model_selection import train_test_split

    if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and add up to 1, got {tuple(fractions)}")
    _check_class_sizes(image_set, len(fractions))
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
    """Yield k pairs (training images, validation images); each image is in exactly one validation set.

    The folds are stratified; the same seed returns the same folds. This is a generator, since k copies of a large set
    may not fit in memory.
    """
    from sklearn.model_selection import StratifiedKFold

    if not 2 <= k <= len(image_set):
        raise ValueError(f"k must be from 2 to the number of images ({len(image_set)}), got {k}")
    _check_class_sizes(image_set, k)
    folds = StratifiedKFold(n_splits=k, shuffle=True, random_state=seed)
    for train_indices, val_indices in folds.split(torch.zeros(len(image_set)), image_set.labels.cpu()):
        yield image_set[torch.from_numpy(train_indices)], image_set[torch.from_numpy(val_indices)]


def _check_class_sizes(image_set: ImageSet, num_parts: int) -> None:
    counts = torch.bincount(image_set.labels, minlength=len(image_set.classes))
    if counts.min() < num_parts:
        raise ValueError(
            f"class {image_set.classes[counts.argmin()]!r} must have at least one image for each of the {num_parts} "
            f"parts, got {counts.min()}"
        )
