"""Copies of training images in another set are found; different images are not."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.io import decode_image, encode_jpeg

from cnnlesson.data import ImageSet, find_leaks


def random_pictures(num_images: int, seed: int, size: int = 64) -> ImageSet:
    """Images of smooth random colours, all different."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_images, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1).mul(200).add(20)
    return as_set(images)


def detailed_pictures(num_images: int, seed: int, size: int = 64) -> ImageSet:
    """Images with edges and texture like photographs: a detail of half the size has two thirds of the contrast."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((num_images, 3, size, size), 120.0)
    for octave in range(5):
        coarse = torch.randn(num_images, 3, 4 * 2**octave, 4 * 2**octave, generator=generator)
        images += 40 * (2 / 3) ** octave * F.interpolate(coarse, size=size, mode="bilinear")
    return as_set(images)


def as_set(images: torch.Tensor) -> ImageSet:
    return ImageSet(images.clamp(0, 255).to(torch.uint8), torch.zeros(len(images), dtype=torch.int64), ("picture",))


def pairs(leaks) -> set[tuple[int, int]]:
    return set(zip(leaks["train_index"], leaks["other_index"], strict=True))


def shifted(images: torch.Tensor, right: int, down: int) -> torch.Tensor:
    padded = F.pad(images.float(), (5, 5, 5, 5), mode="replicate")
    return padded[:, :, 5 - down : 5 - down + images.shape[2], 5 - right : 5 - right + images.shape[3]]


CHANGES = {
    "lighter": lambda images: images + 30.0,
    "darker": lambda images: images * 0.6,
    "more contrast": lambda images: (images - 100.0) * 1.3 + 100,
    "compressed again": lambda images: torch.stack([decode_image(encode_jpeg(image, quality=60)) for image in images]),
    "shifted to the right": lambda images: shifted(images, 1, 0),
    "shifted down and to the left": lambda images: shifted(images, -2, 2),
    "mirrored": lambda images: images.flip(3),
    "mirrored, lighter and shifted": lambda images: shifted(images.flip(3) * 1.1, 1, 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_near(change):
    train, other = random_pictures(300, seed=0), random_pictures(100, seed=1)
    images = other.images.clone()
    images[40:60] = change(train.images[200:220]).clamp(0, 255).to(torch.uint8)
    leaks = find_leaks(train, as_set(images))
    assert pairs(leaks) == {(200 + k, 40 + k) for k in range(20)}
    assert set(leaks["kind"]) == {"near"}


@pytest.mark.parametrize("right, down", [(1, 1), (2, 0), (2, -2), (-3, 3), (3, -1), (0, 4), (4, 4), (-4, -4)])
def test_copies_that_are_shifted_by_up_to_four_pixels_are_near(right, down):
    train, other = detailed_pictures(300, seed=0), detailed_pictures(100, seed=1)
    copies = as_set(shifted(train.images[200:], right, down))
    assert pairs(find_leaks(train, copies)) == {(200 + k, k) for k in range(100)}
    assert find_leaks(train, other).empty


@pytest.mark.parametrize("size, shift", [(32, 1), (32, 2), (48, 3), (96, 5)])
def test_a_shift_is_relative_to_the_size_of_the_images(size, shift):
    train = detailed_pictures(100, seed=0, size=size)
    mirrored = as_set(shifted(train.images.flip(3), shift, -shift))
    assert pairs(find_leaks(train, mirrored)) == {(k, k) for k in range(100)}


def test_copies_are_exact_and_come_first():
    train, other = random_pictures(700, seed=0), random_pictures(600, seed=1)
    images = other.images.clone()
    images[550] = train.images[3]
    images[7] = train.images[650]
    images[9] = train.images[5].float().mul(0.9).to(torch.uint8)
    leaks = find_leaks(train, as_set(images))
    assert list(leaks.columns) == ["train_index", "other_index", "kind", "distance"]
    assert list(leaks["kind"]) == ["exact", "exact", "near"]
    assert pairs(leaks) == {(3, 550), (650, 7), (5, 9)}
    assert list(leaks["distance"][:2]) == [0, 0] and 0 < leaks["distance"][2] < 0.1


@pytest.mark.parametrize("size", [32, 48, 64])
def test_different_images_are_not_reported(size):
    leaks = find_leaks(random_pictures(400, seed=0, size=size), random_pictures(200, seed=1, size=size))
    assert len(leaks) == 0 and list(leaks.columns) == ["train_index", "other_index", "kind", "distance"]


def test_images_of_a_uniform_colour_are_near_and_of_the_same_colour_exact():
    grey = torch.full((2, 3, 32, 32), 90.0)
    leaks = find_leaks(as_set(grey), as_set(grey[:1]))
    assert pairs(leaks) == {(0, 0), (1, 0)} and set(leaks["kind"]) == {"exact"}
    assert set(find_leaks(as_set(grey), as_set(grey[:1] + 5))["kind"]) == {"near"}


def test_a_symmetrical_picture_is_one_pair():
    half = random_pictures(5, seed=0).images
    symmetrical = as_set(torch.cat([half, half.flip(3)], dim=3))
    assert pairs(find_leaks(symmetrical, symmetrical)) == {(k, k) for k in range(5)}


def test_pictures_that_differ_only_in_their_details_are_not_reported():
    """Their thumbnails are alike, so they are compared again."""
    generator = torch.Generator().manual_seed(0)
    coarse = F.interpolate(torch.randn(10, 3, 4, 4, generator=generator), size=64, mode="bicubic")
    sets = []
    for _ in range(2):
        details = F.interpolate(torch.randn(10, 3, 16, 16, generator=generator), size=64)
        sets.append(as_set(120 + 40 * coarse + 20 * details))
    assert find_leaks(*sets).empty


@pytest.mark.parametrize("sizes", [(32, 64), (64, 32)])
def test_sets_of_different_sizes_are_an_error(sizes):
    message = rf"images of the same size, got ImageSet\(2 images of {sizes[0]}×.* {sizes[1]}×"
    with pytest.raises(ValueError, match=message):
        find_leaks(*(random_pictures(2, seed=0, size=size) for size in sizes))
