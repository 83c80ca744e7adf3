"""What differs on a GPU: on a real one if this machine has it, and on a pretended T4 (float16) and A100 (bfloat16)."""

import functools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from pretend_gpu import pretend_gpu
from torch import nn

from cnnlesson.anatomy import layer_table, receptive_field
from cnnlesson.data import Batches, ImageSet, find_leaks, shapes, split, take
from cnnlesson.experiments.depth import Network, train_network
from cnnlesson.experiments.trial import run
from cnnlesson.models import AlexNet, TwoTowerAlexNet, cifar_resnet, insert_identity_blocks, resnet18, resnet50
from cnnlesson.plots import plot_confusion, plot_feature_maps, plot_filters, plot_images, plot_most_wrong
from cnnlesson.runtime.device import describe, training_dtype
from cnnlesson.search import GridSearch
from cnnlesson.signals import activation_sizes, gradient_norms, residual_sizes
from cnnlesson.training import evaluate, predict, train

IS_REAL = torch.cuda.is_available()
CUDA = torch.device("cuda", 0)
NETWORKS = {  # with the size of their images
    "alexnet": (functools.partial(AlexNet, 10, dropout=0.5), 227),
    "two towers": (functools.partial(TwoTowerAlexNet, 10), 227),
    "resnet18": (functools.partial(resnet18, 10), 64),
    "resnet50": (functools.partial(resnet50, 10), 64),
    "resnet-8": (functools.partial(cifar_resnet, 8, 10), 32),
    "plain-8": (functools.partial(cifar_resnet, 8, 10, residual=False), 32),
}


@pytest.fixture(params=["real", "T4", "A100"])
def gpu(request) -> Iterator[SimpleNamespace]:
    """The GPU: its name, and after a test on a pretended one its `syncs`."""
    if request.param == "real" and not IS_REAL:
        pytest.skip("this machine has no CUDA GPU")
    with nullcontext(SimpleNamespace(name="real")) if request.param == "real" else pretend_gpu(request.param) as gpu:
        yield gpu


@pytest.fixture(scope="module")
def images() -> tuple[ImageSet, ImageSet]:
    few = take(shapes(seed=0).train, 20, seed=0)
    return few[torch.arange(12)], few[torch.arange(12, 20)]


