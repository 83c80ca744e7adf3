import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision

from cnnlesson.data import Batches, shapes, split
from cnnlesson.models import AlexNet, resnet18
from cnnlesson.training import train


@pytest.fixture(autouse=True)
def same_random_numbers():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [224, 227])
def test_alexnet_with_torchvisions_weights_gives_torchvisions_outputs(size):
    theirs = torchvision.models.alexnet(num_classes=7).eval()
    ours = AlexNet(num_classes=7, dropout=0.5).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("size", [64, 224])
def test_resnet18_with_torchvisions_weights_gives_torchvisions_outputs(size):
    theirs = torchvision.models.resnet18(num_classes=7)
    theirs.train()(torch.randn(8, 3, 64, 64))  # moves batch norm's running statistics off their first values
    theirs.eval()
    ours = resnet18(num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(("small_images", "size"), [(False, 2), (True, 8)])
def test_resnet18_last_stage_of_a_64_pixel_image(small_images, size):
    model = resnet18(num_classes=7, small_images=small_images)
    maps = []
    model.layer4.register_forward_hook(lambda layer, inputs, output: maps.append(output.shape))
    model(torch.randn(2, 3, 64, 64))
    assert maps == [(2, 512, size, size)]


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 3, 11, 11), (2, 1, 227, 227), (3, 227, 227), (2, 3, 300, 300)])
def test_alexnet_says_which_images_it_takes(shape):
    with pytest.raises(ValueError, match=r"takes images of shape \(N, 3, 227, 227\), got .*image_size=227"):
        AlexNet(num_classes=7, dropout=0.5)(torch.zeros(shape))


def test_resnet_says_which_images_it_takes():
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\), got \(2, 1, 64, 64\)"):
        resnet18(num_classes=7)(torch.zeros(2, 1, 64, 64))


def test_alexnet_wants_dropout_named():
    with pytest.raises(TypeError, match="dropout"):
        AlexNet(num_classes=7)


def test_alexnet_tells_images_apart_from_the_start_where_the_default_initialisation_does_not():
    images, labels = next(iter(Batches(shapes(seed=0).train, batch_size=50, image_size=227)))
    ours, default = AlexNet(10, dropout=0.5).eval(), AlexNet(10, dropout=0.5).eval()
    for layer in default.children():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    with torch.no_grad():
        logits = ours(images)
        spread, default_spread = logits.std(dim=0).mean(), default(images).std(dim=0).mean()
    assert spread > 20 * default_spread
    assert abs(F.cross_entropy(logits, labels) - math.log(10)) < 0.2


def test_alexnet_leaves_the_plateau_of_guessing_within_two_epochs():
    some, _ = split(shapes(seed=0).train, (0.1, 0.9), seed=0)
    train_set, val_set = split(some, (0.8, 0.2), seed=0)
    model = AlexNet(num_classes=10, dropout=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    train_batches = Batches(train_set, batch_size=16, image_size=227, seed=0, device="cpu")
    val_batches = Batches(val_set, batch_size=100, image_size=227, device="cpu")
    losses = [epoch.train_loss for epoch in train(model, train_batches, val_batches, optimizer, epochs=2)]
    assert losses[-1] < math.log(10) - 0.05


def test_models_and_training_import_torch_alone():
    """Floor 1 is read in class: it must not bring in what it does not need."""
    loaded = "import sys, torch; before = set(sys.modules); import cnnlesson.models, cnnlesson.training; "
    code = loaded + "print({name.split('.')[0] for name in set(sys.modules) - before} - {'torch'})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    third_party = {"torchvision", "matplotlib", "pandas", "sklearn", "PIL", "requests", "tqdm", "optuna", "ipywidgets"}
    assert not third_party & eval(run.stdout)


def test_models_and_training_do_not_know_each_other():
    code = "import sys, cnnlesson.{}; print('cnnlesson.{}' in sys.modules)"
    for one, other in (("models", "training"), ("training", "models")):
        run = subprocess.run(
            [sys.executable, "-c", code.format(one, other)], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == "False"
