"""Answers to lesson 1 as students write them."""

import random
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold, train_test_split

from cnnlesson.checks import data_splitting as check


def generator(seed):
    return torch.Generator().manual_seed(seed)


def sizes_of(num_images, fractions):
    sizes = [round(fraction * num_images) for fraction in fractions[:-1]]
    return [*sizes, num_images - sum(sizes)]


def cut(order, fractions):
    return torch.as_tensor(order).split(sizes_of(len(order), fractions))


def randperm_split(num_images, fractions, seed):
    return cut(torch.randperm(num_images, generator=generator(seed)), fractions)


def numpy_split(num_images, fractions, seed):
    order = np.random.default_rng(seed).permutation(num_images)
    return np.split(order, (np.cumsum(fractions[:-1]) * num_images).astype(int))


def python_split(num_images, fractions, seed):
    order = list(range(num_images))
    random.Random(seed).shuffle(order)
    parts = [sorted(part.tolist()) for part in cut(order, fractions)]
    return dict(enumerate(parts)).values()


def torch_random_split(num_images, fractions, seed):
    parts = torch.utils.data.random_split(range(num_images), list(fractions), generator(seed))
    return [part.indices for part in parts]


def global_seed_split(num_images, fractions, seed):
    torch.manual_seed(seed)
    return cut(torch.randperm(num_images), fractions)


def numpy_global_split(num_images, fractions, seed):
    np.random.seed(seed)
    return cut(np.random.permutation(num_images), fractions)


def python_global_split(num_images, fractions, seed):
    random.seed(seed)
    return cut(random.sample(range(num_images), num_images), fractions)


def overlapping_split(num_images, fractions, seed):
    draw = generator(seed)
    return [torch.randperm(num_images, generator=draw)[: round(f * num_images)] for f in fractions]


def with_replacement(num_images, fractions, seed):
    return cut(torch.randint(num_images, (num_images,), generator=generator(seed)), fractions)


def split_of_the_rest(num_images, fractions, seed):
    order, parts = torch.randperm(num_images, generator=generator(seed)), []
    for fraction in fractions[:-1]:
        size = round(fraction * len(order))
        parts.append(order[:size])
        order = order[size:]
    return [*parts, order]


def masks(num_images, fractions, seed):
    parts = randperm_split(num_images, fractions, seed)
    return [torch.isin(torch.arange(num_images), part) for part in parts]


def shuffled_inside(num_images, fractions, seed):
    draw = generator(seed)
    return [part[torch.randperm(len(part), generator=draw)] for part in cut(torch.arange(num_images), fractions)]


def by_class(labels, fractions, seed, divide=randperm_split):
    parts = [[] for _ in fractions]
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        for part, chosen in zip(parts, divide(len(places), fractions, seed), strict=True):
            part.append(places[chosen])
    return [torch.cat(part) for part in parts]


def sklearn_stratified(labels, fractions, seed):
    rest, parts = np.arange(len(labels)), []
    for fraction in fractions[:-1]:
        size = round(fraction * len(labels))
        part, rest = train_test_split(rest, train_size=size, random_state=seed, stratify=labels[rest])
        parts.append(part)
    return [*parts, rest]


def stratified_by_dealing(labels, fractions, seed):
    """Shuffle, sort by class, and deal the images out in the proportions of the fractions."""
    order = torch.randperm(len(labels), generator=generator(seed))
    order = order[labels[order].argsort(stable=True)]
    ends = torch.tensor(fractions).cumsum(0)
    place = (torch.arange(len(order)) + 0.5) * 0.61803398875 % 1
    for label in labels.unique():
        mine = labels[order] == label
        place[mine] = (torch.arange(int(mine.sum())) + 0.5) / mine.sum()
    part = torch.searchsorted(ends, place.clamp(max=0.999))
    return [order[part == number].tolist() for number in range(len(fractions))]


def plain_split(labels, fractions, seed):
    return randperm_split(len(labels), fractions, seed)


def places_not_turned_back(labels, fractions, seed):
    parts = [[] for _ in fractions]
    for count in torch.bincount(labels):
        for part, chosen in zip(parts, randperm_split(int(count), fractions, seed), strict=True):
            part.append(chosen)
    return [torch.cat(part) for part in parts]


def equal_numbers(labels, fractions, seed):
    """As many images of each class in every part but the first."""
    size = round(min(fractions) * int(torch.bincount(labels).min()))
    parts = [[] for _ in fractions]
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        places = places[torch.randperm(len(places), generator=generator(seed))]
        sizes = [len(places) - size * (len(fractions) - 1), *[size] * (len(fractions) - 1)]
        for part, chosen in zip(parts, places.split(sizes), strict=True):
            part.append(chosen)
    return [torch.cat(part) for part in parts]