class Unsynchronised:
    """Batches after the first of which the CPU must not wait for the GPU."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        try:
            for number, batch in enumerate(self.batches):
                yield batch
                if number == 0:
                    torch.cuda.set_sync_debug_mode("error")
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_and_the_cpu_never_waits_within_the_loop(gpu, images, name):
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    train_batches = Batches(images[0], 4, size, seed=0, augment=True)
    val_batches = Batches(images[1], 4, size)
    assert train_batches.image_set.images.is_cuda
    model = build().to(train_batches.device)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
    # In float16 resnet50 skips seven steps here, until the scaler has found its scale.
    epochs = 4 if name == "resnet50" else 1
    for epoch in train(model, Unsynchronised(train_batches), Unsynchronised(val_batches), optimizer, epochs):
        assert not epoch.diverged
        assert math.isfinite(epoch.val_loss)
    assert all(parameter.is_cuda and parameter.isfinite().all() for parameter in model.parameters())
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.skipif(not IS_REAL, reason="this machine has no CUDA GPU")
def test_resnet18_learns():
    torch.manual_seed(0)
    train_set, val_set = split(shapes(seed=0).train, (0.9, 0.1), seed=0)
    train_batches, val_batches = Batches(train_set, 32, 64, seed=0, augment=True), Batches(val_set, 250, 64)
    model = resnet18(num_classes=10).to(train_batches.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    assert list(train(model, train_batches, val_batches, optimizer, epochs=5))[-1].val_accuracy > 0.85


def test_images_that_do_not_fit_are_copied_batch_by_batch(images):
    with pretend_gpu("T4", free=1000):
        batches = Batches(images[0], 8, 64, seed=0, augment=True)
        assert not batches.image_set.images.is_cuda
        assert all(images.is_cuda and labels.is_cuda for images, labels in batches)


def test_evaluation_and_predictions_agree_with_the_cpu(gpu, images):
    torch.manual_seed(0)
    model = cifar_resnet(8, 10)
    here = Batches(images[1], 8, 32, device="cpu")
    there = Batches(images[1], 8, 32)
    expected, predicted = evaluate(model, here), predict(model, here)
    model.to("cuda")
    score, predictions = evaluate(model, there), predict(model, there)
    assert score.loss == pytest.approx(expected.loss, rel=2e-2)
    torch.testing.assert_close(predictions.probabilities, predicted.probabilities, atol=2e-2, rtol=0)
    assert not predictions.labels.is_cuda
    plot_confusion(predictions.labels, predictions.probabilities.argmax(1), images[1].classes)
    plot_most_wrong(images[1], *predictions)


def test_a_checkpoint_moves_between_devices_and_types(images, tmp_path):
    losses = []
    for epochs, place in enumerate((nullcontext, lambda: pretend_gpu("T4"), lambda: pretend_gpu("A100"), nullcontext)):
        with place():
            torch.manual_seed(0)
            batches = Batches(images[0], 8, 32, seed=0)
            model = cifar_resnet(8, 10).to(batches.device)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
            done = list(train(model, batches, batches, optimizer, epochs + 1, checkpoint=tmp_path / "state.pt"))
            assert [epoch.train_loss for epoch in done[:-1]] == losses
            losses.append(done[-1].train_loss)
    assert losses == sorted(losses, reverse=True)


def test_running_out_of_memory_names_what_to_lower(images):
    memory = {"free": 2**30, "memory": 16_000_000}  # of a pretended GPU, in bytes
    with nullcontext() if IS_REAL else pretend_gpu("T4", **memory):
        batches = Batches(shapes(seed=0).train, 5000, image_size=128) if IS_REAL else Batches(images[0], 12, 128)
        model = resnet18(num_classes=10, small_images=True).to(batches.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
        with pytest.raises(torch.OutOfMemoryError, match=r"on cuda:0 with a batch of .*: lower batch_size"):
            list(train(model, batches, batches, optimizer, epochs=1))


def test_a_grid_runs_and_is_forecast(gpu, images, tmp_path, capsys):
    train_set, val_set = images
    build = functools.partial(nn.Sequential, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    trial = functools.partial(
        run, train_set=train_set, val_set=val_set, build_model=build, image_size=32, epochs=1, seed=0
    )
    search = GridSearch(trial, {"lr": [0.1, 0.01], "batch_size": [8], "weight_decay": [0]}, tmp_path / "grid.journal")
    assert search.device.type == "cuda"
    assert search.forecast()["memory_gb"].gt(0).all()
    assert search.run()["state"].tolist() == ["completed"] * 2
    assert str(training_dtype(search.device)) in search.storage.read_text()


def test_a_grid_on_the_cpu_beside_a_gpu_is_told_nothing_about_the_gpu(images, tmp_path, capsys, monkeypatch):
    trial = functools.partial(
        run, train_set=images[0], val_set=images[1], build_model=functools.partial(cifar_resnet, 8, 10),
        image_size=32, epochs=1, seed=0, device="cpu",
    )  # fmt: skip
    with pretend_gpu("T4"):
        monkeypatch.setattr(torch.cuda, "utilization", lambda device: 0)
        search = GridSearch(trial, {"lr": [0.1], "batch_size": [8], "weight_decay": [0]}, tmp_path / "grid.journal")
        assert search.device.type == "cpu"
        search.run()
    assert "only 0%" not in capsys.readouterr().out


def test_signals_and_anatomy_take_a_network_on_the_gpu(gpu, images):
    batch, labels = next(iter(Batches(images[0], 8, 32)))
    model = cifar_resnet(8, 10).to("cuda")
    norms, sizes = gradient_norms(model, batch, labels), activation_sizes(model, batch)
    assert norms.keys() == sizes.keys()
    assert all(value > 0 for value in [*norms.values(), *sizes.values()])
    assert (residual_sizes(model, batch)["x_size"] > 0).all()
    assert layer_table(model, (3, 32, 32)).loc["fc", "out_channels"] == 10
    receptive_field(model, "conv1", (3, 32, 32), 3, 3)
    deeper = insert_identity_blocks(cifar_resnet(8, 10, residual=False).to("cuda"), 1, batch)
    assert all(parameter.is_cuda for parameter in deeper.parameters())
    plot_filters(model.conv1.weight)
    plot_feature_maps(model.conv1(batch)[0])


def test_images_on_the_gpu_can_be_searched_for_leaks_and_drawn(gpu, images):
    train_set, val_set = images
    there = train_set.to(CUDA)
    assert find_leaks(there, val_set.to(CUDA)).empty
    assert len(find_leaks(there, there)) >= len(train_set)
    plot_images(there[torch.arange(4)])


def test_the_depth_experiment_trains_on_the_gpu(gpu):
    data = shapes(seed=0)
    train_set, test_set = (
        ImageSet(some.images[:, :, ::2, ::2], some.labels, some.classes)
        for some in (take(data.train, 32, seed=0), take(data.test, 16, seed=0))
    )
    model = Network(8, True, 0).new_model(10).to("cuda")
    ((epoch, norms),) = train_network(
        model, data._replace(train=train_set, test=test_set), epochs=1, batch_size=16, lr=0.1, weight_decay=1e-4, seed=0
    )
    assert not epoch.diverged
    assert all(norm > 0 for norm in norms.values())


def test_the_gpu_is_described(gpu):
    if gpu.name != "real":
        assert describe(CUDA) == f"{gpu.name}, in {'float16' if gpu.name == 'T4' else 'bfloat16'}"
