import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cnnlesson.data import Batches
from cnnlesson.runtime import device as runtime_device
from cnnlesson.runtime.memory import peak_memory, reset_peak_memory
from cnnlesson.training import evaluate, predict, train, train_one_epoch

CPU = torch.device("cpu")


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    )


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


@pytest.fixture
def batches(image_set):
    return Batches(image_set, batch_size=8, image_size=16, seed=0, device="cpu")  # 8 + 8 + 8 + 6 images


@pytest.fixture
def val_batches(image_set):
    return Batches(image_set, batch_size=7, image_size=16, device="cpu")


def test_training_learns_and_reports_its_figures(batches, val_batches):
    model = small_model()
    history = list(train(model, batches, val_batches, sgd(model), epochs=10))
    assert [epoch.number for epoch in history] == list(range(1, 11))
    assert history[-1].train_loss < history[0].train_loss / 2
    assert history[-1].val_accuracy == 1
    assert all(epoch.seconds > 0 and epoch.images_per_second > 0 and not epoch.diverged for epoch in history)
    assert history[-1].learning_rate == 0.05


def test_the_weights_equal_those_of_a_plain_loop(batches, val_batches):
    model = small_model()
    list(train(model, batches, val_batches, sgd(model), epochs=2))

    plain = small_model().to(memory_format=torch.channels_last)
    optimizer = sgd(plain)
    for number in range(2):
        plain.train()
        batches.set_epoch(number)
        for images, labels in batches:
            with runtime_device.mixed_precision(images.device):
                loss = F.cross_entropy(plain(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_same_seeds_yield_bitwise_identical_epochs(image_set, val_batches):
    def losses():
        model = small_model()
        batches = Batches(image_set, batch_size=8, image_size=16, seed=3, augment=True, device="cpu")
        return [(epoch.train_loss, epoch.val_loss) for epoch in train(model, batches, val_batches, sgd(model), 3)]

    assert losses() == losses()


@pytest.mark.parametrize("kind", ["with augmentation", "without"])
def test_looking_at_one_batch_between_epochs_changes_nothing(image_set, val_batches, kind):
    def figures(look: bool) -> list[tuple[float, float]]:
        model = small_model()
        batches = Batches(image_set, 8, 16, seed=3, augment=kind == "with augmentation", device="cpu")
        losses = []
        for epoch in train(model, batches, val_batches, sgd(model), epochs=3):
            losses.append((epoch.train_loss, epoch.val_loss))
            if look:
                next(iter(batches))
        return losses

    assert figures(look=True) == figures(look=False)


def test_loss_and_accuracy_are_means_over_images_not_over_batches(image_set, val_batches):
    model = small_model()
    everything, labels = next(iter(Batches(image_set, batch_size=30, image_size=16, device="cpu")))
    with torch.no_grad(), runtime_device.mixed_precision(everything.device):
        logits = model.eval()(everything)
    score = evaluate(model.train(), val_batches)  # 7 + 7 + 7 + 7 + 2 images
    assert score.loss == pytest.approx(F.cross_entropy(logits.float(), labels).item(), rel=1e-2)
    assert score.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert score.num_images == 30


def test_evaluation_changes_no_weights_and_switches_dropout_off(val_batches):
    model = nn.Sequential(small_model(), nn.Dropout(0.5))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert evaluate(model, val_batches) == evaluate(model, val_batches)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_scheduler_is_stepped_after_every_batch(batches, val_batches):
    model = small_model()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * len(batches))
    rates = [epoch.learning_rate for epoch in train(model, batches, val_batches, optimizer, 2, scheduler)]
    model = small_model()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * len(batches))
    expected = []
    for _ in range(2):
        expected.append(scheduler.get_last_lr()[0])
        for _ in range(len(batches)):
            optimizer.step()
            scheduler.step()
    assert rates == expected


@pytest.mark.parametrize("lr", [1e20, float("nan")])
def test_a_loss_that_is_not_finite_ends_the_training(batches, val_batches, lr):
    model = small_model()
    optimizer = sgd(model)
    optimizer.param_groups[0]["lr"] = lr
    history = list(train(model, batches, val_batches, optimizer, epochs=5))
    assert [epoch.diverged for epoch in history] == [False] * (len(history) - 1) + [True]
    assert len(history) < 5
    assert not math.isfinite(history[-1].train_loss) or not math.isfinite(history[-1].val_loss)


def test_a_data_loader_works_too(image_set):
    loader = DataLoader(TensorDataset(image_set.images.float() / 255, image_set.labels), batch_size=8, shuffle=True)
    model = small_model()
    history = list(train(model, loader, loader, sgd(model), epochs=8))
    assert history[-1].val_accuracy > history[0].train_accuracy


