"""Checks of lesson 1, splitting data."""

import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from cnnlesson.checks import verdict
from cnnlesson.checks.verdict import Unanswered, Wrong, exercise

progress = partial(verdict.progress, __name__)

SEEDS = (0, 1, 2, 3)


@exercise
def split_indices(answer: Callable) -> None:
    """(num_images, fractions, seed) -> the indices of each part: every image once, drawn at random."""
    for num_images, fractions in ((1000, (0.8, 0.1, 0.1)), (103, (0.7, 0.3)), (400, (0.5, 0.25, 0.25))):
        parts = _parts(answer(num_images, fractions, seed=0), fractions)
        _need_a_partition(parts, num_images)
        _need_sizes(parts, num_images, fractions)
        if any(max(part) - min(part) == len(part) - 1 for part in parts):
            raise Wrong("A part is a run of neighbours, such as 0, 1, 2, 3: shuffle before you cut, not after.")
    _need_use_of_the_seed(lambda seed: _parts(answer(1000, (0.8, 0.1, 0.1), seed=seed), (0.8, 0.1, 0.1)))


@exercise
def stratified_split(answer: Callable) -> None:
    """(labels, fractions, seed) -> the indices of each part, with the classes in the proportions of the whole set."""
    fractions = (0.8, 0.1, 0.1)
    mixed = torch.arange(3).repeat_interleave(torch.tensor([200, 100, 40]))
    mixed = mixed[torch.randperm(len(mixed), generator=torch.Generator().manual_seed(5))]
    cases = [(mixed, fractions), (torch.arange(4).repeat(50), (0.5, 0.5))]
    cases.append((torch.arange(3).repeat_interleave(torch.tensor([10, 300, 30])), fractions))
    for labels, case_fractions in cases:
        given = labels.clone()
        parts = _parts(answer(given, case_fractions, seed=0), case_fractions)
        if not torch.equal(given, labels):
            raise Wrong("It changes the labels that it was given: work on a copy.")
        counts = torch.bincount(labels).tolist()
        _need_all_classes(parts, labels)
        _need_a_partition(parts, len(labels), "are places within a class turned back into places in labels?")
        found = [torch.bincount(labels[part], minlength=len(counts)).tolist() for part in parts]
        for number, part_counts in enumerate(found, start=1):
            if 0 in part_counts:
                raise Wrong(
                    f"Class {part_counts.index(0)} is absent from part {number}: give each part its fraction of it."
                )
            if len(set(part_counts)) == 1 < len(set(counts)):
                raise Wrong(
                    f"Part {number} has {part_counts[0]} images of each class, as many of a rare one as of a common "
                    "one: take the same fraction of each class."
                )
        _need_sizes(parts, len(labels), case_fractions, slack=len(counts))
        for number, (part_counts, fraction) in enumerate(zip(found, case_fractions, strict=True), start=1):
            for label, (count, whole) in enumerate(zip(part_counts, counts, strict=True)):
                if abs(count - fraction * whole) > 2:
                    raise Wrong(
                        f"It is not stratified: part {number} has {count} images of class {label}, where its fraction "
                        f"of the class's {whole} is {fraction * whole:.0f}. Divide each class on its own."
                    )
        for label in range(len(counts)):
            places = (labels == label).nonzero()[:, 0].tolist()
            mine = set(parts[0]) & set(places)
            if len(mine) > 5 and mine in (set(places[: len(mine)]), set(places[-len(mine) :])):
                raise Wrong(
                    f"Within class {label} the first part gets neighbours in a row: shuffle the images of each class."
                )
    _need_use_of_the_seed(lambda seed: _parts(answer(mixed.clone(), fractions, seed=seed), fractions))


def _need_all_classes(parts: list[list[int]], labels: torch.Tensor) -> None:
    indices = [index for part in parts for index in part]
    if set(indices) <= set(labels.tolist()):
        raise Wrong("The parts hold labels: they must hold indices, the places of the images in labels.")
    if len(set(indices)) < len(indices):
        return  # another mistake, named later
    for label in labels.unique().tolist():
        if not set(indices) & set((labels == label).nonzero()[:, 0].tolist()):
            raise Wrong(f"All images of class {label} are left out: does the loop reach every class?")