def without_last_class(labels, fractions, seed):
    kept = (labels < labels.max()).nonzero()[:, 0]
    return [kept[part] for part in by_class(labels[kept], fractions, seed)]


def absent_class(labels, fractions, seed):
    """Rare classes train only."""
    train, *others = by_class(labels, fractions, seed)
    rare = int(torch.bincount(labels).argmin())
    if torch.bincount(labels).min() == torch.bincount(labels).max():
        return [train, *others]
    moved = [part[labels[part] == rare] for part in others]
    return [torch.cat([train, *moved]), *(part[labels[part] != rare] for part in others)]


def forgets_the_remainder(labels, fractions, seed):
    def divide(count, fractions, seed):
        order = torch.randperm(count, generator=generator(seed))
        sizes = [int(fraction * count) - 1 for fraction in fractions]
        return order[: sum(sizes)].split(sizes)

    return by_class(labels, fractions, seed, divide)


def changes_labels(labels, fractions, seed):
    parts = by_class(labels, fractions, seed)
    labels[labels == 1] = 0
    return parts


def folds_of(pieces):
    return [
        (torch.cat([piece for other, piece in enumerate(pieces) if other != number]), validation)
        for number, validation in enumerate(pieces)
    ]


def k_fold(num_images, k, seed):
    return folds_of(torch.randperm(num_images, generator=generator(seed)).tensor_split(k))


def sklearn_k_fold(num_images, k, seed):
    return list(KFold(k, shuffle=True, random_state=seed).split(np.zeros(num_images)))


def strided_k_fold(num_images, k, seed):
    order = np.random.default_rng(seed).permutation(num_images).tolist()
    return [[sorted(set(order) - set(order[number::k])), order[number::k]] for number in range(k)]


def yielding_k_fold(num_images, k, seed):
    yield from k_fold(num_images, k, seed)


def k_fold_with_rest_in_the_last(num_images, k, seed):
    size = num_images // k
    sizes = [size] * (k - 1) + [num_images - size * (k - 1)]
    return folds_of(torch.randperm(num_images, generator=generator(seed)).split(sizes))


