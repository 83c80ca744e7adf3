"""The doctor's remarks on real trainings: small ones that run here, and recorded ones of the lesson's networks."""

import time

import pytest
import torch
from torch import nn

from cnnlesson import reference
from cnnlesson.data import Batches, ImageSet
from cnnlesson.doctor import diagnose
from cnnlesson.runtime import device as runtime_device
from cnnlesson.runtime.device import busy_share
from cnnlesson.training import Epoch, train


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch):
    """The trainings are the same on every CPU."""
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def coloured(number: int, seed: int, brightness: int = 150) -> ImageSet:
    """Images of 16×16 in three balanced classes, each brighter in a colour of its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 3
    images = torch.randint(0, 60, (number, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[torch.arange(number), labels] += brightness
    return ImageSet(images, labels, ("red", "green", "blue"))


TRAIN, VAL = coloured(30, seed=0), coloured(30, seed=1)


def convolutional(batch_norm: bool = True) -> nn.Module:
    norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    )  # fmt: skip


def fully_connected() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 3))


def deep(num_layers: int) -> nn.Module:
    """Without batch norm: after these layers all images look alike, so it starts with a plateau."""
    layers = [layer for _ in range(num_layers) for layer in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), *layers, nn.Linear(16, 3))


def trained(make_model, lr, train_set=TRAIN, val_set=VAL, epochs=6, augment=False) -> list[Epoch]:
    torch.manual_seed(0)
    model = make_model()
    train_batches = Batches(train_set, batch_size=8, image_size=16, seed=0, augment=augment, device="cpu")
    val_batches = Batches(val_set, batch_size=30, image_size=16, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return list(train(model, train_batches, val_batches, optimizer, epochs))


def remarks(history: list[Epoch], num_classes: int | None = 3) -> list[str]:
    """All remarks of the doctor from the first epoch to the last."""
    return [remark for number in range(1, len(history) + 1) for remark in diagnose(history[:number], num_classes)]


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("lr", [0.001, 0.01, 0.05])
def test_a_healthy_training_gets_no_line(batch_norm, lr):
    """In its first epoch, validation accuracy is often higher than training accuracy."""
    history = trained(lambda: convolutional(batch_norm), lr, epochs=10, augment=True)
    assert history[-1].val_accuracy == 1 and history[0].train_accuracy < history[0].val_accuracy + 0.2
    assert remarks(history) == []


def test_a_plateau_at_first_gets_a_mild_line_at_most():
    history = trained(lambda: deep(3), lr=0.1, epochs=8)
    assert 1.05 < history[1].train_loss < 1.12 and history[-1].val_accuracy == 1
    assert all("may start so" in line or "often start so" in line for line in remarks(history))


def recorded(lr: float, *figures: tuple[float, float, float, float]) -> list[Epoch]:
    return [
        Epoch(number, len(figures), *figure, lr, seconds=1, images_per_second=480, diverged=False)
        for number, figure in enumerate(figures, start=1)
    ]


# Training and validation loss and accuracy on `shapes`: 480 training and 120 validation images of ten classes,
# augmented, SGD with momentum 0.9 and weight decay 0.0005, one thread of an AMD EPYC in bfloat16.
RESNET18_LR_001_BATCH_16 = recorded(
    0.01, (2.7016, 0.140, 16.0286, 0.067), (2.6876, 0.190, 3.2346, 0.142), (2.2077, 0.240, 2.3827, 0.275),
    (2.0231, 0.298, 2.2757, 0.300), (1.7750, 0.358, 1.9277, 0.342), (1.6592, 0.381, 1.7375, 0.342),
)  # fmt: skip
RESNET18_LR_001_BATCH_64 = recorded(
    0.01, (2.349545, 0.108, 2.392013, 0.108), (2.166050, 0.198, 6.613700, 0.092), (1.8628, 0.298, 4.5959, 0.150),
    (1.6683, 0.312, 3.7016, 0.117), (1.5038, 0.417, 2.9897, 0.158), (1.2946, 0.463, 1.8416, 0.383),
)  # fmt: skip
RESNET18_LR_0001_BATCH_64 = recorded(
    0.001, (2.352817, 0.108, 2.305670, 0.100), (2.268427, 0.156, 2.327072, 0.142), (2.271267, 0.135, 2.297975, 0.075),
    (2.178572, 0.217, 2.212989, 0.125), (2.117092, 0.225, 2.178604, 0.167), (2.019848, 0.227, 2.137355, 0.158),
)  # fmt: skip
ALEXNET_LR_001_BATCH_64 = recorded(
    0.01, (2.390821, 0.087, 2.343033, 0.100), (2.345364, 0.083, 2.293642, 0.108), (2.306037, 0.138, 2.286240, 0.233),
    (2.290116, 0.121, 2.262372, 0.133), (2.261372, 0.135, 2.216737, 0.150), (2.140745, 0.194, 1.903477, 0.242),
)  # fmt: skip
RESNET18_LR_01_BATCH_16 = recorded(
    0.1, (7.635393, 0.106, 2.884848, 0.108), (2.366702, 0.085, 2.348458, 0.100), (2.319665, 0.104, 2.305106, 0.117),
    (2.320017, 0.090, 2.329628, 0.092), (2.310522, 0.113, 2.355132, 0.125), (2.314557, 0.104, 2.324039, 0.117),
)  # fmt: skip
RESNET18_LR_000001_BATCH_16 = recorded(
    0.00001, (2.387906, 0.087, 2.361536, 0.092), (2.394937, 0.104, 2.382234, 0.117), (2.378651, 0.098, 2.375207, 0.083),
)  # fmt: skip
ALEXNET_LR_001_BATCH_16 = recorded(
    0.01, (2.375867, 0.098, 2.304892, 0.100), (2.306815, 0.100, 2.289549, 0.108), (2.229822, 0.121, 2.146804, 0.183),
    (2.104489, 0.185, 2.245405, 0.117), (2.269135, 0.115, 2.307398, 0.100), (2.297451, 0.073, 2.312546, 0.125),
)  # fmt: skip


@pytest.mark.parametrize("history", [RESNET18_LR_001_BATCH_16, RESNET18_LR_001_BATCH_64, ALEXNET_LR_001_BATCH_64])
def test_the_lessons_networks_get_no_line_if_they_learn(history):
    assert remarks(history, num_classes=10) == []


def test_slow_learning_gets_a_mild_line_that_names_both_directions():
    (line,) = remarks(RESNET18_LR_0001_BATCH_64, num_classes=10)
    assert line.endswith(
        "If the next epochs are no better, the learning rate 0.001 is most likely too small for SGD (then try 0.01) or "
        "too large for Adam (then try 0.0001, with a new network)."
    )


def test_a_network_that_collapses_to_chance_in_its_first_epoch_has_a_too_large_learning_rate():
    assert diagnose(RESNET18_LR_01_BATCH_16, num_classes=10) == [
        "The training loss is 2.315, no better than ln(10) = 2.303, the loss at chance level, after 7.635 in epoch 1: "
        "the learning rate 0.1 is too large. Try 0.01, with a new network."
    ]


def test_nobody_waits_for_a_network_that_collapsed_although_its_loss_still_falls():
    """The shipped AlexNet with learning rate 0.1 and batch size 64: the loss falls by a thousandth per epoch."""
    table = reference.load("tiny_imagenet_grid").table.rename(columns={"epoch": "number"})
    table = table[(table["model"] == "alexnet") & (table["lr"] == 0.1) & (table["batch_size"] == 64)]
    history = [
        Epoch(**row) for row in table[table.columns.intersection([*Epoch.__dataclass_fields__])].to_dict("records")
    ]
    lines = remarks(history, num_classes=20)
    assert len(lines) == 3  # after epochs 3, 4 and 5
    assert all("the learning rate 0.1 is too large. Try 0.01, with a new network." in line for line in lines)


def test_a_network_that_falls_back_to_chance_has_a_too_large_learning_rate():
    (line,) = diagnose(ALEXNET_LR_001_BATCH_16, num_classes=10)
    assert "after 2.104 in epoch 4: the learning rate 0.01 is too large. Try 0.001" in line


def test_a_small_learning_rate_is_called_too_small_even_if_batch_norm_and_augmentation_move_the_loss():
    (line,) = diagnose(RESNET18_LR_000001_BATCH_16, num_classes=10)
    assert "the learning rate 1e-05 is too small. Try 0.0001 or more" in line


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("augment", [True, False])
def test_a_learning_rate_next_to_nothing_is_called_too_small(batch_norm, augment):
    history = trained(lambda: convolutional(batch_norm), lr=1e-9, augment=augment)
    (line,) = diagnose(history, num_classes=3)
    assert "better than ln(3) = 1.099, the loss at chance level" in line
    assert "it hardly moves: most likely the learning rate 1e-09 is too small. Try 1e-08 or more." in line
    assert diagnose(history[:1], num_classes=3) == []  # one epoch is no evidence yet


@pytest.mark.parametrize("num_classes", [3, None])
def test_a_learning_rate_of_zero_is_named(num_classes):
    (line,) = diagnose(trained(convolutional, lr=0, epochs=2), num_classes)
    assert line.startswith("The learning rate is 0, so the network learns nothing.")


def test_weights_that_the_optimizer_does_not_have_are_considered():
    def frozen():
        model = convolutional(batch_norm=False)
        model[0].requires_grad_(False)
        model[5].weight.data.zero_()
        model[5].bias.data.zero_()
        model[5].requires_grad_(False)
        return nn.Sequential(model, Scale())

    (line,) = diagnose(trained(frozen, lr=0.05), num_classes=3)
    assert "it hardly moves" in line and "check that the optimizer has this model's parameters" in line


class Scale(nn.Module):
    """The only weight that is trained here, and it has no effect."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, logits):
        return self.factor * logits


