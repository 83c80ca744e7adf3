import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from cnnlesson.anatomy import layer_table
from cnnlesson.models import cifar_resnet
from cnnlesson.plots import (
    description,
    plot_class_balance,
    plot_depth,
    plot_depth_curves,
    plot_feature_maps,
    plot_filters,
    plot_folds,
    plot_gradient_norms,
    plot_grid,
    plot_history,
    plot_images,
    plot_layers,
    plot_leaks,
    plot_residual_sizes,
    plot_signals,
    plot_trials,
    plot_weight_decay,
)
from cnnlesson.training import Epoch


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def facts(axes) -> str:
    return description(axes).text


@pytest.fixture
def history():
    return [Epoch(k, 3, 2.0, 0.1 * k, 2.1, 0.05 * k, 0.01, 10.0, 100.0, False) for k in (1, 2, 3)]


@pytest.fixture
def grid():
    rows = [(0.1, 16, 0.1), (0.1, 32, 0.25), (0.001, 16, 0.375), (0.001, 32, 0.5)]
    states = ["diverged", *3 * ["completed"]]
    return pd.DataFrame(rows, columns=["lr", "batch_size", "val_accuracy"]).assign(state=states)


@pytest.fixture
def grid_with_bits():
    """Of 200 validation images, the second network is right on 3 fewer than the first, the others on far fewer."""
    rows = [(0.1, 16, 150), (0.1, 32, 147), (0.001, 16, 90), (0.001, 32, 60)]
    table = pd.DataFrame(rows, columns=["lr", "batch_size", "right"])
    bits = [np.packbits(np.arange(200) < number).tobytes().hex() for number in table.pop("right")]
    accuracies = [number / 200 for _, _, number in rows]
    return table.assign(epoch=1, val_accuracy=accuracies, state="completed", val_images=200, val_right=bits)


@pytest.fixture
def decays():
    rows = [(0.05, 0.2, 0.19), (0.0, 0.9, 0.5), (0.0005, 0.8, 0.6)]
    states = ["diverged", "completed", "completed"]
    return pd.DataFrame(rows, columns=["weight_decay", "train_accuracy", "val_accuracy"]).assign(state=states)


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_history_shows_losses_and_accuracies_and_the_epoch_that_diverged(history):
    loss, accuracy = plot_history(history)
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.0] * 3, [2.1] * 3]
    lines = [list(line.get_ydata()) for line in accuracy.lines]
    assert lines == [pytest.approx([10, 20, 30]), pytest.approx([5, 10, 15])]
    assert texts(loss) == texts(accuracy)[::-1] == ["training", "validation"]  # at the ends, the lower first
    assert facts(plot_history(history)).splitlines()[2] == (
        "epoch 3: loss 2.000 training, 2.100 validation; accuracy 30.0% training, 15.0% validation"
    )
    history[-1] = dataclasses.replace(history[-1], train_loss=math.nan, val_loss=math.nan, diverged=True)
    loss, _ = plot_history(history)
    assert texts(loss) == ["training", "validation", "diverged"]
    assert facts(plot_history(history)).endswith("; diverged")


