import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from cnnlesson.data import Batches, ImageSet
from cnnlesson.data.batches import CHANNEL_MEAN, CHANNEL_STD, random_flip, random_shift, watch_batches


def test_batches_equal_torchvisions_transforms(image_set):
    transform = v2.Compose(
        [v2.Resize((40, 40)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(CHANNEL_MEAN, CHANNEL_STD)]
    )
    batches = Batches(image_set, batch_size=8, image_size=40, device="cpu")
    images = torch.cat([images for images, _ in batches])
    assert images.shape == (30, 3, 40, 40)
    torch.testing.assert_close(images, transform(image_set.images), atol=0.02, rtol=0)  # a step of uint8 is 0.017


def test_without_a_seed_the_images_keep_their_order_and_the_last_batch_is_smaller(image_set):
    batches = Batches(image_set, batch_size=8, image_size=16, device="cpu")
    assert len(batches) == 4
    parts = list(batches)
    assert [len(labels) for _, labels in parts] == [8, 8, 8, 6]
    assert torch.equal(torch.cat([labels for _, labels in parts]), image_set.labels)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in parts)


def test_with_a_seed_every_pass_yields_each_image_once_in_a_reproducible_order(image_set):
    def epochs(seed: int) -> list[torch.Tensor]:
        batches = Batches(image_set, batch_size=8, image_size=16, seed=seed, device="cpu")
        passes = []
        for epoch in range(2):
            batches.set_epoch(epoch)
            passes.append(torch.cat([images for images, _ in batches]))
        return passes

    first, second = epochs(seed=0)
    assert not torch.equal(first, second)
    assert sorted(first.sum((1, 2, 3)).tolist()) == pytest.approx(sorted(second.sum((1, 2, 3)).tolist()))
    assert torch.equal(first, epochs(seed=0)[0])
    assert not torch.equal(first, epochs(seed=1)[0])


def test_order_flips_and_shifts_follow_from_seed_and_epoch_only(image_set):
    batches = Batches(image_set, batch_size=30, image_size=16, seed=0, augment=True, device="cpu")

    def images_of(epoch: int) -> torch.Tensor:
        batches.set_epoch(epoch)
        return next(iter(batches))[0]

    default = next(iter(batches))[0]
    assert torch.equal(next(iter(batches))[0], default)  # a second pass without set_epoch is the same
    later = images_of(epoch=2)
    assert not torch.equal(later, default)
    assert torch.equal(images_of(epoch=0), default)
    assert torch.equal(images_of(epoch=2), later)


def test_watchers_see_every_batch_and_may_end_a_pass_in_any_order_of_their_contexts(image_set):
    batches = Batches(image_set, batch_size=8, image_size=16, device="cpu")
    seen = []
    first, second = (
        watch_batches(lambda _, number, name=name: seen.append((name, number)) or number < 2) for name in "ab"
    )
    first.__enter__()
    second.__enter__()
    assert len(list(batches)) == 2
    assert seen == [("b", 0), ("a", 0), ("b", 1), ("a", 1), ("b", 2)]
    first.__exit__(None, None, None)
    seen.clear()
    assert len(list(batches)) == 2
    assert seen == [("b", 0), ("b", 1), ("b", 2)]
    second.__exit__(None, None, None)
    assert len(list(batches)) == 4
    with watch_batches(lambda _, number: seen.append(number) or True):
        list(batches)
    assert seen[3:] == [0, 1, 2, 3, 4]


def test_labels_stay_with_their_images(image_set):
    for images, labels in Batches(image_set, batch_size=7, image_size=24, seed=0, augment=True, device="cpu"):
        assert torch.equal(images.mean(dim=(2, 3)).argmax(dim=1), labels)  # each class is brightest in its own channel


def test_flip_mirrors_only_the_chosen_images():
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    flipped = random_flip(images, torch.tensor([True, False, True, False]))
    assert torch.equal(flipped[[0, 2]], v2.functional.horizontal_flip(images[[0, 2]]))
    assert torch.equal(flipped[[1, 3]], images[[1, 3]])


def test_shift_equals_torchvisions_pad_and_crop():
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    shifts = torch.tensor([[2, 2], [0, 3], [4, 1]])
    shifted = random_shift(images, shifts, margin=2)
    padded = v2.functional.pad(images, [2, 2, 2, 2], padding_mode="reflect")
    for number, (top, left) in enumerate(shifts.tolist()):
        assert torch.equal(shifted[number], v2.functional.crop(padded[number], top, left, 8, 8))
    assert torch.equal(shifted[0], images[0])


def test_augmentation_changes_the_images_and_not_the_set(image_set):
    before = image_set.images.clone()
    plain = next(iter(Batches(image_set, batch_size=30, image_size=16, seed=0, device="cpu")))[0]
    augmented = next(iter(Batches(image_set, batch_size=30, image_size=16, seed=0, augment=True, device="cpu")))[0]
    changed = (plain != augmented).flatten(1).any(dim=1)
    assert changed.float().mean() > 0.8
    assert torch.equal(image_set.images, before)