def test_float16_trains_with_scaled_gradients(monkeypatch, batches, val_batches):
    float16(monkeypatch)
    used = []
    model = small_model()
    model[0].register_forward_hook(lambda layer, inputs, output: used.append(output.dtype))
    optimizer = sgd(model)
    assert runtime_device.gradient_scaler(model, optimizer).is_enabled()
    losses = [train_one_epoch(model, batches, optimizer).loss for _ in range(10)]
    assert losses[-1] < losses[0] / 2
    assert set(used) == {torch.float16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_compiled_network_trains_identically_and_shares_checkpoints_with_plain_ones(tmp_path, batches, val_batches):
    def losses(model: nn.Module, epochs: int, checkpoint: Path) -> list[float]:
        return [epoch.train_loss for epoch in train(model, batches, val_batches, sgd(model), epochs, None, checkpoint)]

    expected = losses(small_model(), 3, tmp_path / "plain.pt")
    compiled = torch.compile(small_model(), backend="eager")  # traced like any other, and quick to compile
    assert losses(compiled, 2, tmp_path / "compiled.pt") == expected[:2]
    in_place = small_model()
    in_place.compile(backend="eager")
    assert losses(in_place, 3, tmp_path / "compiled.pt") == expected


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not report peak memory")
def test_memory_does_not_grow_with_epochs(batches, val_batches):
    model = small_model()
    peaks = []
    for _ in train(model, batches, val_batches, sgd(model), epochs=60):
        peaks.append(peak_memory(CPU))
        reset_peak_memory(CPU)
    assert max(peaks[40:]) < max(peaks[20:40]) + 2e6  # bytes


class Greedy(nn.Module):
    """Allocates more memory than any machine has."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images):
        return torch.empty(10**15)


class OutOfGpuMemory(Greedy):
    def forward(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB ...")


@pytest.mark.parametrize("make_model", [Greedy, OutOfGpuMemory])
def test_an_out_of_memory_error_names_what_to_lower(make_model, batches, val_batches):
    model = make_model()
    message = r"a batch of 8 images of 16×16 pixels: lower batch_size \(for example to 4\) or image_size"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        train_one_epoch(model, batches, sgd(model))
    with pytest.raises(torch.OutOfMemoryError, match="a batch of 7 images"):
        evaluate(model, val_batches)


def test_other_errors_are_not_changed(batches):
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train_one_epoch(model, batches, sgd(model))


def test_evaluating_no_batches_is_an_error():
    with pytest.raises(ValueError, match="there are no batches: use a set with at least one image"):
        evaluate(small_model(), [])


class OverflowsOnce(nn.Module):
    """A network whose first backward pass overflows, as float16 does with the initial scale of the scaler."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 3)
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        logits = self.layer(images.flatten(1))
        if self.passes == 1:
            logits.register_hook(lambda gradient: gradient * float("inf"))
        return logits


@pytest.fixture
def overflow_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(4)]


def test_the_scale_of_gradients_survives_from_one_epoch_to_the_next(monkeypatch, overflow_batches):
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.float16)
    model = OverflowsOnce()
    optimizer = sgd(model)
    scales = []
    for _ in range(2):
        train_one_epoch(model, overflow_batches, optimizer)
        scales.append(runtime_device.gradient_scaler(model, optimizer).get_scale())
    assert scales[0] < torch.amp.GradScaler("cpu").get_scale()
    assert scales[1] == scales[0]


def test_fused_sgd_equals_plain_sgd_when_the_scaler_skips_the_first_step(monkeypatch, overflow_batches):
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.float16)
    monkeypatch.setattr("cnnlesson.training.mixed_precision", lambda device: nullcontext())  # weights differ in float32
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = OverflowsOnce()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=fused)
        for _ in range(4):
            torch.full((3, 192), 1e6)  # freed memory that the allocator may reuse
        train_one_epoch(model, overflow_batches, optimizer)
        weights.append(model.layer.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=1e-7)


class OverflowsAt(nn.Module):
    """A network whose logits are infinite in some of its passes, counted from 1."""

    def __init__(self, *passes: int):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 3)
        self.overflows = passes
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        logits = self.layer(images.flatten(1))
        return logits * (float("inf") if self.passes in self.overflows else 1.0)


def float16(monkeypatch) -> None:
    """What a T4 trains in, on the CPU."""
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: torch.float16)


