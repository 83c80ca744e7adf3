from itertools import chain

import pytest
import torch

from cnnlesson.data import ImageSet, k_folds, split, take


@pytest.fixture
def numbered() -> ImageSet:
    """600 images that contain their own number, in classes of 100, 200 and 300."""
    labels = torch.tensor([0] * 100 + [1] * 200 + [2] * 300)
    numbers = torch.arange(600)
    images = torch.stack([numbers // 256, numbers % 256, torch.zeros_like(numbers)], dim=1).to(torch.uint8)
    return ImageSet(images[:, :, None, None], labels, ("a", "b", "c"))


def numbers(image_set: ImageSet) -> list[int]:
    high, low, _ = image_set.images[:, :, 0, 0].long().unbind(dim=1)
    return (256 * high + low).tolist()


def test_every_image_is_in_exactly_one_part(numbered):
    parts = split(numbered, (0.7, 0.2, 0.1), seed=0)
    assert [len(part) for part in parts] == [420, 120, 60]
    assert sorted(chain.from_iterable(map(numbers, parts))) == list(range(600))


def test_labels_stay_with_their_images(numbered):
    for part in split(numbered, (0.7, 0.3), seed=0):
        assert part.labels.tolist() == [int(numbered.labels[number]) for number in numbers(part)]


def test_parts_have_the_proportions_of_classes_of_the_whole(numbered):
    for part, size in zip(split(numbered, (0.7, 0.2, 0.1), seed=0), (420, 120, 60), strict=True):
        assert torch.bincount(part.labels).tolist() == [size // 6, size // 3, size // 2]


def test_the_seed_determines_the_split(numbered):
    first, _ = split(numbered, (0.5, 0.5), seed=0)
    again, _ = split(numbered, (0.5, 0.5), seed=0)
    other, _ = split(numbered, (0.5, 0.5), seed=1)
    assert numbers(first) == numbers(again) != numbers(other)


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (0.7, 0.7), (1.2, -0.2), (1, 0), ()])
def test_fractions_that_do_not_add_up_are_an_error(numbered, fractions):
    with pytest.raises(ValueError, match="must be positive and add up to 1"):
        split(numbered, fractions, seed=0)


def test_a_class_with_too_few_images_is_named(numbered):
    few = numbered[torch.tensor([0, 200, 201, 400, 401])]
    with pytest.raises(ValueError, match="class 'a' must have at least one image for each of the 2 parts, got 1"):
        split(few, (0.5, 0.5), seed=0)
    with pytest.raises(ValueError, match="class 'a' must have at least one image for each of the 3 parts, got 1"):
        next(k_folds(few, 3, seed=0))


def test_a_part_smaller_than_the_number_of_classes_is_an_error(numbered):
    with pytest.raises(ValueError, match="600 images of 3 classes are too few to split"):
        split(numbered, (0.998, 0.002), seed=0)


def test_each_image_is_in_one_validation_fold(numbered):
    folds = list(k_folds(numbered, 5, seed=0))
    assert sorted(chain.from_iterable(numbers(validation) for _, validation in folds)) == list(range(600))
    for training, validation in folds:
        assert sorted(numbers(training) + numbers(validation)) == list(range(600))
        assert torch.bincount(validation.labels).tolist() == [20, 40, 60]


@pytest.mark.parametrize("k", [1, 0, 601])
def test_k_out_of_range_is_an_error(numbered, k):
    with pytest.raises(ValueError, match="k must be from 2"):
        next(k_folds(numbered, k, seed=0))


def test_take_is_stratified_and_determined_by_the_seed(numbered):
    part = take(numbered, 60, seed=0)
    assert torch.bincount(part.labels).tolist() == [10, 20, 30]
    assert numbers(part) == numbers(take(numbered, 60, seed=0)) != numbers(take(numbered, 60, seed=1))


def test_taking_all_images_or_more_returns_the_set_itself(numbered):
    assert take(numbered, 600, seed=0) is take(numbered, 1000, seed=0) is numbered


@pytest.mark.parametrize("num_images", [596, 597, 598, 599])
def test_take_can_leave_out_fewer_images_than_there_are_classes(numbered, num_images):
    part = take(numbered, num_images, seed=0)
    assert len(set(numbers(part))) == num_images
    left_out = torch.bincount(numbered.labels) - torch.bincount(part.labels)
    assert left_out.min() >= 0 and left_out.sum() == 600 - num_images
    assert numbers(part) == numbers(take(numbered, num_images, seed=0)) != numbers(take(numbered, num_images, seed=1))


def test_take_needs_as_many_images_as_there_are_classes(numbered):
    assert len(take(numbered, 3, seed=0)) == 3
    with pytest.raises(ValueError, match="num_images must be at least the number of classes, 3, got 2"):
        take(numbered, 2, seed=0)
