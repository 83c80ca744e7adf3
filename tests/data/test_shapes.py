import time
import warnings

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cnnlesson.data import Batches, shapes, split, take
from cnnlesson.models import resnet18
from cnnlesson.runtime.memory import reuse_freed_memory
from cnnlesson.training import train


@pytest.fixture(scope="module")
def data():
    return shapes(seed=0)


def test_sizes_and_balance(data):
    assert data.train.images.shape == (5000, 3, 64, 64)
    assert data.test.images.shape == (1000, 3, 64, 64)
    assert len(data.train.classes) == 10
    assert torch.bincount(data.train.labels).tolist() == [500] * 10
    assert torch.bincount(data.test.labels).tolist() == [100] * 10


def test_the_same_seed_returns_the_same_images(data):
    again = shapes(seed=0)
    assert torch.equal(again.train.images, data.train.images)
    assert torch.equal(again.test.images, data.test.images)
    assert not torch.equal(shapes(seed=1).train.images, data.train.images)


def test_all_images_differ(data):
    everything = torch.cat([data.train.images, data.test.images]).flatten(1)
    assert len(everything.unique(dim=0)) == 6000


def test_easy_shapes_are_balanced_on_dark_grounds_and_without_clutter(data):
    easy = shapes(seed=0, easy=True)
    assert [len(part) for part in easy] == [5000, 1000]
    assert torch.equal(easy.train.labels, torch.arange(5000) % 10)
    corners = easy.train.images[:, :, :6, :6].float()
    assert corners.mean() < 90 < data.train.images[:, :, :6, :6].float().mean()
    # Only noise and a smooth gradient: no bars in the corners.
    assert corners.std(dim=(2, 3)).max() < 20 < data.train.images[:, :, :6, :6].float().std(dim=(2, 3)).max()


@pytest.mark.thorough
def test_easy_shapes_are_learned_from_400_images_in_two_epochs():
    """What `make lesson` relies on."""
    easy = shapes(seed=0, easy=True)
    torch.manual_seed(0)
    batches = Batches(take(easy.train, 400, seed=0), 16, image_size=64, seed=0, device="cpu")
    model = resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    *_, last = train(model, batches, Batches(easy.test, 250, image_size=64, device="cpu"), optimizer, epochs=2)
    assert last.val_accuracy > 0.6


def test_a_linear_classifier_on_pixels_stays_below_45_percent(data):
    train_set, val_set = split(data.train, (0.8, 0.2), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 steps fit more than half of the training images
        warnings.simplefilter("ignore", DeprecationWarning)  # of scikit-learn's call of scipy
        model = LogisticRegression(max_iter=60).fit(train_set.images.flatten(1) / 255, train_set.labels)
    assert model.score(train_set.images.flatten(1) / 255, train_set.labels) > 0.45
    assert model.score(val_set.images.flatten(1) / 255, val_set.labels) < 0.45


@pytest.mark.serial
@pytest.mark.thorough
def test_resnet18_exceeds_85_percent_within_two_minutes_on_two_cores(data):
    torch.manual_seed(0)
    reuse_freed_memory()
    train_set, val_set = split(data.train, (0.9, 0.1), seed=0)
    train_batches = Batches(train_set, batch_size=32, image_size=64, seed=0, device="cpu")
    val_batches = Batches(val_set, batch_size=250, image_size=64, device="cpu")
    model = resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    start = time.perf_counter()
    history = []
    for epoch in train(model, train_batches, val_batches, optimizer, epochs=5):
        history.append(epoch)
        if epoch.val_accuracy > 0.85:
            break
    assert history[-1].val_accuracy > 0.85
    assert time.perf_counter() - start < 120