@pytest.mark.parametrize("batch_size", [0, -1, 31])
def test_an_impossible_batch_size_is_refused(image_set, batch_size):
    with pytest.raises(ValueError, match=rf"from 1 to the number of images in the set \(30\), got {batch_size}"):
        Batches(image_set, batch_size=batch_size, image_size=16)


def test_augmentation_without_a_seed_is_refused(image_set):
    with pytest.raises(ValueError, match=r"augment=True needs a seed, .* pass one, such as seed=0"):
        Batches(image_set, batch_size=8, image_size=16, augment=True)


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "unknown device 'gpu': use 'cpu', 'cuda'"), ("cuda:99", "'cuda:99' is not there")]
)
def test_a_missing_device_is_refused(image_set, device, message):
    with pytest.raises(ValueError, match=message):
        Batches(image_set, batch_size=8, image_size=16, device=device)


def test_the_device_is_the_cpu_if_there_is_no_gpu(monkeypatch, image_set):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Batches(image_set, batch_size=8, image_size=16).device == torch.device("cpu")


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_images_that_fill_less_than_half_of_the_free_memory_move_to_the_device(monkeypatch, image_set, spare):
    moved = []
    monkeypatch.setattr(ImageSet, "to", lambda self, device: moved.append(device) or self)
    monkeypatch.setattr("cnnlesson.data.batches.free_bytes", lambda device: 2 * image_set.images.nbytes + spare)
    Batches(image_set, batch_size=8, image_size=16, device="cpu")
    assert moved == ([torch.device("cpu")] if spare > 0 else [])


def test_grey_images_become_grey_batches():
    grey = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    images, _ = next(iter(Batches(ImageSet(grey, torch.tensor([0, 0]), ("grey",)), 2, image_size=8, device="cpu")))
    for channel in range(3):
        expected = (128 / 255 - CHANNEL_MEAN[channel]) / CHANNEL_STD[channel]
        torch.testing.assert_close(images[:, channel], torch.full((2, 8, 8), expected))


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1]), (1, 1, [1]), (5, 5, [5]), (3, 2, [3])],
)
def test_a_single_last_image_joins_the_batch_before_it(image_set, num_images, batch_size, sizes):
    batches = Batches(image_set[torch.arange(num_images)], batch_size, 16, seed=0, augment=True, device="cpu")
    assert len(batches) == len(sizes)
    assert [len(images) for images, _ in batches] == sizes
    assert sorted(torch.cat([labels for _, labels in batches])) == sorted(image_set.labels[:num_images])


def test_batch_norm_can_train_on_the_last_batch(image_set):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3))
    batches = Batches(image_set, batch_size=29, image_size=16, seed=0, device="cpu")
    for images, _ in batches:
        model(images)


def test_the_channel_statistics_are_those_of_torchvisions_recipe():
    recipe = ResNet18_Weights.DEFAULT.transforms()
    assert (list(CHANNEL_MEAN), list(CHANNEL_STD)) == (recipe.mean, recipe.std)


def test_half_of_the_images_are_flipped_and_all_shifts_up_to_an_eighth_occur(monkeypatch):
    images = torch.zeros(3000, 3, 16, 16, dtype=torch.uint8)
    image_set = ImageSet(images, torch.zeros(3000, dtype=torch.int64), ("a",))
    flips, shifts, margins = [], [], set()

    def record_flips(images, given):
        flips.append(given)
        return images

    def record_shifts(images, given, margin):
        shifts.append(given)
        margins.add(margin)
        return images

    monkeypatch.setattr("cnnlesson.data.batches.random_flip", record_flips)
    monkeypatch.setattr("cnnlesson.data.batches.random_shift", record_shifts)
    list(Batches(image_set, 500, 16, seed=0, augment=True, device="cpu"))
    assert torch.cat(flips).float().mean().item() == pytest.approx(0.5, abs=0.04)  # four standard deviations
    assert margins == {2}
    counts = torch.stack([torch.bincount(column, minlength=5) for column in torch.cat(shifts).T])  # (2, 5)
    assert counts.shape == (2, 5)
    assert (counts / 3000 - 1 / 5).abs().max() < 0.03  # four standard deviations


def test_each_seed_and_epoch_has_an_order_of_its_own(image_set):
    orders = set()
    for seed in range(5):
        batches = Batches(image_set, 30, 16, seed=seed, device="cpu")
        for epoch in range(6):
            batches.set_epoch(epoch)
            ((images, _),) = batches
            orders.add(tuple(images.mean(dim=(1, 2, 3)).tolist()))
    assert len(orders) == 30
