"""Splits and folds of real labels: the classes in each part, and images that are in two parts."""

import torch

from cnnlesson.data import ImageSet, find_leaks, k_folds, split, take
from cnnlesson.plots import description, plot_class_balance, plot_fold_balance, plot_leaks
from cnnlesson.plots.figures import blank_mosaic
from cnnlesson.widgets.explorer import Explorer, Slider, Tick

MAX_IMAGES = 600  # so that images in two parts are found immediately
MAX_CLASSES = 20  # that are listed as text
MAX_PAIRS = 4  # of images that are shown; each makes the sliders slower


def explore_splits(image_set: ImageSet) -> Explorer:
    """A split of up to 600 of the images into training, validation and test part, or into folds.

    Copies are planted before the split, mirrored and darker; some of them end up in another part than their original.
    The mean brightness tells splits with the same class counts apart: another seed puts other images in each part.
    """
    images = take(image_set, MAX_IMAGES, seed=0)
    controls = {
        "validation": Slider("validation (%)", 10, 1, 50),
        "test": Slider("test (%)", 10, 0, 40),
        "folds": Slider("folds (1: a split)", 1, 1, 10),
        "seed": Slider("seed", 0, 0, 20),
        "copies": Slider("planted copies", 0, 0, 50),
        "stratified": Tick("stratified", True),
    }

    def draw(validation: int, test: int, folds: int, seed: int, copies: int, stratified: bool) -> tuple:
        planted = with_copies(images, copies)
        if folds == 1:
            shares = {"training": 100 - validation - test, "validation": validation, "test": test}
            parts = divide(planted, shares, seed, stratified)
            plot_classes, labels = plot_class_balance, {name: part.labels for name, part in parts.items()}
        else:
            pairs = divide_into_folds(planted, folds, seed, stratified)
            parts = dict(zip(("training", "validation"), pairs[0], strict=True))
            plot_classes, labels = plot_fold_balance, [fold.labels for _, fold in pairs]
        leaks = find_leaks(parts["training"], parts["validation"], device="cpu")
        layout = [["classes"] * MAX_PAIRS]
        if len(leaks):
            layout += [[f"{part} {k}" for k in range(MAX_PAIRS)] for part in ("training", "validation")]
        height = 3.4 + 2.6 * (len(leaks) > 0)
        classes, *pictures = blank_mosaic(layout, (9.6, height), height_ratios=[2, 1, 1][: len(layout)]).values()
        plot_classes(labels, images.classes, classes)
        text = [description(classes).text] if len(images.classes) <= MAX_CLASSES else []
        text += [f"fold 1 of {folds}:"] if folds > 1 else []
        for name, part in parts.items():
            text.append(f"{name}: {len(part)} images, mean brightness {part.images.float().mean() / 255:.3f}")
        text.append(f"images of the validation part that are also in training: {len(leaks)}")
        if len(leaks):
            plot_leaks(parts["training"], parts["validation"], leaks, pictures)
            text.append(description(pictures).text)
        return [classes, *pictures], "\n".join(text)

    return Explorer(controls, draw)


def with_copies(images: ImageSet, copies: int) -> ImageSet:
    """The images, followed by copies of the first ones, mirrored and darker."""
    copied = (images.images[:copies].flip(3) * 0.8).to(torch.uint8)
    return ImageSet(
        torch.cat([images.images, copied]), torch.cat([images.labels, images.labels[:copies]]), images.classes
    )


def divide(images: ImageSet, shares: dict[str, int], seed: int, stratified: bool) -> dict[str, ImageSet]:
    """The parts by name, for shares in percent; a share of 0 has no part."""
    shares = {name: share / 100 for name, share in shares.items() if share}
    if stratified:
        return dict(zip(shares, split(images, list(shares.values()), seed), strict=True))
    others = [round(share * len(images)) for share in list(shares.values())[1:]]
    parts = _shuffled(images, seed).split([len(images) - sum(others), *others])
    return {name: images[part] for name, part in zip(shares, parts, strict=True)}


def divide_into_folds(images: ImageSet, folds: int, seed: int, stratified: bool) -> list[tuple[ImageSet, ImageSet]]:
    """Pairs of training and validation part."""
    if stratified:
        return list(k_folds(images, folds, seed))
    parts = _shuffled(images, seed).tensor_split(folds)
    return [(images[torch.cat([*parts[:k], *parts[k + 1 :]])], images[part]) for k, part in enumerate(parts)]


def _shuffled(images: ImageSet, seed: int) -> torch.Tensor:
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
