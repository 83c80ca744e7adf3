"""Checks of lesson 1, splitting data."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations

import numpy as np
import torch

from cnnlesson.checks import verdict
from cnnlesson.checks.transplant import near
from cnnlesson.checks.verdict import Wrong, exercise, filled_in, reject, returned

progress = partial(verdict.progress, __name__)


def _split(num_images: int, fractions: Sequence[float], seed: int) -> tuple[torch.Tensor, ...]:
    ends = [round(share * num_images) for share in np.cumsum(fractions)[:-1]]
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(seed)).tensor_split(ends)


OWN_VERSIONS = {"split_indices": _split}

SEEDS = (0, 1, 2, 3)


@exercise
def split_indices(answer: Callable) -> None:
    """(num_images, fractions, seed) -> the indices of each part: every image once, in random order."""
    for num_images, fractions in ((1000, (0.8, 0.1, 0.1)), (103, (0.7, 0.3)), (400, (0.5, 0.25, 0.25))):
        parts = _parts(answer(num_images, fractions, seed=0), fractions)
        _need_a_partition(parts, num_images)
        _need_sizes(parts, num_images, fractions)
        if any(map(_is_run, parts)):
            raise Wrong("A part holds neighbours, such as 0, 1, 2, 3: shuffle before you cut, not afterwards.")
    _need_use_of_the_seed(lambda seed: _parts(answer(1000, (0.8, 0.1, 0.1), seed=seed), (0.8, 0.1, 0.1)))


@exercise
def stratified_split(answer: Callable) -> None:
    """(labels, fractions, seed) -> the indices of each part, with the same class proportions as the whole set."""
    mixed = torch.arange(3).repeat_interleave(torch.tensor([200, 100, 40]))
    mixed = mixed[torch.randperm(len(mixed), generator=torch.Generator().manual_seed(5))]
    by_class = torch.arange(3).repeat_interleave(torch.tensor([10, 300, 30]))
    most = (0.8, 0.1, 0.1)
    for labels, fractions in ((mixed, most), (torch.arange(4).repeat(50), (0.5, 0.5)), (by_class, most)):
        given = labels.clone()
        parts = _parts(answer(given, fractions, seed=0), fractions)
        if not torch.equal(given, labels):
            raise Wrong("It changes the labels that it was given: work on a copy.")
        indices = [index for part in parts for index in part]
        if set(indices) <= set(labels.tolist()):
            raise Wrong("The parts hold labels: they must hold indices, the places of the images in labels.")
        _need_indices(indices, len(labels))
        counts = torch.bincount(labels)
        found = torch.stack([torch.bincount(labels[part], minlength=len(counts)) for part in parts])  # (parts, classes)
        left_out = (found.sum(dim=0) == 0).nonzero()[:, 0].tolist()
        if left_out and len(set(indices)) == len(indices):
            raise Wrong(f"All images of class {left_out[0]} are left out: does the loop reach every class?")
        _need_a_partition(parts, len(labels), hint=" Are places within a class turned back into places in labels?")
        for part, label in (found == 0).nonzero().tolist():
            raise Wrong(f"Class {label} is absent from part {part + 1}: each part needs its fraction of the class.")
        equal = (found == found[:, :1]).all(dim=1).nonzero()[:, 0].tolist()
        if equal and len(counts.unique()) > 1:
            size = found[equal[0], 0]
            raise Wrong(f"Part {equal[0] + 1} has {size} images of each class: take the same fraction of each class.")
        _need_sizes(parts, len(labels), fractions, slack=len(counts))
        expected = torch.tensor(fractions)[:, None] * counts
        for part, label in ((found - expected).abs() > 2).nonzero().tolist():
            count = f"{found[part, label]} images of class {label}, not {expected[part, label]:.0f}"
            raise Wrong(f"It is not stratified: part {part + 1} has {count}. Divide each class separately.")
        for label in range(len(counts)):
            places = (labels == label).nonzero()[:, 0].tolist()
            first = set(parts[0]) & set(places)
            is_certain = math.comb(len(places), len(first)) > 10**9  # a shuffled part could be a run by chance
            if is_certain and first in (set(places[: len(first)]), set(places[-len(first) :])):
                raise Wrong(f"The first part holds neighbours of class {label}: shuffle the images of each class.")
    _need_use_of_the_seed(lambda seed: _parts(answer(mixed.clone(), most, seed=seed), most))


@exercise
def k_fold_indices(answer: Callable) -> None:
    """(num_images, k, seed) -> k pairs (training indices, validation indices)."""
    for num_images, k in ((100, 5), (103, 4), (60, 2)):
        folds = _folds(answer(num_images, k, seed=0), k)
        trained = sorted(index for train, _ in folds for index in train)
        if k > 2 and trained == list(range(num_images)) and len(folds[0][0]) < len(folds[0][1]):
            raise Wrong("Training and validation are swapped: each pair is (train, validation), and most images train.")
        validations = [validation for _, validation in folds]
        _need_a_partition(validations, num_images, "validation parts", " Cut one shuffled order into k pieces.")
        for number, fold in enumerate(folds, start=1):
            _need_a_partition(fold, num_images, f"training and validation parts of fold {number}")
        sizes = [len(validation) for validation in validations]
        if max(sizes) - min(sizes) > 1:
            raise Wrong(f"The sizes of the folds, {sizes}, are unequal: they may differ by one at most.")
        if all(map(_is_run, validations)):
            raise Wrong("Each fold holds neighbours, such as 0, 1, 2, 3: shuffle before you cut.")
    _need_use_of_the_seed(lambda seed: [validation for _, validation in _folds(answer(100, 5, seed=seed), 5)])


def _folds(given: object, k: int) -> list[list[list[int]]]:
    folds = [_listed(fold, 2, "parts in each fold, (train, validation)") for fold in _listed(given, k, "folds")]
    return [[_indices(part) for part in fold] for fold in folds]


@exercise
def channel_statistics(answer: Callable) -> None:
    """uint8 images (N, 3, H, W) -> mean and standard deviation per channel, (3,) each, of values from 0 to 1."""
    for seed, (num_images, height, width) in enumerate(((60, 16, 16), (40, 12, 20))):
        generator = torch.Generator().manual_seed(seed)
        light = torch.rand(num_images, 3, 1, 1, generator=generator) * torch.tensor([100.0, 60, 20]).view(3, 1, 1)
        noise = torch.rand(num_images, 3, height, width, generator=generator)
        images = (light + noise * torch.tensor([120.0, 90, 40]).view(3, 1, 1) + 5).to(torch.uint8)  # no pixel of 255
        given = images.clone()
        figures = answer(given)
        if not torch.equal(given, images):
            raise Wrong("It changes the images that it was given: work on a copy.")
        if not isinstance(returned(figures), tuple | list) or len(figures) != 2:
            raise Wrong("It must return two tensors: return mean, std")
        mean, std = (torch.as_tensor(figure).detach().cpu().double() for figure in figures)
        _need_statistics(mean, std, images.double() / 255)


def _need_statistics(mean: torch.Tensor, std: torch.Tensor, scaled: torch.Tensor) -> None:
    """Raise `Wrong` unless they are those of images (N, 3, H, W) with values from 0 to 1."""
    right_mean, right_std = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3))  # (3,) each
    if near(mean, right_std) and near(std, right_mean):
        raise Wrong("They are swapped: return the mean first, then the standard deviation.")
    shapes = {
        (len(scaled), 3): "has one row per image: take it over all images together",
        tuple(scaled.shape[1:]): "has one value per pixel: take it over height and width too",
        (): "is one number for all channels together: each channel has its own",
    }
    for name, figure, take in (("mean", mean, torch.mean), ("standard deviation", std, torch.std)):
        right = take(scaled, dim=(0, 2, 3))  # (3,)
        shape = tuple(figure.shape)
        if shape != (3,):
            problem = shapes.get(shape, f"has shape {shape}: it must be (3,), one number per channel")
            raise Wrong(f"The {name} {problem}.")
        if figure.isnan().any():
            raise Wrong(f"The {name} is not a number: do squares of uint8 wrap around at 256? Convert to float first.")
        if (figure == 0).all():
            raise Wrong(f"The {name} is all 0: is it computed from uint8, or converted back to it?")
        mistakes = {
            f"The {name} is that of values from 0 to 255: scale them to 0..1.": right * 255,
            f"The {name} is scaled by 256: the largest value of a uint8 is 255.": right * 255 / 256,
            f"The {name} is scaled by the largest pixel found: always divide by 255.": right / scaled.max(),
            f"The {name} is that of all channels together: each channel has its own.": take(scaled).expand(3),
        }
        reject(figure, mistakes, near)
    if not near(mean, right_mean):
        raise Wrong("The mean is not right: over which of the four dimensions must it be taken?")
    mistakes = {
        "It is the standard deviation of the images' means: take it over all pixels.": scaled.mean((2, 3)).std(0),
        "It is the mean of the images' standard deviations: take it over all pixels.": scaled.std((2, 3)).mean(0),
        "It is the standard deviation of the mean image: take it over all images.": scaled.mean(0).std((1, 2)),
        "That is the variance: the standard deviation is its square root.": right_std**2,
        "That is the root of the mean square: subtract the mean first.": (scaled**2).mean((0, 2, 3)).sqrt(),
    }
    if not near(std, right_std):
        reject(std, mistakes, near)
        raise Wrong("The standard deviation is not right: do squares of uint8 wrap around at 256? Scale first.")


# Whether something leaks, and a hint for students who answer otherwise.
PIPELINES = {
    "A": (True, "the mean and the standard deviation are numbers too. From which images do they come?"),
    "B": (False, "for each step, note which images it has seen. Are there validation images of the fold among them?"),
    "C": (True, "what does the frame before a test frame look like, and in which part may it be?"),
    "D": (False, "follow one picture and its mirror image. Can they end up in different parts?"),
}


@exercise
def leaky(answer: dict) -> None:
    """A dict of letter to bool: whether information from validation or test images reaches training."""
    for letter, value in filled_in(answer, PIPELINES).items():
        if not isinstance(value, bool | np.bool_):
            raise Wrong(f"{letter} must be True or False, not {value!r}.")
    mistaken = [letter for letter in PIPELINES if bool(answer[letter]) != PIPELINES[letter][0]]
    if mistaken:
        raise Wrong(" ".join(f"Look at {letter} again: {PIPELINES[letter][1]}" for letter in mistaken))


def _parts(given: object, fractions: Sequence[float]) -> list[list[int]]:
    """The result of an answer as lists of indices, one for each fraction."""
    return [_indices(part) for part in _listed(given, len(fractions), "parts, one per fraction")]


def _listed(given: object, length: int, what: str) -> list:
    try:
        items = list(returned(given))
    except TypeError:
        raise Wrong(f"Expected {length} {what}, got {given!r}, which is not a list.") from None
    if len(items) != length:
        raise Wrong(f"Expected {length} {what}, got {len(items)}.")
    return items


def _indices(part: object) -> list[int]:
    """Indices in a tensor, an array or another sequence, as a list."""
    try:
        array = np.asarray(part.cpu() if isinstance(part, torch.Tensor) else list(part))
    except TypeError:
        raise Wrong(f"A part is {part!r}: it must hold the indices of its images.") from None
    if array.size == 0:
        raise Wrong("A part is empty: each must hold images.")
    if array.dtype == bool:
        raise Wrong("A part is a mask of True and False: return indices, such as mask.nonzero()[:, 0].")
    if array.ndim != 1:
        raise Wrong(f"A part has shape {array.shape}: its indices must be in one dimension.")
    if not np.issubdtype(array.dtype, np.integer):
        raise Wrong(f"A part holds {array.dtype} numbers: an index is an integer.")
    return array.tolist()


def _is_run(indices: list[int]) -> bool:
    return max(indices) - min(indices) == len(indices) - 1


def _need_indices(indices: Sequence[int], num_images: int) -> None:
    if min(indices) < 0 or max(indices) >= num_images:
        found = f"{min(indices)} to {max(indices)}"
        raise Wrong(f"The indices range from {found}: for {num_images} images they range from 0 to {num_images - 1}.")


def _need_a_partition(parts: list[list[int]], num_images: int, name: str = "parts", hint: str = "") -> None:
    """Raise `Wrong` unless every image is in exactly one part. The hint is for an image in two of them."""
    indices = [index for part in parts for index in part]
    _need_indices(indices, num_images)
    if any(len(set(part)) < len(part) for part in parts):
        raise Wrong(f"One of the {name} holds an image twice: draw without replacement.{hint}")
    twice = sum(count > 1 for count in Counter(indices).values())
    if twice:
        raise Wrong(f"The {name} overlap: {_images(twice)} in more than one of them.{hint}")
    missing = num_images - len(indices)
    if missing:
        hint = " Does rounding lose some? One part can take the rest." if missing <= 2 * len(parts) else ""
        raise Wrong(f"Images are missing: {_images(missing)} in none of the {name}.{hint}")


def _need_sizes(parts: list[list[int]], num_images: int, fractions: Sequence[float], slack: int = 0) -> None:
    """Raise `Wrong` unless each part has its fraction of the images, up to rounding."""
    sizes = [len(part) for part in parts]
    expected = [fraction * num_images for fraction in fractions]
    of_the_rest, rest = [], num_images
    for fraction in fractions[:-1]:
        of_the_rest.append(fraction * rest)
        rest -= of_the_rest[-1]

    def fits(expected: Sequence[float]) -> bool:
        return all(abs(size - number) < len(parts) + slack for size, number in zip(sizes, expected, strict=True))

    if fits(expected):
        return
    if fits([num_images / len(parts)] * len(parts)):
        raise Wrong(f"All parts have about {sizes[0]} images: the fractions are not used.")
    if any(map(fits, permutations(expected))):
        raise Wrong(f"The parts, of {sizes} images, are not in the order of the fractions {tuple(fractions)}.")
    if fits([*of_the_rest, rest]):
        raise Wrong(f"The sizes are {sizes}: each fraction is taken of the images that remain, not of all images.")
    raise Wrong(f"The sizes are {sizes} for the fractions {tuple(fractions)} of {num_images} images.")


def _need_use_of_the_seed(draw: Callable[[int], list[list[int]]]) -> None:
    """Raise `Wrong` unless the seed, and nothing else, determines the parts, and no global random state changes."""
    first, again = ([[set(part) for part in draw(seed)] for seed in SEEDS] for _ in range(2))
    if again != first:
        raise Wrong("Two calls with the same seed return different parts: let the seed determine them.")
    if all(parts == first[0] for parts in first):
        raise Wrong("Every seed yields the same parts: the argument seed is not used.")
    torch.manual_seed(10_007)  # otherwise a state that the answer has set before would not change again
    np.random.seed(10_007)
    random.seed(10_007)
    states = {
        "torch's (torch.manual_seed, or drawing without a generator)": lambda: torch.get_rng_state().tolist(),
        "numpy's (np.random.seed, or drawing from np.random)": lambda: np.random.get_state()[1].tolist(),
        "Python's (random.seed, or drawing from random)": random.getstate,
    }
    before = {name: state() for name, state in states.items()}
    draw(0)
    for name, state in states.items():
        if state() != before[name]:
            raise Wrong(f"It changes the global random state, {name}: use a generator of its own.")


def _images(number: int) -> str:
    return "1 image is" if number == 1 else f"{number} images are"