def k_fold_without_rest(num_images, k, seed):
    order = torch.randperm(num_images, generator=generator(seed))
    return folds_of(order[: num_images // k * k].chunk(k))


def k_random_splits(num_images, k, seed):
    draw, folds = generator(seed), []
    for _ in range(k):
        order = torch.randperm(num_images, generator=draw)
        folds.append((order[num_images // k :], order[: num_images // k]))
    return folds


def global_k_fold(num_images, k, seed):
    torch.manual_seed(seed)
    return folds_of(torch.randperm(num_images).tensor_split(k))


def random_k_fold(num_images, k, seed):
    return folds_of(torch.randperm(num_images).tensor_split(k))


def seedless_k_fold(num_images, k, seed):
    return k_fold(num_images, k, 42)


def train_is_one_piece(num_images, k, seed):
    pieces = torch.randperm(num_images, generator=generator(seed)).tensor_split(k)
    return [(pieces[(number + 1) % k][:5], pieces[number]) for number in range(k)]


def train_lacks_a_piece(num_images, k, seed):
    return [(train[:-1], validation) for train, validation in k_fold(num_images, k, seed)]


def scaled(images):
    return images.double() / 255


def over_channels(images):
    return scaled(images).mean((0, 2, 3)), scaled(images).std((0, 2, 3))


def numpy_statistics(images):
    array = images.numpy() / 255
    return torch.tensor(array.mean(axis=(0, 2, 3))), torch.tensor(array.std(axis=(0, 2, 3)))


def statistics_by_sums(images):
    pixels = images.float().div(255).transpose(0, 1).flatten(1)
    mean = pixels.sum(dim=1) / pixels.shape[1]
    return [mean, ((pixels**2).sum(dim=1) / pixels.shape[1] - mean**2).sqrt()]


def statistics_channel_by_channel(images):
    channels = [images[:, number].float() / 255 for number in range(3)]
    return torch.stack([c.mean() for c in channels]), torch.stack([c.std() for c in channels])


def wrapped_squares(images):
    mean = scaled(images).mean((0, 2, 3))
    return mean, ((images * images).double().mean((0, 2, 3)) / 255**2 - mean**2).sqrt()


def wrapped_differences(images):
    mean = scaled(images).mean((0, 2, 3))
    difference = images - (mean * 255).to(torch.uint8).view(3, 1, 1)
    return mean, (difference.double() / 255).pow(2).mean((0, 2, 3)).sqrt()


def changes_images(images):
    figures = over_channels(images)
    images.zero_()
    return figures


def leaks(a=True, b=False, c=True, d=False):
    return {"A": a, "B": b, "C": c, "D": d}


RIGHT = {
    "split_indices": [randperm_split, numpy_split, python_split, torch_random_split],
    "stratified_split": [by_class, sklearn_stratified, stratified_by_dealing],
    "k_fold_indices": [k_fold, sklearn_k_fold, strided_k_fold, yielding_k_fold],
    "channel_statistics": [over_channels, numpy_statistics, statistics_by_sums, statistics_channel_by_channel],
    "leaky": [leaks(), {"D": np.bool_(False), "C": np.bool_(True), "B": False, "A": True}],
}

# (wrong answer, the mistake that the message must name)
WRONG = {
    "split_indices": [
        (lambda n, fractions, seed: cut(torch.arange(n), fractions), "shuffle before you cut"),
        (shuffled_inside, "shuffle before you cut"),
        (overlapping_split, "parts overlap"),
        (with_replacement, "holds an image twice"),
        (lambda n, fractions, seed: [part[:-10] for part in randperm_split(n, fractions, seed)], "Images are missing"),
        (
            lambda n, fractions, seed: torch.randperm(n, generator=generator(seed))[:-1].split(
                [size - (place == 0) for place, size in enumerate(sizes_of(n, fractions))]
            ),
            "rounding lose some",
        ),
        (lambda n, fractions, seed: randperm_split(n, fractions, 0), "Every seed yields the same"),
        (lambda n, fractions, seed: cut(torch.randperm(n), fractions), "return different parts"),
        (lambda n, fractions, seed: randperm_split(n, [1 / len(fractions)] * len(fractions), seed), "are not used"),
        (lambda n, fractions, seed: randperm_split(n, fractions[::-1], seed), "not in the order"),
        (lambda n, fractions, seed: randperm_split(n, (0.6, 0.4, 0)[: len(fractions)], seed), "empty"),
        (lambda n, fractions, seed: randperm_split(n, (0.6, 0.2, 0.2)[: len(fractions)], seed), "The sizes are"),
        (split_of_the_rest, "of the images that remain"),
        (global_seed_split, "global random state, torch's"),
        (numpy_global_split, "global random state, numpy's"),
        (python_global_split, "global random state, Python's"),
        (masks, "mask of True and False"),
        (lambda n, fractions, seed: [part + 1 for part in randperm_split(n, fractions, seed)], "range from 0"),
        (lambda n, fractions, seed: sizes_of(n, fractions), "must hold the indices"),
        (
            lambda n, fractions, seed: [part.float() for part in randperm_split(n, fractions, seed)],
            "an index is an integer",
        ),
        (lambda n, fractions, seed: randperm_split(n, fractions, seed)[:1], "1 parts for 3 fractions"),
        (lambda n, fractions, seed: None, "return"),
    ],
    "stratified_split": [
        (plain_split, "not stratified"),
        (places_not_turned_back, "turned back into places in labels"),
        (equal_numbers, "has 4 images of each class"),
        (without_last_class, "All images of class 2 are left out"),
        (absent_class, "absent from part 2"),
        (forgets_the_remainder, "Images are missing"),
        (changes_labels, "changes the labels"),
        (
            lambda labels, fractions, seed: by_class(
                labels, fractions, seed, lambda n, fractions, seed: cut(torch.arange(n), fractions)
            ),
            "shuffle the images of each class",
        ),
        (lambda labels, fractions, seed: by_class(labels, fractions, seed, overlapping_split), "parts overlap"),
        (lambda labels, fractions, seed: by_class(labels, fractions, 0), "Every seed yields the same"),
        (
            lambda labels, fractions, seed: by_class(
                labels, fractions, seed, lambda n, fractions, seed: cut(torch.randperm(n), fractions)
            ),
            "return different parts",
        ),
        (lambda labels, fractions, seed: by_class(labels, fractions, seed, global_seed_split), "torch's"),
        (lambda labels, fractions, seed: by_class(labels, fractions, seed, numpy_global_split), "numpy's"),
        (lambda labels, fractions, seed: by_class(labels, fractions[::-1], seed), "not in the order"),
        (lambda labels, fractions, seed: [labels[p] for p in by_class(labels, fractions, seed)], "hold labels"),
        (lambda labels, fractions, seed: None, "return"),
    ],
    "k_fold_indices": [
        (lambda n, k, seed: n // k, "return a list"),
        (k_random_splits, "The validation parts overlap"),
        (
            lambda n, k, seed: [(torch.arange(n), validation) for _, validation in k_fold(n, k, seed)],
            "training and validation parts of fold 1 overlap",
        ),
        (lambda n, k, seed: [fold[::-1] for fold in k_fold(n, k, seed)], "swapped"),
        (k_fold_with_rest_in_the_last, "unequal"),
        (k_fold_without_rest, "3 images are in none of the validation parts"),
        (train_is_one_piece, "75 images are in none of the training and validation parts of fold 1"),
        (train_lacks_a_piece, "1 image is in none of the training and validation parts of fold 1"),
        (lambda n, k, seed: folds_of(torch.arange(n).tensor_split(k)), "shuffle before you cut"),
        (lambda n, k, seed: folds_of([torch.arange(j, n, k) for j in range(k)]), "Every seed"),
        (seedless_k_fold, "Every seed yields the same"),
        (random_k_fold, "return different parts"),
        (global_k_fold, "global random state, torch's"),
        (lambda n, k, seed: [validation for _, validation in k_fold(n, k, seed)], "pair of index tensors"),
        (lambda n, k, seed: k_fold(n, k, seed)[:1], "one for each of the k pieces"),
        (lambda n, k, seed: [(t + 1, v + 1) for t, v in k_fold(n, k, seed)], "range from 0"),
        (lambda n, k, seed: None, "return"),
    ],
    "channel_statistics": [
        (lambda images: (images.double().mean((0, 2, 3)), images.double().std((0, 2, 3))), "0 to 255"),
        (lambda images: tuple(figure * 255 / 256 for figure in over_channels(images)), "scaled by 256"),
        (lambda images: tuple(f * 255 / images.max() for f in over_channels(images)), "largest pixel found"),
        (lambda images: (scaled(images).mean(), scaled(images).std()), "one number for all channels"),
        (
            lambda images: (scaled(images).mean().expand(3), scaled(images).std().expand(3)),
            "all channels together",
        ),
        (
            lambda images: (over_channels(images)[0], scaled(images).std().expand(3)),
            "standard deviation is that of all channels together",
        ),
        (lambda images: (over_channels(images)[0], scaled(images).mean((2, 3)).std(0)), "images' means"),
        (lambda images: (over_channels(images)[0], scaled(images).std((2, 3)).mean(0)), "images' standard deviations"),
        (lambda images: (over_channels(images)[0], scaled(images).mean(0).flatten(1).std(1)), "mean image"),
        (lambda images: (over_channels(images)[0], scaled(images).var((0, 2, 3))), "variance"),
        (lambda images: (scaled(images).mean((2, 3)), scaled(images).std((2, 3))), "one row per image"),
        (lambda images: (scaled(images).mean(0), scaled(images).std(0)), "one value per pixel"),
        (
            lambda images: (scaled(images).mean((0, 2, 3), keepdim=True), over_channels(images)[1]),
            "must be (3,)",
        ),
        (wrapped_squares, "wrap around at 256"),
        (wrapped_differences, "wrap around at 256"),
        (lambda images: [(f * 0).to(torch.uint8) for f in over_channels(images)], "converted back to it"),
        (lambda images: over_channels(images)[::-1], "swapped"),
        (lambda images: (images.mean((0, 2, 3)), 0), "RuntimeError"),
        (lambda images: over_channels(images)[0], "return mean, std"),
        (
            lambda images: (over_channels(images)[0], (scaled(images) ** 2).mean((0, 2, 3)).sqrt()),
            "subtract the mean first",
        ),
        (changes_images, "changes the images"),
        (lambda images: None, "return"),
    ],
    "leaky": [
        (leaks(a=False), "Look at A again"),
        (leaks(b=True), "Look at B again"),
        (leaks(c=False), "Look at C again"),
        (leaks(d=True), "Look at D again"),
        (leaks(b=True, d=True), "Look at B again"),
        (leaks(a=False, c=False), "Look at C again"),
        (leaks(b="no"), "True or False"),
        (leaks(a=1), "True or False"),
        (["A", "C"], "dict with the keys"),
        ({"a": True, "b": False, "c": True, "d": False}, "dict with the keys"),
    ],
}


def test_one_set_of_pipelines_is_right():
    right = [values for values in product((True, False), repeat=4) if check.leaky(leaks(*values)).right]
    assert right == [(True, False, True, False)]


def test_a_pipeline_without_an_answer_is_unanswered():
    verdict = check.leaky(leaks(c=None))
    assert verdict.status == "unanswered" and "C" in verdict.message


@pytest.mark.parametrize("answer", [global_seed_split, numpy_global_split, python_global_split])
def test_the_check_gives_the_random_states_back(answer):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    check.split_indices(answer)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]
