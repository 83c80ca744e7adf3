import pandas as pd
import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from cnnlesson.anatomy import layer_table
from cnnlesson.audit import SLIDE
from cnnlesson.models import AlexNet, cifar_resnet, resnet18, resnet50


def test_alexnet_equals_the_slide_in_every_number_but_conv4s_flop():
    table = layer_table(AlexNet(num_classes=1000, dropout=0.5), (3, 227, 227))
    assert list(table.index) == [*SLIDE, "fc6", "fc7", "fc8", "total"]
    differences = [
        (layer, column, printed, computed)
        for layer, row in SLIDE.items()
        for column, printed, computed in zip(table.columns, row, table.loc[layer].round(), strict=True)
        if not (printed is None and pd.isna(computed)) and printed != computed
    ]
    # 256 filters · 3·3 · 384 channels · 13·13 positions = 149,520,384, which no rounding makes 145 million.
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
def test_totals_equal_torchs_own_counts(name):
    make_model, size = NETWORKS[name]
    model = make_model()
    table = layer_table(model, (3, size, size))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    # torch counts the multiplication and the addition as two.
    assert table.loc["total", "flop_m"] * 2e6 == pytest.approx(counter.get_total_flops(), rel=1e-12)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert table.loc["total", "params_k"] * 1e3 == pytest.approx(parameters, rel=1e-12)
    assert table.loc["total", "memory_kb"] == pytest.approx(table["memory_kb"].iloc[:-1].sum(), rel=1e-12)


def test_torchvisions_alexnet_gets_its_flatten_row():
    table = layer_table(torchvision.models.alexnet(), (3, 224, 224))
    assert table.loc["flatten", ["in_channels", "in_size", "out_channels"]].tolist() == [256, 6, 9216]


def test_padding_named_same_is_shown_as_a_number():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, kernel_size=5, padding="same"))
    assert layer_table(model, (3, 16, 16)).loc["0", ["pad", "out_size"]].tolist() == [2, 16]


def test_the_model_is_left_as_it_was():
    model = resnet18(10)
    model.layer1.eval()  # frozen, as in fine-tuning
    modes = [layer.training for layer in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    layer_table(model, (3, 64, 64))
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_an_input_that_does_not_fit_leaves_no_hooks_behind():
    model = AlexNet(10, dropout=0.5)
    with pytest.raises(ValueError, match="227"):
        layer_table(model, (3, 64, 64))
    assert model.training
    assert not any(layer._forward_hooks for layer in model.modules())
    with pytest.raises(ValueError, match="give a square image, not 64×32"):
        layer_table(model, (3, 64, 32))