def test_the_heat_map_names_every_cell(grid):
    ax = plot_grid(grid)
    assert texts(ax) == ["diverged", "25.0%", "37.5%", "50.0%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.1", "0.001"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["16", "32"]


def test_the_heat_map_has_its_facts_as_text(grid):
    header, high, low = facts(plot_grid(grid)).splitlines()
    assert header.split() == ["lr", "\\", "batch", "size", "16", "32"]
    assert high.split() == ["0.1", "diverged", "25.0%"]
    assert low.split() == ["0.001", "37.5%", "50.0%"]


def test_a_grid_with_a_missing_or_with_only_diverged_points_can_be_drawn(grid):
    assert texts(plot_grid(grid.iloc[1:])) == ["25.0%", "37.5%", "50.0%"]
    assert facts(plot_grid(grid.iloc[1:])).splitlines()[1].split() == ["0.1", "25.0%"]
    assert texts(plot_grid(grid.assign(state="diverged"))) == ["diverged"] * 4


def test_weight_decay_shows_training_beside_validation(decays):
    ax = plot_weight_decay(decays)
    assert texts(ax) == ["90.0", "80.0", "", "50.0", "60.0", "", "diverged"]
    assert facts(plot_weight_decay(decays)).splitlines() == [
        "weight decay 0: training 90.0%, validation 50.0%",
        "weight decay 0.0005: training 80.0%, validation 60.0%",
        "weight decay 0.05: diverged",
    ]


@pytest.mark.parametrize("draw", ["grid", "decays"])
def test_figures_draw_on_the_axes_they_are_given(draw, grid, decays):
    _, ax = plt.subplots()
    function, argument = {
        "grid": (plot_grid, grid),
        "decays": (plot_weight_decay, decays),
    }[draw]
    assert function(argument, ax) is ax


@pytest.fixture
def depths():
    rows = [
        (depth, residual, seed, epoch, error + 0.02 * seed - 0.05 * epoch, error - 0.04 * epoch)
        for depth, residual, error in ((20, False, 0.4), (56, False, 0.6), (20, True, 0.35), (56, True, 0.3))
        for seed in (0, 1)
        for epoch in (1, 2)
    ]
    return pd.DataFrame(rows, columns=["depth", "residual", "seed", "epoch", "train_error", "test_error"])


def test_depth_curves_are_the_mean_of_the_seeds_training_dashed_and_test_solid(depths):
    plain, residual = plot_depth_curves(depths)
    assert plain.get_title() == "plain" and residual.get_title() == "residual"
    lines = [(line.get_linestyle(), list(line.get_ydata())) for line in plain.lines]
    assert lines == [
        ("--", pytest.approx([36, 31])),
        ("-", pytest.approx([36, 32])),
        ("--", pytest.approx([56, 51])),
        ("-", pytest.approx([56, 52])),
    ]
    assert texts(plain) == ["20 layers", "56 layers"]
    assert [text.get_text() for text in residual.get_legend().get_texts()] == ["test", "training"]
    assert facts(plot_depth_curves(depths)).splitlines()[1] == (
        "plain, 56 layers, epoch 2: training error 51.00%, test error 52.00%"
    )


def test_a_seed_that_diverged_is_counted_where_it_is_missing(depths):
    diverged = (depths["depth"] == 56) & (depths["seed"] == 1) & ~depths["residual"]
    depths = depths[~(diverged & (depths["epoch"] == 2))]
    plain, residual = plot_depth_curves(depths)
    assert texts(plain) == ["20 layers", "56 layers, 1 of 2 diverged"]
    assert not any("diverged" in text for text in texts(residual))
    lines = facts(plot_depth_curves(depths)).splitlines()
    assert lines[1] == "plain, 56 layers, epoch 2: training error 50.00%, test error 52.00%, 1 of 2 diverged"
    assert [line.endswith("1 of 2 diverged") for line in lines] == [False, True, False, False]


def test_only_plain_networks_can_be_drawn_too(depths):
    plain, residual = plot_depth_curves(depths[~depths["residual"]])
    assert len(plain.lines) == 4 and len(residual.lines) == 0


def test_published_errors_are_marked_as_published(depths):
    ax = plot_depth(depths, {20: 0.0875, 110: 0.0643})
    lines = {line.get_label(): line for line in ax.lines}
    *labels, label = sorted(texts(ax), key=len)
    assert sorted(labels) == ["plain, test", "plain, training", "residual, test", "residual, training"]
    assert "as published" in label and "not measured" in label
    published = lines["_published"]
    assert list(published.get_xdata()) == [20, 110]
    assert list(published.get_ydata()) == pytest.approx([8.75, 6.43])
    assert list(lines["plain, test"].get_ydata()) == pytest.approx([32, 52])
    assert list(ax.get_xticks()) == [20, 56, 110]
    assert facts(plot_depth(depths, {20: 0.0875})).endswith("as published (He et al., 2015): 20 layers 8.75%")


def test_gradient_norms_of_the_deepest_networks_before_and_after_an_epoch():
    rows = [
        (depth, residual, 0, epochs_done, layer, 10.0 ** (-layer if not residual else 0) * (epochs_done + 1))
        for depth in (8, 14)
        for residual in (False, True)
        for epochs_done in (0, 1, 2)
        for layer in range(depth)
    ]
    gradients = pd.DataFrame(rows, columns=["depth", "residual", "seed", "epochs_done", "layer", "norm"])
    before, after = plot_gradient_norms(gradients)
    assert before.get_title() == "before training, 14 layers"
    assert [len(line.get_ydata()) for line in before.lines] == [14, 14]
    assert before.lines[0].get_ydata()[3] == pytest.approx(1e-3)
    assert after.lines[1].get_ydata()[3] == pytest.approx(2)
    first, *_, last = facts(plot_gradient_norms(gradients)).splitlines()
    assert first == "plain, 14 layers, before training: first layer 1, last layer 1e-13, smallest 1e-13, largest 1"
    assert last == "residual, 14 layers, after one epoch: first layer 2, last layer 2, smallest 2, largest 2"


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.4, 3, ["0.5", "1", "2"]),
        (0.03, 20, ["0.1", "1", "10"]),
    ],
)
def test_a_logarithmic_axis_has_labels_to_read_values_by(low, high, labels):
    sizes = pd.DataFrame({"network": "plain", "activation": [low, high], "gradient": [low, high]})
    for ax in plot_signals(sizes):
        ax.figure.canvas.draw()
        bottom, top = ax.get_ylim()
        ticks = zip(ax.get_yticks(), ax.yaxis.get_ticklabels(), strict=True)
        assert [label.get_text() for value, label in ticks if bottom <= value <= top] == labels
        assert not any(label.get_text() for label in ax.yaxis.get_ticklabels(minor=True))


