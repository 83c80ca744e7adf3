"""Answers to lesson 1 as students write them."""

import random
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold, train_test_split

from cnnlesson.checks import data_splitting as check

# Orders of n images, right and wrong.


def generator(seed):
    return torch.Generator().manual_seed(seed)


def shuffled(n, seed):
    return torch.randperm(n, generator=generator(seed))


def sorted_order(n, seed):
    return torch.arange(n)


def unseeded(n, seed):
    return torch.randperm(n)


def fixed_seed(n, seed):
    return shuffled(n, 42)


def with_replacement(n, seed):
    return torch.randint(n, (n,), generator=generator(seed))


def torch_global(n, seed):
    torch.manual_seed(seed)
    return torch.randperm(n)


def numpy_global(n, seed):
    np.random.seed(seed)
    return np.random.permutation(n)


def python_global(n, seed):
    random.seed(seed)
    return random.sample(range(n), n)


# split_indices


def sizes_of(n, fractions):
    sizes = [round(fraction * n) for fraction in fractions[:-1]]
    return [*sizes, n - sum(sizes)]


def split(order=shuffled, change=lambda parts: parts, fractions_used=lambda fractions: fractions):
    """A student's split_indices that cuts an order, with a mistake if an option asks for one."""

    def answer(num_images, fractions, seed):
        sizes = sizes_of(num_images, fractions_used(fractions))
        return change(torch.as_tensor(order(num_images, seed)).split(sizes))

    return answer


def numpy_split(num_images, fractions, seed):
    order = np.random.default_rng(seed).permutation(num_images)
    return np.split(order, (np.cumsum(fractions[:-1]) * num_images).astype(int))


def python_split(num_images, fractions, seed):
    order = list(range(num_images))
    random.Random(seed).shuffle(order)
    parts = [sorted(part.tolist()) for part in torch.tensor(order).split(sizes_of(num_images, fractions))]
    return dict(enumerate(parts)).values()


def torch_random_split(num_images, fractions, seed):
    parts = torch.utils.data.random_split(range(num_images), list(fractions), generator(seed))
    return [part.indices for part in parts]


def overlapping_split(num_images, fractions, seed):
    draw = generator(seed)
    return [torch.randperm(num_images, generator=draw)[: round(f * num_images)] for f in fractions]


def loses_one(num_images, fractions, seed):
    sizes = sizes_of(num_images, fractions)
    return shuffled(num_images, seed)[:-1].split([sizes[0] - 1, *sizes[1:]])


def split_of_the_rest(num_images, fractions, seed):
    order, parts = shuffled(num_images, seed), []
    for fraction in fractions[:-1]:
        size = round(fraction * len(order))
        parts.append(order[:size])
        order = order[size:]
    return [*parts, order]


def as_masks(parts):
    return [torch.isin(torch.arange(sum(map(len, parts))), part) for part in parts]


def shuffle_inside(parts):
    return [part[shuffled(len(part), seed=0)] for part in parts]


# stratified_split


def by_class(divide=None, change=lambda parts, labels: parts):
    """A student's stratified_split that divides each class, with a mistake if an option asks for one."""

    def answer(labels, fractions, seed):
        parts = [[] for _ in fractions]
        for label in labels.unique():
            places = (labels == label).nonzero()[:, 0]
            for part, chosen in zip(parts, (divide or split())(len(places), fractions, seed), strict=True):
                part.append(places[chosen])
        return change([torch.cat(part) for part in parts], labels)

    return answer


def sklearn_stratified(labels, fractions, seed):
    rest, parts = np.arange(len(labels)), []
    for fraction in fractions[:-1]:
        size = round(fraction * len(labels))
        part, rest = train_test_split(rest, train_size=size, random_state=seed, stratify=labels[rest])
        parts.append(part)
    return [*parts, rest]


def stratified_by_dealing(labels, fractions, seed):
    """Shuffle, and give each image of a class a place from 0 to 1, which the fractions cut."""
    order = shuffled(len(labels), seed)
    place = torch.empty(len(order))
    for label in labels.unique():
        is_in_class = labels[order] == label
        place[is_in_class] = (torch.arange(int(is_in_class.sum())) + 0.5) / is_in_class.sum()
    part = torch.searchsorted(torch.tensor(fractions).cumsum(0), place.clamp(max=0.999))
    return [order[part == number].tolist() for number in range(len(fractions))]


def places_not_turned_back(labels, fractions, seed):
    splits = [split()(int(count), fractions, seed) for count in torch.bincount(labels)]
    return [torch.cat(parts) for parts in zip(*splits, strict=True)]


def equal_numbers(labels, fractions, seed):
    """The same number of images of each class in every part but the first."""
    size = round(min(fractions) * int(torch.bincount(labels).min()))

    def divide(count, fractions, seed):
        others = [size] * (len(fractions) - 1)
        return shuffled(count, seed).split([count - sum(others), *others])

    return by_class(divide)(labels, fractions, seed)


def without_last_class(labels, fractions, seed):
    kept = (labels < labels.max()).nonzero()[:, 0]
    return [kept[part] for part in by_class()(labels[kept], fractions, seed)]