def test_in_float16_a_single_overflow_is_left_out_and_training_continues(monkeypatch, overflow_batches):
    float16(monkeypatch)
    model = OverflowsAt(2)
    optimizer = sgd(model, lr=0.0)
    (epoch,) = train(model, overflow_batches, overflow_batches, optimizer, epochs=1)
    assert not epoch.diverged
    others = [batch for number, batch in enumerate(overflow_batches, start=1) if number != 2]
    assert epoch.train_loss == pytest.approx(evaluate(model, others).loss, rel=1e-3)
    assert model.layer.weight.isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "overflows", "diverges"),
    [
        (torch.float32, [4], True),  # the last loss
        (torch.float16, [4], False),
        (torch.float16, [1, 2, 3, 4], True),  # all of them
        (torch.float16, range(2, 12), False),  # ten in a row, but the last of twelve is finite
        (torch.float16, range(4, 13), False),  # the last nine
        (torch.float16, range(3, 13), True),  # the last ten
    ],
)
def test_what_counts_as_divergence(monkeypatch, overflow_batches, dtype, overflows, diverges):
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: dtype)
    batches = overflow_batches * (3 if max(overflows) > 4 else 1)
    model = OverflowsAt(*overflows)
    epoch = next(train(model, batches, overflow_batches, sgd(model, lr=0.0), epochs=2))
    assert epoch.diverged is diverges
    assert math.isfinite(epoch.train_loss) is not diverges


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_training_that_diverges_stops_within_100_steps(monkeypatch, overflow_batches, dtype):
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: dtype)
    model = OverflowsAt(*range(150, 1000))
    score = train_one_epoch(model, overflow_batches * 250, sgd(model, lr=1e-3))
    assert not math.isfinite(score.loss)
    assert model.passes == 200
    assert score.num_images == 800


def test_only_the_training_loss_decides_about_divergence(overflow_batches):
    model = OverflowsAt(5, 10)  # the first batch of each validation, after four training batches
    epochs = list(train(model, overflow_batches, overflow_batches[:1], sgd(model), epochs=2))
    assert [epoch.diverged for epoch in epochs] == [False, False]
    assert not math.isfinite(epochs[0].val_loss)


@pytest.mark.parametrize(
    ("training", "evaluation"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)],
)
def test_evaluation_is_in_float32_if_training_is_in_float16(monkeypatch, image_set, training, evaluation):
    monkeypatch.setattr(runtime_device, "training_dtype", lambda device: training)
    types = []
    model = small_model()
    model[0].register_forward_hook(lambda layer, inputs, output: types.append(output.dtype))
    batches = Batches(image_set, batch_size=30, image_size=16, device="cpu")
    train_one_epoch(model, batches, sgd(model))
    evaluate(model, batches)
    predict(model, batches)
    assert types == [training, evaluation, evaluation]


@pytest.mark.parametrize("fused", [False, True])
def test_the_schedule_waits_for_a_step_that_the_scaler_skips(monkeypatch, overflow_batches, fused):
    float16(monkeypatch)
    model = OverflowsOnce()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    train_one_epoch(model, overflow_batches, optimizer, scheduler)
    assert scheduler.last_epoch == 3  # of four batches, the first was skipped


def test_the_speed_is_that_of_training_and_the_time_that_of_the_epoch(monkeypatch, overflow_batches):
    clock = [100.0]
    monkeypatch.setattr("cnnlesson.training.time.perf_counter", lambda: clock[0])

    def each_takes(seconds):
        for batch in overflow_batches:
            clock[0] += seconds
            yield batch

    class Slow:
        def __init__(self, seconds):
            self.seconds = seconds

        def __iter__(self):
            return each_takes(self.seconds)

    model = OverflowsAt()
    (epoch,) = train(model, Slow(0.75), Slow(2.0), sgd(model), epochs=1)
    assert epoch.seconds == 4 * 0.75 + 4 * 2.0
    assert epoch.images_per_second == 16 / (4 * 0.75)


def test_predictions_keep_the_order_of_the_set_and_agree_with_evaluate(image_set):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(3 * 16 * 16, 3))
    batches = Batches(image_set, batch_size=8, image_size=16, device="cpu")
    labels, probabilities = predict(model.train(), batches)
    assert torch.equal(labels, image_set.labels)
    assert probabilities.shape == (30, 3) and probabilities.dtype == torch.float32
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1] * 30)
    accuracy = (probabilities.argmax(dim=1) == labels).float().mean()
    assert float(accuracy) == pytest.approx(evaluate(model, batches).accuracy)
    assert not probabilities.requires_grad
    assert torch.equal(predict(model, batches).probabilities, probabilities)  # dropout is off


def test_predicting_no_batches_is_an_error():
    with pytest.raises(ValueError, match="there are no batches: use a set with at least one image"):
        predict(nn.Flatten(), [])