@exercise
def k_fold_indices(answer: Callable) -> None:
    """(num_images, k, seed) -> k pairs (training indices, validation indices)."""
    for num_images, k in ((100, 5), (103, 4), (60, 2)):
        folds = _folds(answer(num_images, k, seed=0), k)
        trained = sorted(index for train, _ in folds for index in train)
        if k > 2 and trained == list(range(num_images)) and len(folds[0][0]) < len(folds[0][1]):
            raise Wrong("Training and validation are swapped: each pair is (train, validation), and most images train.")
        for number, (train, validation) in enumerate(folds, start=1):
            _need_indices([*train, *validation], num_images)
            both = set(train) & set(validation)
            if both:
                raise Wrong(
                    f"In fold {number} {_images(both)} both in training and in validation: the training part "
                    "must leave the fold's validation images out."
                )
            if len(set(train)) < len(train) or len(set(validation)) < len(validation):
                raise Wrong(f"In fold {number} an image is twice in one part: draw without putting back.")
        validated = [index for _, validation in folds for index in validation]
        if len(set(validated)) < len(validated):
            raise Wrong(
                "The validation parts of different folds overlap: cut one shuffled order into k pieces, so that each "
                "image is validated once."
            )
        missing = set(range(num_images)) - set(validated)
        if missing:
            raise Wrong(f"The validation parts do not cover all: {_images(missing)} in none of them.")
        sizes = [len(validation) for _, validation in folds]
        if max(sizes) - min(sizes) > 1:
            raise Wrong(f"The folds are unequal, {sizes}: with {num_images} images sizes may differ by one at most.")
        for number, (train, validation) in enumerate(folds, start=1):
            if len(train) + len(validation) < num_images:
                raise Wrong(
                    f"Fold {number} does not use {num_images - len(train) - len(validation)} of {num_images} images: "
                    "all that are not validated train."
                )
        if all(max(validation) - min(validation) == len(validation) - 1 for _, validation in folds):
            raise Wrong("Each fold is a run of neighbours, such as 0, 1, 2, 3: shuffle before you cut.")
    _need_use_of_the_seed(lambda seed: [validation for _, validation in _folds(answer(100, 5, seed=seed), 5)])


def _folds(given: object, k: int) -> list[list[list[int]]]:
    if given is None:
        raise Wrong("It returns None: does the function end with a return?")
    folds = _listed(given)
    if len(folds) != k:
        raise Wrong(f"With k={k} it gives {len(folds)} folds: there must be one for each of the k pieces.")
    pairs = []
    for fold in folds:
        if not isinstance(fold, tuple | list) or len(fold) != 2:
            raise Wrong("Each fold must be a pair of index tensors: (train, validation).")
        pairs.append([_indices(part) for part in fold])
    if any(len(part) == 0 for pair in pairs for part in pair):
        raise Wrong("A fold has an empty part: each needs images to train on and images to validate on.")
    return pairs


@exercise
def channel_statistics(answer: Callable) -> None:
    """uint8 images (N, 3, H, W) -> mean and standard deviation of each channel for values from 0 to 1, (3,) each."""
    for seed, (num_images, height, width) in enumerate(((60, 16, 16), (40, 12, 20))):
        generator = torch.Generator().manual_seed(seed)
        light = torch.rand(num_images, 3, 1, 1, generator=generator) * torch.tensor([100.0, 60, 20]).view(3, 1, 1)
        noise = torch.rand(num_images, 3, height, width, generator=generator)
        images = (light + noise * torch.tensor([120.0, 90, 40]).view(3, 1, 1) + 5).to(torch.uint8)  # no pixel of 255
        given = images.clone()
        figures = answer(given)
        if not torch.equal(given, images):
            raise Wrong("It changes the images that it was given: work on a copy.")
        if figures is None:
            raise Wrong("It returns None: does the function end with a return?")
        if not isinstance(figures, tuple | list) or len(figures) != 2:
            raise Wrong("It must return two tensors: return mean, std")
        mean, std = (torch.as_tensor(figure).detach().cpu().double() for figure in figures)
        _need_statistics(mean, std, images.double() / 255)