def test_the_sizes_of_x_and_f_are_drawn_by_block():
    sizes = pd.DataFrame(
        {"block": ["layer1.0", "layer1.1", "layer2.0"], "x_size": [1.0, 2.0, 2.5], "residual_size": [0.5, 0.5, 1.0]}
    )
    ax = plot_residual_sizes(sizes)
    assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[1.0, 2.0, 2.5], [0.5, 0.5, 1.0]]
    assert len(ax.lines) == 3 and ax.lines[2].get_xdata()[0] == 2.5  # here the channels double
    assert facts(plot_residual_sizes(sizes)).splitlines()[1] == "layer1.1: x 2.00, F(x) 0.50, ratio 0.25"


def test_images_have_the_names_of_their_classes(image_set):
    axes = plot_images(image_set[torch.tensor([0, 29, 15])])
    assert [ax.get_title() for ax in axes] == ["red", "blue", "green", "", "", ""]
    assert axes[1].images[0].get_array().shape == (16, 16, 3)
    assert facts(plot_images(image_set[torch.tensor([0, 29, 15])])) == "red, blue, green"
    assert len(plot_images(image_set)) == 12  # no more than two rows


def test_the_bars_of_a_network_are_the_numbers_of_its_table():
    table = layer_table(cifar_resnet(8, 10), (3, 32, 32))
    memory, parameters, multiply_adds = plot_layers(table)
    assert [label.get_text() for label in memory.get_yticklabels()] == list(table.index[:-1])
    for ax, column in ((memory, "memory_kb"), (parameters, "params_k"), (multiply_adds, "flop_m")):
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(list(table[column][:-1]))
    assert memory.yaxis.get_inverted()  # the first layer on top
    assert "parameters (thousands): most in layer3.0.conv2" in facts(plot_layers(table))