def move_rare_class_to_training(parts, labels):
    counts = torch.bincount(labels)
    if counts.min() == counts.max():
        return parts
    train, *others = parts
    moved = [part[labels[part] == counts.argmin()] for part in others]
    return [torch.cat([train, *moved]), *(part[labels[part] != counts.argmin()] for part in others)]


def forgets_the_remainder(num_images, fractions, seed):
    sizes = [int(fraction * num_images) - 1 for fraction in fractions]
    return shuffled(num_images, seed)[: sum(sizes)].split(sizes)


def change_labels(parts, labels):
    labels[labels == 1] = 0
    return parts


# k_fold_indices


def folds_of(pieces):
    return [
        (torch.cat([piece for other, piece in enumerate(pieces) if other != number]), validation)
        for number, validation in enumerate(pieces)
    ]


def k_fold(order=shuffled, change=lambda train, validation: (train, validation)):
    """A student's k_fold_indices that cuts an order, with a mistake if an option asks for one."""

    def answer(num_images, k, seed):
        folds = folds_of(torch.as_tensor(order(num_images, seed)).tensor_split(k))
        return [change(train, validation) for train, validation in folds]

    return answer


def sklearn_k_fold(num_images, k, seed):
    return list(KFold(k, shuffle=True, random_state=seed).split(np.zeros(num_images)))


def strided_k_fold(num_images, k, seed):
    order = np.random.default_rng(seed).permutation(num_images).tolist()
    return [[sorted(set(order) - set(order[number::k])), order[number::k]] for number in range(k)]


def yielding_k_fold(num_images, k, seed):
    yield from k_fold()(num_images, k, seed)


def k_fold_with_rest_in_the_last(num_images, k, seed):
    size = num_images // k
    return folds_of(shuffled(num_images, seed).split([size] * (k - 1) + [num_images - size * (k - 1)]))