def _need_statistics(mean: torch.Tensor, std: torch.Tensor, scaled: torch.Tensor) -> None:
    """Raises `Wrong` unless they are those of images (N, 3, H, W) with values from 0 to 1."""
    right_mean, right_std = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3))  # (3,) each
    if _near(mean, right_std) and _near(std, right_mean):
        raise Wrong("They are swapped: return the mean first, then the standard deviation.")
    for name, figure, right in (("mean", mean, right_mean), ("standard deviation", std, right_std)):
        if figure.shape == (len(scaled), 3):
            raise Wrong(f"The {name} has one row for each image: take it over all images at once.")
        if figure.shape == scaled.shape[1:]:
            raise Wrong(f"The {name} has one value for each pixel: take it over height and width too.")
        if figure.dim() == 0:
            raise Wrong(f"The {name} is one number for all channels together: each channel has its own.")
        if figure.shape != (3,):
            raise Wrong(f"The {name} has shape {tuple(figure.shape)}: it must be (3,), a number for each channel.")
        if figure.isnan().any():
            raise Wrong(f"The {name} is not a number: do squares of uint8 wrap around at 256? Convert to float first.")
        if (figure == 0).all():
            raise Wrong(f"The {name} is all 0: is something still, or again, a whole number of type uint8?")
        if _near(figure, right * 255):
            raise Wrong(f"The {name} is that of values from 0 to 255: scale them to 0..1.")
        if _near(figure, right * 255 / 256):
            raise Wrong(f"The {name} is scaled by 256: the largest value of a uint8, which must become 1, is 255.")
        if _near(figure, right * 255 / (255 * scaled.max())):
            raise Wrong(f"The {name} is scaled by the largest pixel found: divide by 255, whatever the images have.")
    if _near(mean, scaled.mean().expand(3)):
        raise Wrong("The mean is that of all channels together: each channel has its own.")
    if _near(mean, scaled.transpose(0, 1).flatten(1).median(dim=1).values):
        raise Wrong("That is the median of each channel, where the mean is asked for.")
    if _near(mean, (scaled * 255).mean(dim=(0, 2, 3)).floor() / 255):
        raise Wrong("The mean was rounded to a whole number before it was scaled: convert to float first.")
    if not _near(mean, right_mean):
        raise Wrong("The mean is not right: over which of the four dimensions must it be taken?")
    mistakes = {
        "The standard deviation is that of all channels together: each channel has its own.": scaled.std().expand(3),
        "It is the standard deviation of the images' means: take it over all pixels of all images.": (
            scaled.mean(dim=(2, 3)).std(dim=0)
        ),
        "It is the mean of the images' standard deviations: take it over all pixels of all images at once.": (
            scaled.std(dim=(2, 3)).mean(dim=0)
        ),
        "It is the standard deviation of the mean image: take it over all pixels of all images.": (
            scaled.mean(dim=0).flatten(1).std(dim=1)
        ),
        "That is the variance: the standard deviation is its square root.": right_std**2,
        "The variance is divided by 255, but it scales with the square: scale the images first.": right_std * 255**0.5,
        "That is the root of the mean square: take the mean off first.": (scaled**2).mean(dim=(0, 2, 3)).sqrt(),
        "That is the mean distance from the mean, not the standard deviation.": (
            (scaled - right_mean.view(3, 1, 1)).abs().mean(dim=(0, 2, 3))
        ),
    }
    for message, mistaken in mistakes.items():
        if _near(std, mistaken):
            raise Wrong(message)
    if not _near(std, right_std):
        raise Wrong(
            "The standard deviation is not right: is it taken over images, height and width, and from float values? "
            "Squares of uint8 wrap around at 256."
        )


def _near(given: torch.Tensor, expected: torch.Tensor) -> bool:
    return given.shape == expected.shape and torch.allclose(given, expected.to(given.dtype), rtol=1e-3)


# What to look at, for a pipeline that is wrongly called leaky, and for one that is wrongly called clean.
PIPELINES = {
    "A": (True, "the mean and the standard deviation are numbers too: from which images do they come?"),
    "B": (False, "for each step, note which images it has seen: are there any of the fold's validation images?"),
    "C": (True, "what does the frame before a test frame look like, and in which part may it be?"),
    "D": (False, "follow one picture and its mirror image: can they come into different parts?"),
}


@exercise
def leaky(answer: dict) -> None:
    """A dict of letter to True, where something of the validation or test images reaches training, or False."""
    if not isinstance(answer, dict) or set(answer) != set(PIPELINES):
        raise Wrong("It must be a dict with the keys 'A', 'B', 'C' and 'D'.")
    empty = [letter for letter, value in answer.items() if value is None or value is ...]
    if empty:
        raise Unanswered(f"There is no answer yet for {', '.join(sorted(empty))}.")
    for letter, value in answer.items():
        if not isinstance(value, bool | np.bool_):
            raise Wrong(f"{letter} must be True or False, not {value!r}.")
    mistaken = [letter for letter in PIPELINES if bool(answer[letter]) != PIPELINES[letter][0]]
    if mistaken:
        raise Wrong(" ".join(f"Look at {letter} again: {PIPELINES[letter][1]}" for letter in mistaken))


def _parts(given: object, fractions: Sequence[float]) -> list[list[int]]:
    """What an answer returned, as a list of indices for each fraction."""
    if given is None:
        raise Wrong("It returns None: does the function end with a return?")
    parts = _listed(given)
    if len(parts) != len(fractions):
        raise Wrong(f"It gives {len(parts)} parts for {len(fractions)} fractions: there must be one for each.")
    parts = [_indices(part) for part in parts]
    if any(len(part) == 0 for part in parts):
        raise Wrong("A part is empty: each must have its fraction of the images.")
    return parts


def _listed(given: object) -> list:
    try:
        return list(given)
    except TypeError:
        raise Wrong(f"It returns {given!r}, where a list is asked for.") from None


