import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.models import cifar_resnet, resnet18, resnet50
from cnnlesson.signals import activation_sizes, gradient_norms, residual_sizes


@pytest.fixture
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_gradient_norms_match_autograd(images):
    torch.manual_seed(0)
    model = cifar_resnet(8, num_classes=10)
    labels = torch.arange(6)
    norms = gradient_norms(model, images, labels)
    weights = [layer.weight for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    gradients = torch.autograd.grad(F.cross_entropy(model.train()(images), labels), weights)
    assert list(norms)[:2] == ["conv1", "layer1.0.conv1"] and list(norms)[-1] == "fc"
    torch.testing.assert_close(torch.tensor(list(norms.values())), torch.stack([g.norm() for g in gradients]))


def test_measuring_leaves_the_model_unchanged(images):
    model = cifar_resnet(8, num_classes=10).eval()
    state = copy.deepcopy(model.state_dict())
    gradient_norms(model, images, torch.arange(6))
    activation_sizes(model, images)
    residual_sizes(model.train(), images)
    assert model.training and not any(layer._forward_hooks for layer in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@torch.no_grad()
def test_residual_sizes_measure_both_terms_of_each_block(images):
    torch.manual_seed(0)
    model = cifar_resnet(14, num_classes=10).eval()
    sizes = residual_sizes(model, images)
    assert sizes["block"].tolist() == [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
    x = F.relu(model.bn1(model.conv1(images)))
    assert sizes["x_size"][0] == pytest.approx(x.pow(2).mean().sqrt().item(), rel=1e-5)
    before = model.layer1(x)
    shortcut = before[:, :, ::2, ::2].pow(2).mean().sqrt().item() / 2**0.5  # half of the channels are zeros
    assert sizes["x_size"][2] == pytest.approx(shortcut, rel=1e-5)
    model.layer3[1].bn2.weight.mul_(2)
    doubled = residual_sizes(model, images)
    assert doubled["residual_size"][5] == pytest.approx(2 * sizes["residual_size"][5], rel=1e-5)
    assert doubled["residual_size"][:5].tolist() == sizes["residual_size"][:5].tolist()


def test_a_block_whose_f_is_zero_adds_nothing(images):
    model = resnet18(10, small_images=True)
    nn.init.zeros_(model.layer4[1].bn2.weight)
    sizes = residual_sizes(model, images)
    assert sizes["residual_size"].iloc[-1] == 0
    assert sizes["x_size"].iloc[-1] > 0


def test_residual_sizes_measure_bottlenecks_too(images):
    assert len(residual_sizes(resnet50(10), images)) == 3 + 4 + 6 + 3


def test_a_network_without_residual_blocks_is_an_error(images):
    with pytest.raises(ValueError, match="CifarResNet has no residual block"):
        residual_sizes(cifar_resnet(8, 10, residual=False), images)


def test_activation_sizes_are_those_of_each_layers_output():
    torch.manual_seed(0)
    model, images = cifar_resnet(8, 10), torch.randn(4, 3, 32, 32)
    sizes = activation_sizes(model, images)
    assert list(sizes) == list(gradient_norms(model, images, torch.arange(4)))
    with torch.no_grad():
        assert sizes["conv1"] == pytest.approx(float(model.conv1(images).square().mean().sqrt()))