def k_fold_without_rest(num_images, k, seed):
    return folds_of(shuffled(num_images, seed)[: num_images // k * k].chunk(k))


def k_random_splits(num_images, k, seed):
    orders = [shuffled(num_images, 100 * seed + number) for number in range(k)]
    return [(order[num_images // k :], order[: num_images // k]) for order in orders]


# channel_statistics


def scaled(images):
    return images.double() / 255


def statistics(mean=lambda x: x.mean((0, 2, 3)), std=lambda x: x.std((0, 2, 3)), scale=scaled):
    """A student's channel_statistics of the scaled images, with a mistake if an option asks for one."""
    return lambda images: (mean(scale(images)), std(scale(images)))


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
    figures = statistics()(images)
    images.zero_()
    return figures


def leaks(a=True, b=False, c=True, d=False):
    return {"A": a, "B": b, "C": c, "D": d}


RIGHT = {
    "split_indices": [split(), numpy_split, python_split, torch_random_split],
    "stratified_split": [by_class(), sklearn_stratified, stratified_by_dealing],
    "k_fold_indices": [k_fold(), sklearn_k_fold, strided_k_fold, yielding_k_fold],
    "channel_statistics": [statistics(), numpy_statistics, statistics_by_sums, statistics_channel_by_channel],
    "leaky": [leaks(), {"D": np.bool_(False), "C": np.bool_(True), "B": False, "A": True}],
}

# (wrong answer, the mistake that the message must name)
WRONG = {
    "split_indices": [
        (split(sorted_order), "shuffle before you cut"),
        (split(sorted_order, shuffle_inside), "shuffle before you cut"),
        (overlapping_split, "parts overlap"),
        (split(with_replacement), "holds an image twice"),
        (split(change=lambda parts: [part[:-10] for part in parts]), "Images are missing"),
        (loses_one, "rounding lose some"),
        (split(fixed_seed), "Every seed yields the same"),
        (split(unseeded), "return different parts"),
        (split(fractions_used=lambda fractions: [1 / len(fractions)] * len(fractions)), "are not used"),
        (split(fractions_used=lambda fractions: fractions[::-1]), "not in the order"),
        (split(fractions_used=lambda fractions: (0.6, 0.4, 0)[: len(fractions)]), "empty"),
        (split(fractions_used=lambda fractions: (0.6, 0.2, 0.2)[: len(fractions)]), "The sizes are"),
        (split_of_the_rest, "of the images that remain"),
        (split(torch_global), "global random state, torch's"),
        (split(numpy_global), "global random state, numpy's"),
        (split(python_global), "global random state, Python's"),
        (split(change=as_masks), "mask of True and False"),
        (split(change=lambda parts: [part + 1 for part in parts]), "range from 0"),
        (lambda num_images, fractions, seed: sizes_of(num_images, fractions), "must hold the indices"),
        (split(change=lambda parts: [part.float() for part in parts]), "an index is an integer"),
        (split(change=lambda parts: parts[:1]), "Expected 3 parts, one per fraction, got 1."),
        (split(change=lambda parts: None), "return"),
    ],
    "stratified_split": [
        (lambda labels, fractions, seed: split()(len(labels), fractions, seed), "not stratified"),
        (places_not_turned_back, "turned back into places in labels"),
        (equal_numbers, "has 4 images of each class"),
        (without_last_class, "All images of class 2 are left out"),
        (by_class(change=move_rare_class_to_training), "absent from part 2"),
        (by_class(forgets_the_remainder), "Images are missing"),
        (by_class(change=change_labels), "changes the labels"),
        (by_class(split(sorted_order)), "shuffle the images of each class"),
        (by_class(overlapping_split), "parts overlap"),
        (by_class(split(fixed_seed)), "Every seed yields the same"),
        (by_class(split(unseeded)), "return different parts"),
        (by_class(split(torch_global)), "torch's"),
        (by_class(split(numpy_global)), "numpy's"),
        (by_class(split(fractions_used=lambda fractions: fractions[::-1])), "not in the order"),
        (by_class(change=lambda parts, labels: [labels[part] for part in parts]), "hold labels"),
        (by_class(change=lambda parts, labels: None), "return"),
    ],
    "k_fold_indices": [
        (lambda num_images, k, seed: num_images // k, "Expected 5 folds, got 20, which is not a list."),
        (k_random_splits, "The validation parts overlap"),
        (
            k_fold(change=lambda train, val: (torch.cat([train, val]), val)),
            "training and validation parts of fold 1",
        ),
        (k_fold(change=lambda train, val: (val, train)), "swapped"),
        (k_fold_with_rest_in_the_last, "unequal"),
        (k_fold_without_rest, "3 images are in none of the validation parts"),
        (
            k_fold(change=lambda train, val: (train[:5], val)),
            "75 images are in none of the training and",
        ),
        (
            k_fold(change=lambda train, val: (train[:-1], val)),
            "1 image is in none of the training and",
        ),
        (k_fold(sorted_order), "shuffle before you cut"),
        (lambda n, k, seed: folds_of([torch.arange(start, n, k) for start in range(k)]), "Every seed"),
        (k_fold(fixed_seed), "Every seed yields the same"),
        (k_fold(unseeded), "return different parts"),
        (k_fold(torch_global), "global random state, torch's"),
        (k_fold(change=lambda train, val: val), "2 parts in each fold, (train, validation), got 20"),
        (lambda num_images, k, seed: k_fold()(num_images, k, seed)[:1], "Expected 5 folds, got 1."),
        (k_fold(change=lambda train, val: (train + 1, val + 1)), "range from 0"),
        (lambda num_images, k, seed: None, "return"),
    ],
    "channel_statistics": [
        (statistics(scale=torch.Tensor.double), "0 to 255"),
        (statistics(scale=lambda images: images.double() / 256), "scaled by 256"),
        (statistics(scale=lambda images: images.double() / images.max()), "largest pixel found"),
        (statistics(torch.mean, torch.std), "one number for all channels"),
        (statistics(lambda x: x.mean().expand(3), lambda x: x.std().expand(3)), "all channels together"),
        (statistics(std=lambda x: x.std().expand(3)), "standard deviation is that of all channels together"),
        (statistics(std=lambda x: x.mean((2, 3)).std(0)), "images' means"),
        (statistics(std=lambda x: x.std((2, 3)).mean(0)), "images' standard deviations"),
        (statistics(std=lambda x: x.mean(0).flatten(1).std(1)), "mean image"),
        (statistics(std=lambda x: x.var((0, 2, 3))), "variance"),
        (statistics(lambda x: x.mean((2, 3)), lambda x: x.std((2, 3))), "one row per image"),
        (statistics(lambda x: x.mean(0), lambda x: x.std(0)), "one value per pixel"),
        (statistics(lambda x: x.mean((0, 2, 3), keepdim=True)), "must be (3,)"),
        (wrapped_squares, "wrap around at 256"),
        (wrapped_differences, "wrap around at 256"),
        (lambda images: [(figure * 0).to(torch.uint8) for figure in statistics()(images)], "converted back to it"),
        (lambda images: statistics()(images)[::-1], "swapped"),
        (statistics(scale=lambda images: images), "could not infer output dtype"),
        (lambda images: statistics()(images)[0], "return mean, std"),
        (statistics(std=lambda x: (x**2).mean((0, 2, 3)).sqrt()), "subtract the mean"),
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


@pytest.mark.parametrize("order", [torch_global, numpy_global, python_global])
def test_the_check_restores_the_random_states(order):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    check.split_indices(split(order))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]


def test_a_right_stratified_split_is_never_wrong_by_chance():
    """A class of ten images has eight in the first part: those are neighbours in one of 22 shuffles."""

    def shuffled_by(offset):
        def answer(labels, fractions, seed):
            generator = torch.Generator().manual_seed(seed + offset)
            parts = [[] for _ in fractions]
            for label in labels.unique():
                places = (labels == label).nonzero()[:, 0]
                places = places[torch.randperm(len(places), generator=generator)]
                ends = [round(sum(fractions[:number]) * len(places)) for number in range(1, len(fractions))]
                for part, chunk in zip(parts, places.tensor_split(ends), strict=True):
                    part.append(chunk)
            return [torch.cat(part) for part in parts]

        return answer

    assert all(check.stratified_split(shuffled_by(1000 * number)).right for number in range(60))
