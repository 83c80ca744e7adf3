"""Splits and folds of real labels: the classes in each part, and pictures that are in two parts."""

import torch
from sklearn.model_selection import KFold

from cnnlesson.data import ImageSet, find_leaks, k_folds, split, take
from cnnlesson.plots import (
    class_balance_text,
    fold_balance_text,
    leaks_text,
    plot_class_balance,
    plot_fold_balance,
    plot_leaks,
)
from cnnlesson.plots.figures import blank_mosaic
from cnnlesson.widgets.explorer import Explorer, Slider, Tick

MOST_IMAGES = 600  # so that pictures in two parts are found at once
MOST_CLASSES = 20  # that are listed in words

MOST_PAIRS = 4  # of pictures that are shown, as every one of them makes the sliders slower

LAYOUT = [["classes"]]
WITH_LEAKS = [["classes"] * MOST_PAIRS, *([f"{part} {k}" for k in range(MOST_PAIRS)] for part in ("train", "other"))]


def explore_splits(image_set: ImageSet) -> Explorer:
    """A split of up to 600 of the images into training, validation and test part, or into folds.

    Copies are planted before the split, mirrored and darker: some of them end in another part than their original. The
    mean brightness tells apart splits that have the same classes: with another seed other images are in the parts.
    """
    images = take(image_set, MOST_IMAGES, seed=0)
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
            train, other = parts["training"], parts["validation"]
        else:
            pairs = divide_into_folds(planted, folds, seed, stratified)
            train, other = pairs[0]
        leaks = find_leaks(train, other, device="cpu")
        layout = WITH_LEAKS if len(leaks) else LAYOUT
        axes = blank_mosaic(layout, (9.6, 3.4 + 2.6 * (len(leaks) > 0)), height_ratios=[2, 1, 1][: len(layout)])
        if folds == 1:
            labels = {name: part.labels for name, part in parts.items()}
            plot_class_balance(labels, images.classes, axes["classes"])
            words = [", ".join(f"{name} {len(part)} images" for name, part in parts.items())]
            words += [class_balance_text(labels, images.classes)] * (len(images.classes) <= MOST_CLASSES)
        else:
            labels = [validation.labels for _, validation in pairs]
            plot_fold_balance(labels, images.classes, axes["classes"])
            words = [f"{folds} folds; their validation parts:"]
            words += [fold_balance_text(labels, images.classes)] * (len(images.classes) <= MOST_CLASSES)
            parts = {"training": train, "validation": other}
        brightness = (f"{name} {part.images.float().mean() / 255:.3f}" for name, part in parts.items())
        words.append(f"mean brightness{' in the first fold' if folds > 1 else ''}: {', '.join(brightness)}")
        words.append(
            f"{len(leaks)} pictures of the {'first fold' if folds > 1 else 'validation part'} are in training too"
        )
        if len(leaks):
            plot_leaks(train, other, leaks.head(MOST_PAIRS), [ax for name, ax in axes.items() if name != "classes"])
            words.append(leaks_text(train, other, leaks.head(MOST_PAIRS)))
        return axes["classes"], "\n".join(words)

    return Explorer(controls, draw)


def with_copies(images: ImageSet, copies: int) -> ImageSet:
    """The images, and behind them copies of the first ones, mirrored and darker."""
    copied = (images.images[:copies].flip(3) * 0.8).to(torch.uint8)
    return ImageSet(
        torch.cat([images.images, copied]), torch.cat([images.labels, images.labels[:copies]]), images.classes
    )


def divide(images: ImageSet, shares: dict[str, int], seed: int, stratified: bool) -> dict[str, ImageSet]:
    """The parts by their names, for shares in percent; one of 0 is left out."""
    shares = {name: share / 100 for name, share in shares.items() if share}
    if stratified:
        return dict(zip(shares, split(images, list(shares.values()), seed), strict=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    others = [round(share * len(images)) for share in list(shares.values())[1:]]
    indices = order.split([len(images) - sum(others), *others])
    return {name: images[part] for name, part in zip(shares, indices, strict=True)}


def divide_into_folds(images: ImageSet, folds: int, seed: int, stratified: bool) -> list[tuple[ImageSet, ImageSet]]:
    """Pairs of training and validation part."""
    if stratified:
        return list(k_folds(images, folds, seed))
    pairs = KFold(folds, shuffle=True, random_state=seed).split(range(len(images)))
    return [(images[torch.from_numpy(train)], images[torch.from_numpy(validation)]) for train, validation in pairs]