def test_dead_units_are_called_a_learning_rate_that_was_too_large():
    def dead():
        model = convolutional(batch_norm=False)
        model[0].bias.data.fill_(-1000)  # the result of one huge step: ReLU outputs 0 for every image
        return model

    (line,) = diagnose(trained(dead, lr=0.1), num_classes=3)
    assert "the network's answer is about the same for every image" in line
    assert "the learning rate 0.1 is most likely too large: try 0.01, with a new network" in line


@pytest.mark.parametrize(("num_classes", "count"), [(3, 1), (None, 0)])
def test_a_loss_far_above_chance_level_is_named(num_classes, count):
    """Random images with random labels, and a learning rate that makes the weights grow from step to step."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 16, 16), generator=generator, dtype=torch.uint8)
    history = trained(fully_connected, lr=0.3, train_set=ImageSet(images, torch.arange(60) % 3, TRAIN.classes))
    lines = diagnose(history, num_classes)
    assert len(lines) == count
    assert all("far above ln(3) = 1.099" in line and "0.3 is too large. Try 0.03." in line for line in lines)


def test_a_loss_that_rises_above_chance_level_is_named():
    history = recorded(1, (1.2, 0.3, 1.2, 0.3), (2.001, 0.33, 1.921, 0.33), (2.109, 0.23, 1.539, 0.33))
    (line,) = diagnose(history, num_classes=3)
    assert line.startswith("The training loss has risen from 2.001 to 2.109, far above ln(3) = 1.099")


@pytest.mark.parametrize("num_classes", [3, None])
def test_a_loss_that_is_not_finite_is_the_only_remark(num_classes):
    history = trained(convolutional, lr=1e30)
    assert history[-1].diverged
    assert diagnose(history, num_classes) == [
        "The training loss is not finite in epoch 1: training has diverged. Try a learning rate ten times smaller, "
        "1e+29."
    ]


def mixed_up(images: ImageSet) -> ImageSet:
    return ImageSet(images.images, (images.labels + 1) % 3, images.classes)


def darker(images: ImageSet) -> ImageSet:
    """As if one set was divided by 255 and the other was not."""
    return ImageSet(images.images // 255, images.labels, images.classes)


@pytest.mark.parametrize("change", [mixed_up, darker])
def test_validation_at_chance_while_training_learns_is_named(change):
    history = trained(convolutional, lr=0.05, val_set=change(VAL))
    (line,) = diagnose(history, num_classes=3)
    assert line.startswith("Validation accuracy is ")
    assert "no better than chance (33.3%), while training accuracy is 100.0%" in line
    assert "labels of one set are mixed up" in line and "normalised in the same way" in line


def test_labels_that_do_not_belong_to_the_images_are_memorised():
    shuffled = TRAIN.labels[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    noise = torch.randint(0, 256, (30, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    history = trained(
        fully_connected, 0.003, ImageSet(noise, shuffled, TRAIN.classes), ImageSet(noise.flip(3), shuffled, ("",) * 3)
    )
    assert history[-1].train_accuracy > 0.9
    (line,) = diagnose(history, num_classes=3)
    assert "no better than chance" in line and "memorised" in line


def half_noise(number: int, seed: int) -> ImageSet:
    images = coloured(number, seed)
    generator = torch.Generator().manual_seed(seed + 10)
    noise = torch.randint(0, 256, images.images.shape, generator=generator, dtype=torch.uint8)
    is_noise = torch.arange(number) >= number // 2
    return ImageSet(torch.where(is_noise[:, None, None, None], noise, images.images), images.labels, images.classes)


@pytest.mark.parametrize("num_classes", [3, None])
def test_overfitting_is_named_with_the_best_epoch(num_classes):
    """Half of the images have a colour to learn, the others are noise and can only be memorised."""
    history = trained(fully_connected, 0.003, half_noise(60, seed=0), half_noise(60, seed=1), epochs=12)
    best = max(history, key=lambda epoch: epoch.val_accuracy)
    (line,) = diagnose(history, num_classes)
    assert f"no better than the {best.val_accuracy:.1%} of epoch {best.number}: overfitting" in line
    assert "augmentation, more weight decay, dropout or more images" in line


def losses(lr: float, *pairs: tuple[float, float]) -> list[Epoch]:
    """A training whose accuracies stay at chance level for three classes."""
    return recorded(lr, *((train_loss, 0.33, val_loss, 0.33) for train_loss, val_loss in pairs))


# ln(3), the loss at chance level, is 1.0986.
@pytest.mark.parametrize(
    ("history", "remark"),
    [
        (losses(0.3, (10.9, 1.1)), None),  # ten times ln(3) is 10.986
        (losses(0.3, (11.0, 1.1)), "is 11, far above ln(3) = 1.099, the loss at chance level: the learning rate 0.3"),
        (losses(0.01, (1.2, 1.1), (1.065, 1.1)), None),  # 97 % is 1.0656
        (losses(0.01, (1.066, 1.1), (1.066, 1.2)), "is 1.066, hardly better than ln(3) = 1.099"),
        (losses(0.01, (1.1, 1.1), (1.1, 1.2)), "is 1.100, no better than ln(3) = 1.099"),
        (losses(0.01, (1.1056, 1.1), (1.1, 1.1)), None),  # fell by more than 0.5 %, which is 0.0055
        (losses(0.01, (1.1054, 1.1), (1.1, 1.1)), "no better than"),
        (losses(0.01, (1.1, 1.1), (1.647, 1.1)), "is 1.647, no better than"),  # one and a half times is 1.6479
        (losses(0.01, (1.1, 1.1), (1.649, 1.1)), "has risen from 1.100 to 1.649, far above ln(3)"),
        (losses(0.01, (1.7, 1.1), (1.7, 1.1)), "no better than"),  # not risen
        (losses(0.01, (1.032, 1.1), (1.1, 1.1)), "after 1.032 in epoch 1: the learning rate 0.01 is too large"),
        (losses(0.01, (1.034, 1.2), (1.1, 1.1)), "about the same for every image"),  # 94 % is 1.0327
        (losses(0.01, (1.66, 1.1), (1.66, 1.2), (1.655, 1.1)), "after 1.660 in epoch 1: the learning rate 0.01 is too"),
        (losses(0.01, (1.64, 1.1), (1.64, 1.2), (1.636, 1.1)), "about the same for every image"),
        (losses(9e-5, (1.032, 1.1), (1.1, 1.1)), "the learning rate 9e-05 is too small. Try 0.0009 or more"),
        (losses(0.002, (1.2, 1.2), (1.1, 1.1), (1.1, 1.3), (1.1, 1.1)), "the learning rate 0.002 is too small"),
        (losses(0.002, (1.2, 1.1), (1.1, 1.1), (1.2, 1.1), (1.1, 1.1)), "the learning rate 0.002 is too small"),
        (losses(0.002, (1.11, 1.1), (1.1, 1.1), (1.11, 1.2), (1.12, 1.1)), "0.002 is most likely too small for SGD"),
        (losses(0.002, (1.11, 1.11), (1.109, 1.109)), "falls slowly. Deep networks without batch norm may start so: "
         "wait a few epochs. Then try a larger learning rate, such as 0.006."),
        (losses(0.003, (1.11, 1.11), (1.109, 1.109)), "may start so: wait a few epochs."),
        (losses(0.002, (1.11, 1.16), (1.109, 1.155)), "0.002 is most likely too small for SGD"),  # 105 % is 1.1535
        (losses(0.002, (1.11, 1.11), (1.109, 1.111)), "0.002 is most likely too small for SGD"),
        (losses(0, (1.1, 1.1)), None),
        (losses(0, (1.1, 1.1), (1.1, 1.1)), "The learning rate is 0"),
        (losses(0, (1.1, 1.1), (1.1, 1.1), (1.1, 1.1)), "The learning rate is 0"),
    ],
)  # fmt: skip
def test_the_loss_from_which_a_training_is_stuck(history, remark):
    lines = diagnose(history, num_classes=3)
    assert len(lines) == (remark is not None)
    assert all(remark in line for line in lines)


@pytest.mark.parametrize(
    ("num_classes", "train_accuracy", "val_accuracies", "is_named"),
    [
        (3, 0.9, (0.38, 0.37), True),  # 5 points above chance level are 38.3 %
        (3, 0.9, (0.33, 0.39), False),
        (3, 0.9, (0.39, 0.33), False),
        (100, 0.9, (0.014, 0.012), True),  # one and a half times chance level is 1.5 %
        (100, 0.9, (0.01, 0.016), False),
        (3, 0.47, (0.33, 0.34), True),  # a fifth of the way from chance level to 1 is 46.7 %
        (3, 0.46, (0.33, 0.34), False),
    ],
)
def test_the_accuracies_at_which_only_training_learns(num_classes, train_accuracy, val_accuracies, is_named):
    history = recorded(0.01, *((0.5, train_accuracy, 5.0, accuracy) for accuracy in val_accuracies))
    lines = diagnose(history, num_classes)
    assert len(lines) == is_named
    assert all(line.startswith(f"Validation accuracy is {val_accuracies[1]:.1%}, no better than") for line in lines)
    falling = recorded(0.01, (0.5, train_accuracy, 6.0, 0.01), (0.5, train_accuracy, 5.0, 0.01))
    assert diagnose(falling, num_classes) == diagnose(history[:1], num_classes) == []


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ([(0.5, 0.7, 0.9, 0.6), (0.4, 0.8, 1.0, 0.59), (0.3, 0.9, 1.1, 0.58)], 1),
        ([(0.5, 0.7, 0.9, 0.6), (0.4, 0.8, 1.0, 0.59)], None),  # one epoch without a better one is often noise
        ([(0.5, 0.7, 0.9, 0.6), (0.4, 0.8, 0.8, 0.59), (0.3, 0.9, 1.1, 0.58)], None),  # the loss has become better
        ([(0.5, 0.7, 0.9, 0.6), (0.4, 0.8, 1.0, 0.61), (0.3, 0.9, 1.1, 0.58)], None),
        ([(0.5, 0.7, 0.9, 0.6), (0.4, 0.8, 1.0, 0.59), (0.3, 0.77, 1.1, 0.58)], None),  # a gap of less than 20 points
        ([(0.5, 0.7, 0.9, 0.6), (0.4, 0.8, 1.0, 0.59), (0.3, 0.79, 1.1, 0.58)], 1),
    ],
)
def test_the_epoch_from_which_a_training_overfits(figures, best):
    lines = diagnose(recorded(0.01, *figures), num_classes=3)
    assert len(lines) == (best is not None)
    assert all(f"validation 58.0%, no better than the 60.0% of epoch {best}: overfitting" in line for line in lines)


@pytest.mark.parametrize(
    ("train_loss", "val_loss", "name"),
    [(float("nan"), 1.0, "training"), (1.0, float("inf"), "validation"), (float("inf"), float("nan"), "training")],
)
def test_the_loss_that_is_not_finite_is_named(train_loss, val_loss, name):
    history = recorded(0.05, (1.0, 0.3, 1.0, 0.3), (train_loss, 0.3, val_loss, 0.3))
    (line,) = diagnose(history, num_classes=3)
    assert line.startswith(f"The {name} loss is not finite in epoch 2: training has diverged.")
    assert line.endswith("Try a learning rate ten times smaller, 0.005.")


@pytest.mark.parametrize(("busy", "count"), [(0, 1), (0.49, 1), (0.5, 0), (1, 0), (None, 0)])
def test_a_device_that_is_busy_for_less_than_half_of_the_time_is_named(busy, count):
    assert len(diagnose([], num_classes=3, busy=busy)) == count


def test_without_epochs_there_is_no_remark():
    assert diagnose([], num_classes=3) == []


def test_a_device_that_waits_is_named():
    healthy = trained(convolutional, lr=0.05, epochs=2)
    with busy_share(torch.device("cpu")) as busy:
        time.sleep(0.3)
        waited = busy()
        start = time.process_time()
        while time.process_time() - start < 0.3:
            torch.ones(100, 100) @ torch.ones(100, 100)
        worked = busy()
    assert waited < 0.1 < worked <= 1
    (line,) = diagnose(healthy, num_classes=3, busy=waited)
    assert line.startswith(f"The device was busy with this training for only {waited:.0%} of the last epoch")
    assert diagnose(healthy, num_classes=3, busy=0.9) == diagnose(healthy, num_classes=3, busy=None) == []


def test_a_gpu_is_queried_during_the_training(monkeypatch):
    monkeypatch.setattr(runtime_device, "SAMPLE_SECONDS", 0.01)
    answers = iter([20, 40] + 1000 * [30])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(answers))
    with busy_share(torch.device("cuda")) as busy:
        time.sleep(0.3)
        assert busy() == pytest.approx(0.3)


def test_a_gpu_that_does_not_report_its_use_yields_none(monkeypatch):
    def missing(device):
        raise ModuleNotFoundError("pynvml does not seem to be installed or it can't be imported.")

    monkeypatch.setattr(runtime_device, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(torch.cuda, "utilization", missing)
    with busy_share(torch.device("cuda")) as busy:
        time.sleep(0.1)
        assert busy() is None