def test_filters_and_feature_maps_are_tiles_stretched_each_to_its_own_range():
    weight = torch.randn(20, 3, 5, 5) * torch.arange(1, 21).view(20, 1, 1, 1)
    picture = plot_filters(weight).images[0].get_array()
    assert picture.shape == (2 * 6 + 1, 16 * 6 + 1, 3)
    for column in (0, 15):
        tile = picture[1:6, 6 * column + 1 : 6 * column + 6]
        assert tile.min() == pytest.approx(0, abs=1e-4) and tile.max() == pytest.approx(1, abs=1e-4)
    assert facts(plot_filters(torch.tensor([-1.0, 0.0, 2.0] * 50).view(2, 3, 5, 5))) == (
        "2 filters of 3×5×5, values from -1 to 2"
    )
    maps = torch.rand(64, 24, 24)
    maps[0, :12] = -1
    assert plot_feature_maps(maps).images[0].get_array().shape == (2 * 26 + 2, 16 * 26 + 2)  # 32 of 64, 2 pixels apart
    assert facts(plot_feature_maps(maps)).splitlines()[0] == f"channel 0: from -1 to {maps[0].max():.2g}, 50% above 0"


@pytest.fixture
def trials():
    rows = [(0.1, 16, 1, 0.1, False, "diverged"), (0.1, 16, 2, 0.2, True, "diverged")]
    rows += [(0.1, 32, 1, 0.3, False, "completed"), (0.1, 32, 2, 0.4, False, "completed")]
    rows += [(0.001, 16, 1, 0.5, False, "completed"), (0.001, 16, 2, 0.6, False, "completed")]
    return pd.DataFrame(rows, columns=["lr", "batch_size", "epoch", "val_accuracy", "diverged", "state"])


def test_a_panel_per_learning_rate_a_line_per_batch_size_and_a_cross_for_the_epoch_that_diverged(trials):
    high, low = plot_trials(trials)
    assert [ax.get_title() for ax in (high, low)] == ["learning rate 0.1", "learning rate 0.001"]
    lines = [line for line in high.lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx([10, 20]), pytest.approx([30, 40])]
    crosses = [list(line.get_ydata()) for line in high.lines if line.get_marker() == "x"]
    assert crosses == [pytest.approx([20]), []]
    assert texts(high) == ["batch 16, diverged", "batch 32"] and texts(low) == ["batch 16"]


def test_the_curves_of_trials_have_their_facts_as_text(trials):
    assert facts(plot_trials(trials)).splitlines() == [
        "lr 0.1, batch size 16: 10.0%, diverged",
        "lr 0.1, batch size 32: 30.0%, 40.0%",
        "lr 0.001, batch size 16: 50.0%, 60.0%",
    ]


@pytest.fixture
def seeds():
    """One row per trial, with three seeds per point, as a search leaves them."""
    rows = [(0.1, 16, 0, 0.25, 0.2, True, "diverged"), (0.1, 16, 1, 0.5, 0.4, False, "completed")]
    rows += [(0.1, 16, 2, 0.75, 0.5, False, "completed")]
    rows += [(0.1, 32, seed, 0.1, 0.1, False, "failed") for seed in range(3)]
    rows += [(0.001, 16, seed, 0.3, 0.12, False, "completed") for seed in range(3)]
    columns = ["lr", "batch_size", "seed", "train_accuracy", "val_accuracy", "diverged", "state"]
    return pd.DataFrame(rows, columns=columns)


def test_the_heat_map_has_the_mean_and_the_spread_of_seeds_and_names_what_did_not_complete(seeds):
    spread = 100 * pd.Series([0.4, 0.5]).std()
    ax = plot_grid(seeds)
    assert texts(ax) == ["45.0%", f"± {spread:.1f}\n1 of 3 diverged", "failed", "12.0%", "± 0.0"]
    assert ax.images[0].get_array().filled(-1).tolist() == [pytest.approx([45, -1]), pytest.approx([12, -1])]
    large, small = ax.texts[:2]
    assert small.get_fontsize() < large.get_fontsize()
    _, high, low, meaning = facts(plot_grid(seeds)).splitlines()
    assert meaning == "± standard deviation of 3 seeds, in percentage points"
    assert high.split("  ")[0] == "0.1" and f"45.0% ± {spread:.1f} (1 of 3 diverged)" in high and "failed" in high
    assert "12.0% ± 0.0" in low


