import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cnnlesson import models
from cnnlesson.anatomy import forward_hooks
from cnnlesson.data import Batches, shapes, split
from cnnlesson.models import AlexNet, BasicBlock, Bottleneck, cifar_resnet, resnet18
from cnnlesson.models.resnet import ZeroPadding
from cnnlesson.training import train


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [224, 227])
def test_alexnet_with_torchvisions_weights_matches_torchvision(size):
    theirs = torchvision.models.alexnet(num_classes=7).eval()
    ours = AlexNet(num_classes=7, dropout=0.5).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnets_with_torchvisions_weights_match_torchvision(name):
    theirs = getattr(torchvision.models, name)(num_classes=7)
    theirs.train()(torch.randn(8, 3, 64, 64))  # moves batch norm's running statistics away from 0 and 1
    theirs.eval()
    ours = getattr(models, name)(num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    for size in (64, 224):
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            torch.testing.assert_close(ours(images), theirs(images))


# He et al., table 6, in millions.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
@pytest.mark.parametrize("residual", [True, False])
def test_cifar_resnets_have_the_papers_number_of_parameters(depth, millions, residual):
    model = cifar_resnet(depth, num_classes=10, residual=residual)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 1 if depth == 110 else 2) == millions


@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_resnets_have_depth_layers(depth):
    layers = [layer for layer in cifar_resnet(depth, 10).modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth


@pytest.mark.parametrize("residual", [True, False])
def test_cifar_resnets_have_the_papers_filters_and_maps(residual):
    """Section 4.2: 3×3 convolutions only, and 16, 32 and 64 filters on maps of 32×32, 16×16 and 8×8."""
    model, maps = cifar_resnet(8, 10, residual), []
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    stages = [model.conv1, model.layer1, model.layer2, model.layer3]
    with forward_hooks(stages, lambda layer, inputs, output: maps.append(tuple(output.shape[1:]))):
        model(torch.randn(2, 3, 32, 32))
    assert maps == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_plain_and_residual_networks_differ_only_in_the_shortcuts():
    residual, plain = cifar_resnet(20, 10).eval(), cifar_resnet(20, 10, residual=False).eval()
    plain.load_state_dict(residual.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(plain(images), residual(images))
    for block in residual.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)  # F(x) = 0: only the shortcut is left
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(residual.layer1(x), x)
    halved = residual.layer2(x)
    assert torch.equal(halved[:, 8:24], x[:, :, ::2, ::2])
    assert not halved[:, :8].any() and not halved[:, 24:].any()


@pytest.mark.parametrize("depth", [2, 18, 21, 34, -4])
def test_a_depth_other_than_6n_plus_2_is_an_error(depth):
    with pytest.raises(ValueError, match=f"depth must be 6n \\+ 2, .* got {depth}"):
        cifar_resnet(depth, num_classes=10)


@pytest.mark.parametrize(("small_images", "size"), [(False, 2), (True, 8)])
def test_resnet18_last_stage_for_a_64_pixel_image(small_images, size):
    model = resnet18(num_classes=7, small_images=small_images)
    shapes = []
    with forward_hooks([model.layer4], lambda layer, inputs, output: shapes.append(output.shape)):
        model(torch.randn(2, 3, 64, 64))
    assert shapes == [(2, 512, size, size)]


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 3, 11, 11), (2, 1, 227, 227), (3, 227, 227), (2, 3, 300, 300)])
def test_alexnet_names_the_image_shape_it_takes(shape):
    with pytest.raises(ValueError, match=r"takes images of shape \(N, 3, 227, 227\), got .*image_size=227"):
        AlexNet(num_classes=7, dropout=0.5)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("height", "width", "fits"), [(223, 254, True), (254, 223, True), (222, 227, False), (227, 255, False)]
)
def test_alexnet_takes_223_to_254_pixels(height, width, fits):
    with torch.device("meta"):
        model, images = AlexNet(num_classes=7, dropout=0.5), torch.zeros(2, 3, height, width)
    if fits:
        assert model(images).shape == (2, 7)
    else:
        with pytest.raises(ValueError, match=rf"got \(2, 3, {height}, {width}\)"):
            model(images)


@pytest.mark.parametrize("make_model", [resnet18, partial(cifar_resnet, 20)])
def test_resnets_name_the_image_shape_they_take(make_model):
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\), got \(2, 1, 64, 64\)"):
        make_model(num_classes=7)(torch.zeros(2, 1, 64, 64))


def test_wrong_channels_are_an_error_in_one_line():
    with pytest.raises(ValueError, match="multiple of 4, got 126"):
        Bottleneck(64, 126, stride=1)
    with pytest.raises(ValueError, match="zeros can add channels, not remove them: got 32 in, 16 out"):
        BasicBlock(32, 16, stride=1, shortcut=ZeroPadding)
    with pytest.raises(RuntimeError, match="to have 64 channels, but got 32 channels") as error:
        BasicBlock(64, 64, stride=1)(torch.zeros(1, 32, 8, 8))
    assert "\n" not in str(error.value)


def test_alexnet_requires_dropout():
    with pytest.raises(TypeError, match="dropout"):
        AlexNet(num_classes=7)


def test_untrained_alexnet_tells_images_apart_unlike_with_default_initialisation():
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


@pytest.mark.thorough
def test_alexnet_leaves_the_plateau_at_chance_level_within_two_epochs():
    some, _ = split(shapes(seed=0).train, (0.1, 0.9), seed=0)
    train_set, val_set = split(some, (0.8, 0.2), seed=0)
    model = AlexNet(num_classes=10, dropout=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, fused=True)
    train_batches = Batches(train_set, batch_size=16, image_size=227, seed=0, device="cpu")
    val_batches = Batches(val_set, batch_size=100, image_size=227, device="cpu")
    losses = [epoch.train_loss for epoch in train(model, train_batches, val_batches, optimizer, epochs=2)]
    assert losses[-1] < math.log(10) - 0.05
