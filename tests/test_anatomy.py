import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnlesson.anatomy import arithmetic, forward_hooks, layer_table, receptive_field
from cnnlesson.models import AlexNet, Bottleneck, TwoTowerAlexNet, cifar_resnet, resnet18, resnet50
from cnnlesson.reference.audit import SLIDE


def test_alexnet_matches_the_slide_except_for_conv4_flop():
    table = layer_table(AlexNet(num_classes=1000, dropout=0.5), (3, 227, 227))
    assert list(table.index) == [*SLIDE, "fc6", "fc7", "fc8", "total"]
    differences = [
        (layer, column, printed, computed)
        for layer, row in SLIDE.items()
        for column, printed, computed in zip(table.columns, row, table.loc[layer].round(), strict=True)
        if not (printed is None and pd.isna(computed)) and printed != computed
    ]
    # 256 filters · 3·3 · 384 channels · 13·13 positions = 149,520,384, which does not round to 145 million.
    assert differences == [("conv4", "flop_m", 145, 150)]
    assert table.loc["conv4", "flop_m"] == 149.520384


NETWORKS = {
    "AlexNet": (lambda: AlexNet(10, dropout=0.5), 227),
    "resnet18": (lambda: resnet18(10), 64),
    "resnet18 for small images": (lambda: resnet18(10, small_images=True), 64),
    "resnet50": (lambda: resnet50(10), 64),
    "cifar_resnet of 20 layers": (lambda: cifar_resnet(20, 10), 32),
    "torchvision's alexnet": (torchvision.models.alexnet, 224),
    "torchvision's resnet18": (torchvision.models.resnet18, 224),
    "torchvision's resnet50": (torchvision.models.resnet50, 224),
    "torchvision's resnext50, with groups": (torchvision.models.resnext50_32x4d, 224),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_totals_match_torchs_own_counts(name):
    make_model, size = NETWORKS[name]
    model = make_model()
    table = layer_table(model, (3, size, size))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    # torch counts a multiplication and its addition as two operations.
    assert table.loc["total", "flop_m"] * 2e6 == pytest.approx(counter.get_total_flops(), rel=1e-12)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert table.loc["total", "params_k"] * 1e3 == pytest.approx(parameters, rel=1e-12)
    assert table.loc["total", "memory_kb"] == pytest.approx(table["memory_kb"].iloc[:-1].sum(), rel=1e-12)


def test_torchvisions_alexnet_has_a_flatten_row_too():
    table = layer_table(torchvision.models.alexnet(), (3, 224, 224))
    assert table.loc["flatten", ["in_channels", "in_size", "out_channels"]].tolist() == [256, 6, 9216]


class OnePool(nn.Module):
    """The start of AlexNet as students write it: one pooling layer, called after several convolutions."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(64, 192, kernel_size=5, padding=2)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def forward(self, images):
        return self.pool(F.relu(self.conv2(self.pool(F.relu(self.conv1(images))))))


def test_a_layer_used_twice_has_two_rows_and_two_receptive_fields():
    table, alexnet = layer_table(OnePool(), (3, 227, 227)), layer_table(AlexNet(10, dropout=0.5), (3, 227, 227))
    assert list(table.index) == ["conv1", "pool", "conv2", "pool, use 2", "total"]
    pools = table.loc[["pool", "pool, use 2"]].set_axis(["pool1", "pool2"])
    pd.testing.assert_frame_equal(pools, alexnet.loc[["pool1", "pool2"]], check_names=False)
    for use, theirs in (("pool", "pool1"), ("pool, use 2", "pool2")):
        field = receptive_field(AlexNet(10, dropout=0.5), theirs, (3, 227, 227), 4, 9)
        assert receptive_field(OnePool(), use, (3, 227, 227), 4, 9) == field
    with pytest.raises(ValueError, match="never reaches the layer 'pool, use 3'"):
        receptive_field(OnePool(), "pool, use 3", (3, 227, 227), 0, 0)


def test_weights_used_twice_count_once_and_their_multiply_adds_twice():
    layer = nn.Conv2d(8, 8, kernel_size=3, padding=1)
    table = layer_table(nn.Sequential(layer, nn.ReLU(), layer), (8, 16, 16))
    assert table["params_k"].tolist() == [0.584, 0, 0.584]
    assert table["flop_m"].tolist() == [0.147456, 0.147456, 0.294912]
    assert arithmetic(layer, table.iloc[1])["params_k"] == "counted at the first use of the layer"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "conv1",
            {
                "out_size": "(65 + 2·2 - 5) / 2 + 1 = 33",
                "memory_kb": "8·33·33·4 / 1024 = 34.0312",
                "params_k": "8·3·5·5 + 8 = 608",
                "flop_m": "8·3·5·5·33·33 = 653,400",
            },
        ),
        ("bn1", {"params_k": "2·8 = 16", "flop_m": "not counted", "memory_kb": "8·33·33·4 / 1024 = 34.0312"}),
        (
            "pool1",
            {
                "out_size": "(33 + 2·1 - 4) / 2 + 1 = 16.5, rounded down",
                "memory_kb": "8·16·16·4 / 1024 = 8",
                "params_k": "no weights",
                "flop_m": "no weights",
            },
        ),
        (
            "conv2",
            {
                "out_size": "(16 + 2·0 - 1) / 1 + 1 = 16",
                "memory_kb": "4·16·16·4 / 1024 = 4",
                "params_k": "4·4·1·1 = 16",
                "flop_m": "4·4·1·1·16·16 = 4,096",
            },
        ),
        (
            "fc",
            {"memory_kb": "10·4 / 1024 = 0.0390625", "params_k": "10·1024 + 10 = 10,250", "flop_m": "10·1024 = 10,240"},
        ),
    ],
)
def test_the_arithmetic_of_each_kind_of_layer_leads_to_its_row(name, expected):
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 8, kernel_size=5, stride=2, padding=2))
    model.add_module("bn1", nn.BatchNorm2d(8))
    model.add_module("pool1", nn.MaxPool2d(kernel_size=4, stride=2, padding=1))
    model.add_module("conv2", nn.Conv2d(8, 4, kernel_size=1, groups=2, bias=False))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(1024, 10))
    table = layer_table(model, (3, 65, 65))
    assert arithmetic(model.get_submodule(name), table.loc[name]) == expected


@pytest.mark.parametrize(("padding", "pad", "out_size"), [("same", 2, 16), ("valid", 0, 12)])
def test_padding_by_name_is_shown_as_a_number(padding, pad, out_size):
    model = nn.Sequential(nn.Conv2d(3, 8, kernel_size=5, padding=padding))
    assert layer_table(model, (3, 16, 16)).loc["0", ["pad", "out_size"]].tolist() == [pad, out_size]


def test_layer_table_leaves_the_model_unchanged():
    model = resnet18(10)
    model.layer1.eval()  # frozen, as in fine-tuning
    modes = [layer.training for layer in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    layer_table(model, (3, 64, 64))
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_wrong_input_size_leaves_no_hooks_behind():
    model = AlexNet(10, dropout=0.5)
    with pytest.raises(ValueError, match="227"):
        layer_table(model, (3, 64, 64))
    assert model.training
    assert not any(layer._forward_hooks for layer in model.modules())
    with pytest.raises(ValueError, match=r"takes square images .*, got 64×32"):
        layer_table(model, (3, 64, 32))


def test_forward_hooks_see_each_output_and_end_with_the_block():
    layer, outputs = nn.Linear(2, 3), []
    with forward_hooks([layer], lambda layer, inputs, output: outputs.append(output)):
        expected = [layer(torch.ones(2)), layer(torch.zeros(2))]
    layer(torch.ones(2))
    assert all(output is other for output, other in zip(outputs, expected, strict=True))
    with pytest.raises(KeyError), forward_hooks([layer], print):
        raise KeyError
    assert not layer._forward_hooks


def field_size(model, layer, size, place):
    top, left, bottom, right = receptive_field(model, layer, (3, size, size), place, place)
    return bottom - top, right - left


def test_receptive_fields_match_the_published_ones():
    # Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019: alexnet_v2.
    alexnet = AlexNet(10, dropout=0.5)
    assert field_size(alexnet, "conv1", 227, 20) == (11, 11)
    assert field_size(alexnet, "conv5", 227, 6) == (163, 163)
    assert field_size(alexnet, "pool5", 227, 3) == (195, 195)
    # torchvision's networks, whose ReLUs work in place.
    assert field_size(torchvision.models.alexnet(), "features.10", 227, 6) == (163, 163)
    assert field_size(torchvision.models.resnet18(), "layer2", 224, 9) == field_size(resnet18(10), "layer2", 224, 9)
    # Their resnet_v1_50 downsamples in the last block of a stage; ours, like torchvision's, in the first.
    strides = [1, 1, 2], [1, 1, 1, 2], [1, 1, 1, 1, 1, 2], [1, 1, 1]
    start = nn.Conv2d(3, 8, kernel_size=7, stride=2, padding=3), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    blocks = [Bottleneck(8, 8, stride) for stage in strides for stride in stage]
    assert field_size(nn.Sequential(*start, *blocks), "17", 576, 9) == (483, 483)


@pytest.mark.parametrize(
    "make_model, layer, size, row, column",
    [
        (lambda: cifar_resnet(8, 10), "layer1", 16, 0, 9),
        (lambda: cifar_resnet(8, 10), "layer2.0", 16, 4, 7),
        (lambda: cifar_resnet(8, 10), "layer3", 16, 2, 0),
        (lambda: cifar_resnet(8, 10, residual=False), "layer2.0.conv1", 16, 4, 4),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 2, stride=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)), "2", 16, 1, 2),
    ],
)
def test_a_receptive_field_is_the_box_of_pixels_that_change_the_output(make_model, layer, size, row, column):
    torch.manual_seed(0)
    model = make_model().double().eval()
    field = receptive_field(model, layer, (3, size, size), row, column)
    outputs = []
    changes = 0  # over several images, since in one a ReLU may be inactive or another pixel the maximum
    for _ in range(4):
        image = torch.rand(1, 3, size, size, dtype=torch.float64)
        changed = image + 5 * torch.eye(size * size).view(-1, 1, size, size)  # (H · W, 3, H, W), one pixel in each
        with forward_hooks([model.get_submodule(layer)], lambda *call: outputs.append(call[-1])), torch.no_grad():
            model(torch.cat([image, changed]))
        values = outputs.pop()[:, :, row, column]  # (1 + H · W, channels)
        changes = changes + (values[1:] - values[0]).abs().sum(dim=1)
    rows, columns = changes.view(size, size).nonzero().unbind(dim=1)
    assert field == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


def test_a_receptive_field_ends_at_the_border_and_needs_no_weights():
    with torch.device("meta"):
        model = TwoTowerAlexNet(10)
    assert receptive_field(model, "conv1", (3, 227, 227), 0, 54) == (0, 216, 11, 227)
    assert model.training and not any("forward" in vars(layer) for layer in model.modules())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert receptive_field(cifar_resnet(20, 10), "layer3", (3, 32, 32), 0, 0)[:2] == (0, 0)


def test_a_layer_or_position_without_a_receptive_field_is_an_error():
    model = AlexNet(10, dropout=0.5)
    for layer, place, message in (
        ("conv6", (0, 0), "no layer 'conv6'; its convolutional and pooling layers are conv1, pool1, conv2"),
        ("fc6", (0, 0), "'fc6' has no rows and columns: choose a layer before the linear ones"),
        ("conv5", (13, 0), "outside the output of 'conv5': choose a row from 0 to 12 and a column from 0 to 12"),
    ):
        with pytest.raises(ValueError, match=message):
            receptive_field(model, layer, (3, 227, 227), *place)
    assert not any(layer._forward_hooks for layer in model.modules())
