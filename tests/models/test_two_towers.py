import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlesson.anatomy import forward_hooks, layer_table
from cnnlesson.models import TwoTowerAlexNet
from cnnlesson.models.two_towers import normalise


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = TwoTowerAlexNet(num_classes=10)
    for parameter in model.parameters():  # larger than the paper's, so that a wrong connection shows in the output
        nn.init.normal_(parameter, std=2 / max(1, parameter[0].numel()) ** 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 227, 227, generator=torch.Generator().manual_seed(1))


def test_it_has_the_papers_sixty_million_parameters():
    model = TwoTowerAlexNet(num_classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 60_965_224
    table = layer_table(model, (3, 227, 227))
    assert table.loc["total", "params_k"] == pytest.approx(60_965.224)


def test_the_filters_have_the_papers_sizes():
    """Section 3.5: 96 of 11×11×3, 256 of 5×5×48, 384 of 3×3×256, 384 of 3×3×192, 256 of 3×3×192."""
    model = TwoTowerAlexNet(num_classes=10)
    shapes = [tuple(layer.weight.shape) for layer in (model.conv1, model.conv2, model.conv3, model.conv4, model.conv5)]
    assert shapes == [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)]


def test_the_maps_have_the_sizes_in_the_figure():
    with torch.device("meta"):
        model, images = TwoTowerAlexNet(num_classes=10), torch.zeros(1, 3, 227, 227)
    sizes = {}
    layers = {layer: name for name, layer in model.named_children()}
    with forward_hooks(layers, lambda layer, inputs, output: sizes.update({layers[layer]: output.shape[2:]})):
        model(images)
    expected = dict(conv1=55, pool1=27, conv2=27, pool2=13, conv3=13, conv4=13, conv5=13, pool5=6)
    assert {name: size for name, size in sizes.items() if size} == {name: (n, n) for name, n in expected.items()}


def test_the_initial_weights_are_the_papers():
    torch.manual_seed(0)
    model = TwoTowerAlexNet(num_classes=10)
    biases = dict(conv1=0, conv2=1, conv3=0, conv4=1, conv5=1, fc6=1, fc7=1, fc8=0)
    for name, bias in biases.items():
        layer = getattr(model, name)
        assert (layer.bias == bias).all()
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_towers_on_two_devices_have_the_same_outputs_and_gradients(model, images):
    whole = copy.deepcopy(model)
    placed = model.on_two_devices(["cpu", torch.device("cpu")])
    with torch.no_grad():
        torch.testing.assert_close(placed(images), whole(images), rtol=1e-4, atol=1e-4)
    labels = torch.tensor([1, 2, 3])
    F.cross_entropy(whole(images), labels).backward()
    F.cross_entropy(placed(images), labels).backward()
    for layer, *halves in zip(*map(layers_with_weights, (whole, *placed.towers)), strict=True):
        expected, gradient = layer.weight.grad, torch.cat([half.weight.grad for half in halves])
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def layers_with_weights(model):
    return [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has fewer than two GPUs")
def test_towers_on_two_gpus_have_the_same_outputs(model, images):
    placed = model.on_two_devices(["cuda:0", "cuda:1"])
    with torch.no_grad():
        torch.testing.assert_close(placed(images).cpu(), model(images), rtol=1e-2, atol=1e-2)


def test_the_towers_exchange_maps_only_where_the_figure_shows_it(model, images):
    """The second tower's conv1 has no effect on the first tower's conv2, and an effect on its conv3."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.conv1.weight[48:] *= 2
    outputs = []
    for network in (model, changed):
        with forward_hooks([network.conv2, network.conv3], lambda *call: outputs.append(call[-1])), torch.no_grad():
            network(images)
    conv2, conv3, changed_conv2, changed_conv3 = outputs
    assert torch.equal(conv2[:, :128], changed_conv2[:, :128])
    assert not torch.equal(conv2[:, 128:], changed_conv2[:, 128:])
    assert not torch.equal(conv3[:, :192], changed_conv3[:, :192])


def test_normalisation_follows_the_papers_formula():
    x = torch.rand(1, 12, 1, 1) * 30
    for channel in range(12):  # section 3.3, written out for one channel
        neighbours = x[0, max(0, channel - 2) : channel + 3, 0, 0]
        expected = x[0, channel, 0, 0] / (2 + 1e-4 * (neighbours**2).sum()) ** 0.75
        torch.testing.assert_close(normalise(x)[0, channel, 0, 0], expected)


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (2, 1, 227, 227), (3, 227, 227)])
def test_it_names_the_image_shape_it_takes(model, shape):
    for network in (model, model.on_two_devices(["cpu", "cpu"])):
        with pytest.raises(ValueError, match=r"takes images of shape \(N, 3, 227, 227\), got .*image_size=227"):
            network(torch.zeros(shape))


@pytest.mark.parametrize("missing", ["cuda:99", "gpu"])
def test_a_device_that_does_not_exist_is_named(model, missing):
    with pytest.raises(ValueError, match=f"device '{missing}'.* use 'cpu'"):
        model.on_two_devices(["cpu", missing])