def test_one_seed_has_no_spread(seeds):
    assert texts(plot_grid(seeds[seeds["seed"] == 2])) == ["50.0%", "failed", "12.0%"]


@pytest.fixture
def unfinished():
    """All epochs of an unfinished search: one point has ended, the others have not."""
    rows = [(0.1, 16, 1, 0.2, "completed"), (0.1, 16, 2, 0.5, "completed"), (0.1, 32, 1, 0.3, "interrupted")]
    rows += [(0.01, 16, 1, 0.6, "running"), (0.01, 16, 2, 0.7, "running"), (0.01, 32, 0, float("nan"), "waiting")]
    table = pd.DataFrame(rows, columns=["lr", "batch_size", "epoch", "val_accuracy", "state"])
    return table.assign(train_accuracy=table["val_accuracy"], diverged=False)


def test_trials_that_have_not_ended_are_named_in_the_heat_map_and_have_no_number(unfinished):
    last = unfinished.groupby(["lr", "batch_size"], sort=False).tail(1)
    ax = plot_grid(last)
    assert texts(ax) == ["50.0%", "interrupted", "running", "waiting"]
    assert ax.images[0].get_array().filled(-1).tolist() == [pytest.approx([50, -1]), pytest.approx([-1, -1])]
    assert [line.split()[1:] for line in facts(plot_grid(last)).splitlines()[1:]] == [
        ["50.0%", "interrupted"],
        ["running", "waiting"],
    ]


def test_a_point_has_no_number_until_all_its_seeds_have_ended(seeds):
    waiting = seeds.assign(state=seeds["state"].mask((seeds["lr"] == 0.001) & (seeds["seed"] == 2), "waiting"))
    assert texts(plot_grid(waiting))[3] == "1 of 3 waiting"
    decays = waiting[waiting["lr"] == 0.001].assign(weight_decay=0.5)
    assert facts(plot_weight_decay(decays)) == "weight decay 0.5: 1 of 3 waiting"


def test_curves_of_trials_that_have_not_ended_show_their_epochs_and_waiting_ones_have_none(unfinished):
    high, low = plot_trials(unfinished)
    assert [list(line.get_ydata()) for line in low.lines if line.get_marker() == "o"] == [pytest.approx([60, 70]), []]
    assert sorted(texts(high)) == ["batch 16", "batch 32, interrupted"] and texts(low) == ["batch 16, running"]
    assert facts(plot_trials(unfinished)).splitlines() == [
        "lr 0.1, batch size 16: 20.0%, 50.0%",
        "lr 0.1, batch size 32: 30.0%, interrupted",
        "lr 0.01, batch size 16: 60.0%, 70.0%, running",
        "lr 0.01, batch size 32: waiting",
    ]


def test_trials_that_have_not_ended_have_no_bar(unfinished):
    last = unfinished[unfinished["batch_size"] == 16].groupby("lr").tail(1)
    ax = plot_weight_decay(last.rename(columns={"lr": "weight_decay"}))
    assert texts(ax) == ["", "50.0", "", "50.0", "running"]
    assert [bar.get_height() for bar in ax.containers[-1]] == pytest.approx([0, 50])


def test_a_table_with_all_epochs_is_refused_if_only_the_last_ones_are_expected(trials):
    with pytest.raises(ValueError, match="several rows for one lr, batch_size: pass the last epoch of each trial"):
        plot_grid(trials)