def _indices(part: object) -> list[int]:
    """Indices in a tensor, an array, a list or the like, as a list."""
    try:
        array = np.asarray(part.cpu() if isinstance(part, torch.Tensor) else list(part))
    except TypeError:
        raise Wrong(f"A part is {part!r}, where it must hold the indices of its images.") from None
    if array.dtype == bool:
        raise Wrong("A part is a mask of True and False: return indices, such as mask.nonzero()[:, 0].")
    if array.ndim != 1:
        raise Wrong(f"A part has shape {array.shape}: its indices must stand in one row.")
    if len(array) and not np.issubdtype(array.dtype, np.integer):
        raise Wrong(f"A part holds {array.dtype} numbers: an index is a whole number.")
    return array.tolist()


def _need_indices(indices: Sequence[int], num_images: int) -> None:
    if min(indices) < 0 or max(indices) >= num_images:
        raise Wrong(
            f"There are indices from {min(indices)} to {max(indices)}: those of {num_images} images go from 0 to "
            f"{num_images - 1}."
        )


def _need_a_partition(parts: list[list[int]], num_images: int, question: str = "") -> None:
    question = f" {question[0].upper()}{question[1:]}" if question else ""
    indices = [index for part in parts for index in part]
    _need_indices(indices, num_images)
    for number, part in enumerate(parts, start=1):
        if len(set(part)) < len(part):
            raise Wrong(f"In part {number} an image stands twice: draw without putting back.{question}")
    if len(set(indices)) < len(indices):
        twice = {index for index in indices if indices.count(index) > 1}
        raise Wrong(f"The parts overlap: {_images(twice)} in more than one of them.{question}")
    missing = set(range(num_images)) - set(indices)
    if missing:
        hint = " Does rounding lose some? One part can take what is left." if len(missing) <= 2 * len(parts) else ""
        raise Wrong(f"Images are missing: {_images(missing)} in no part.{hint}")


def _need_sizes(parts: list[list[int]], num_images: int, fractions: Sequence[float], slack: int = 0) -> None:
    """Raises `Wrong` unless each part has its fraction of the images, up to rounding."""
    sizes = [len(part) for part in parts]
    wanted = [fraction * num_images for fraction in fractions]

    def fits(expected: Sequence[float]) -> bool:
        limit = len(parts) + slack
        return all(abs(size - number) < limit for size, number in zip(sizes, expected, strict=True))

    if fits(wanted):
        return
    if fits([num_images / len(parts)] * len(parts)):
        raise Wrong(f"All parts have about {sizes[0]} images: the fractions are not used.")
    if fits(wanted[::-1]) or fits(sorted(wanted)) or fits([*wanted[1:], wanted[0]]):
        raise Wrong(f"The parts, of {sizes} images, are not in the order of the fractions {tuple(fractions)}.")
    of_the_rest, rest = [], num_images
    for fraction in fractions[:-1]:
        of_the_rest.append(fraction * rest)
        rest -= of_the_rest[-1]
    if fits([*of_the_rest, rest]):
        raise Wrong(f"The sizes are {sizes}: each fraction is taken of what the part before left, not of all images.")
    raise Wrong(f"The sizes are {sizes} for the fractions {tuple(fractions)} of {num_images} images.")


def _need_use_of_the_seed(draw: Callable[[int], list[list[int]]]) -> None:
    """Raises `Wrong` unless parts are alike for one seed, differ between seeds, and no global random state changes."""

    def sets(seed: int) -> list[set[int]]:
        return [set(part) for part in draw(seed)]

    first = {seed: sets(seed) for seed in SEEDS}
    second = {seed: sets(seed) for seed in SEEDS}
    if first != second:
        raise Wrong("The same seed gives other parts in a second call: the seed must decide what is drawn.")
    if all(parts == first[0] for parts in first.values()):
        raise Wrong("Every seed gives the same parts: the argument seed is not used.")
    states = {
        "torch's (torch.manual_seed, or drawing without a generator)": lambda: torch.get_rng_state().tolist(),
        "numpy's (np.random.seed, or drawing from np.random)": lambda: [
            np.asarray(part).tolist() for part in np.random.get_state()
        ],
        "Python's (random.seed, or drawing from random)": random.getstate,
    }
    for name, state in states.items():
        torch.manual_seed(10_007)  # the answer's own seed, set just before, would hide that it is set again
        np.random.seed(10_007)
        random.seed(10_007)
        before = state()
        draw(0)
        if state() != before:
            raise Wrong(
                f"It changes the global random state, {name}: all that is drawn later in the notebook then changes "
                "with it. Use a generator of its own."
            )


def _images(indices: set[int]) -> str:
    return "1 image is" if len(indices) == 1 else f"{len(indices)} images are"