def test_weight_decay_has_the_spread_of_seeds_and_names_what_did_not_complete(seeds):
    decays = seeds.assign(weight_decay=seeds["lr"].where(seeds["batch_size"] == 16, 7))
    ax = plot_weight_decay(decays)
    validation = ax.containers[-1]
    assert [bar.get_height() for bar in validation] == pytest.approx([12, 45, 0])
    assert validation.errorbar is not None
    (spread,) = {f"{100 * pd.Series([0.4, 0.5]).std():.1f}"}
    assert texts(ax) == ["30.0\n± 0.0", "62.5\n± 17.7", "", "12.0\n± 0.0", f"45.0\n± {spread}", "", "failed"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.001", "0.1\n(1 of 3 diverged)", "7"]
    assert facts(plot_weight_decay(decays)).splitlines() == [
        "weight decay 0.001: training 30.0% ± 0.0, validation 12.0% ± 0.0",
        f"weight decay 0.1: training 62.5% ± 17.7, validation 45.0% ± {spread} (1 of 3 diverged)",
        "weight decay 7: failed",
    ]


def test_a_line_is_the_mean_of_the_seeds_that_continue_and_a_trial_without_an_epoch_has_none(trials):
    second = trials.assign(val_accuracy=trials["val_accuracy"] + 0.1, diverged=False, state="completed")
    results = pd.concat([trials.assign(seed=0), second.assign(seed=1)])
    failed = pd.DataFrame(
        [{"lr": 0.001, "batch_size": 32, "epoch": 0, "diverged": False, "state": "failed", "seed": 0}]
    )
    high, low = plot_trials(pd.concat([results, failed], ignore_index=True))
    lines = [list(line.get_ydata()) for line in high.lines if line.get_marker() == "o"]
    assert lines == [pytest.approx([15, 30]), pytest.approx([35, 45])]  # of batch size 16, 20 % diverged in epoch 2
    assert [len(line.get_xdata()) for line in high.lines if line.get_marker() == "x"] == [1, 0]
    assert [len(line.get_xdata()) for line in low.lines if line.get_marker() == "o"] == [2, 0]
    assert len(plot_trials(failed.assign(val_accuracy=float("nan")))) == 1  # only a failed trial
    text = facts(plot_trials(pd.concat([results, failed], ignore_index=True))).splitlines()
    assert text == [
        "lr 0.1, batch size 16: 15.0% ± 7.1, 30.0% (1 of 2 diverged)",
        "lr 0.1, batch size 32: 35.0% ± 7.1, 45.0% ± 7.1",
        "lr 0.001, batch size 16: 55.0% ± 7.1, 65.0% ± 7.1",
        "lr 0.001, batch size 32: failed",
    ]


def test_a_seed_that_was_lost_is_counted_in_every_later_epoch():
    """Of three seeds one diverges in epoch 2 of 4, and one fails after epoch 3."""
    accuracies = {0: (0.3, 0.4, 0.5, 0.6), 1: (0.1, 0.1), 2: (0.2, 0.3, 0.4)}
    states = {0: "completed", 1: "diverged", 2: "failed"}
    rows = [
        (0.1, 16, seed, epoch, accuracy, (seed, epoch) == (1, 2), states[seed])
        for seed, values in accuracies.items()
        for epoch, accuracy in enumerate(values, 1)
    ]
    columns = ["lr", "batch_size", "seed", "epoch", "val_accuracy", "diverged", "state"]
    results = pd.DataFrame(rows, columns=columns)
    (ax,) = plot_trials(results)
    mean, cross = ax.lines
    assert list(mean.get_ydata()) == pytest.approx([20, 35, 45, 60])
    assert list(cross.get_xdata()) == [2] and list(cross.get_ydata()) == pytest.approx([35])
    assert texts(ax) == ["batch 16, 1 of 3 diverged, 1 of 3 failed"]
    assert facts(plot_trials(results)) == (
        "lr 0.1, batch size 16: 20.0% ± 10.0, 35.0% ± 7.1 (1 of 3 diverged), 45.0% ± 7.1 (1 of 3 diverged), "
        "60.0% (1 of 3 diverged, 1 of 3 failed)"
    )
    first_failed = pd.DataFrame([(0.1, 16, 3, 0, float("nan"), False, "failed")], columns=columns)
    text = facts(plot_trials(pd.concat([results[results["seed"] == 0], first_failed])))
    assert text.endswith("30.0% (1 of 2 failed), 40.0% (1 of 2 failed), 50.0% (1 of 2 failed), 60.0% (1 of 2 failed)")


def test_class_balance_is_the_share_of_each_class_in_each_part():
    parts = {"training": torch.tensor([0, 0, 0, 1]), "validation": torch.tensor([0, 1])}
    ax = plot_class_balance(parts, ["cat", "dog"])
    assert [[bar.get_height() for bar in bars] for bars in ax.containers] == [[75, 25], [50, 50]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    assert facts(plot_class_balance(parts, ["cat", "dog"])).splitlines()[1].split() == ["cat", "75.0%", "50.0%"]


def test_folds_show_what_each_image_is_for():
    folds = [(torch.tensor([0, 3]), torch.tensor([2, 1])), (torch.tensor([1, 2]), torch.tensor([0]))]
    ax = plot_folds(folds)
    use = ax.collections[0].get_array()
    assert use.shape == (2, 4) and use[0].tolist() == [0, 1, 1, 0]
    assert use.mask[1].tolist() == [False, False, False, True]  # neither in training nor in validation
    assert facts(plot_folds(folds)).splitlines()[0] == "fold 1: trains on 2 images, validates on 1, 2"


def test_leaks_are_drawn_one_above_the_other(image_set):
    pairs = pd.DataFrame({"train_index": [3, 16], "other_index": [0, 29], "kind": ["exact", "near"]})
    leaks = pairs.assign(distance=[0.0, 0.2])
    axes = plot_leaks(image_set, image_set, leaks)
    assert [ax.get_title() for ax in axes] == ["red", "green", "", "", "", "", "red", "blue", "", "", "", ""]
    assert (axes[0].get_ylabel(), axes[6].get_ylabel()) == ("training", "the other set")
    assert facts(plot_leaks(image_set, image_set, leaks)).splitlines()[1] == (
        "near, distance 0.20: training image 16, green, and image 29, blue"
    )


def test_a_heat_map_marks_what_cannot_be_told_apart_from_the_best(grid_with_bits):
    ax = plot_grid(grid_with_bits)
    assert [text for text in texts(ax) if "±" in text] == ["± 3.1\nbest", "± 3.1\n≈ best", "± 3.5", "± 3.2"]
    assert "75.0% ± 3.1 (best)" in facts(ax)
    assert "73.5% ± 3.1 (≈ best)" in facts(ax)
    assert "± standard error with 200 images, in percentage points" in facts(ax)
    # 3 images are noise, 60 are not: the bar is as long as their middle, at the upper end of the scale.
    assert "smallest visible difference from the best: 15.8 percentage points" in facts(ax)
    scale = ax.figure.axes[1]
    low, high = scale.collections[-1].get_segments()[0][:, 1]
    assert high == pytest.approx(scale.get_ylim()[1]) == pytest.approx(75)
    assert high - low == pytest.approx(15.75)
    assert "± standard error with 200 images" in scale.get_ylabel()


def test_a_heat_map_of_a_loss_or_without_the_bits_has_no_marks(grid_with_bits):
    assert "best" not in facts(plot_grid(grid_with_bits.assign(val_loss=1.0), metric="val_loss"))
    ax = plot_grid(grid_with_bits.drop(columns="val_right"))
    assert "best" not in facts(ax)
    assert ax.figure.axes[1].get_ylabel() == "validation accuracy (%)\n± standard error with 200 images"
    ax = plot_grid(grid_with_bits.drop(columns=["val_right", "val_images"]))
    assert ax.figure.axes[1].get_ylabel() == "validation accuracy (%)"
