"""Figures of what depth does: errors, the signals in each layer, and the size of what each block adds."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cnnlesson.plots.figures import (
    PLAIN_COLOUR,
    RESIDUAL_COLOUR,
    SERIES_COLOURS,
    WIDE,
    figure,
    label_ends,
    label_log_axis,
    new_axes,
)

_COLOURS = {"plain": PLAIN_COLOUR, "residual": RESIDUAL_COLOUR}


def depth_curves_text(results: pd.DataFrame) -> str:
    """The last point of each curve of `plot_depth_curves`, one line per network."""
    return "\n".join(
        f"{_kind(row.residual)}, {row.depth} layers, epoch {row.epoch}: "
        f"training error {row.train_error:.2%}, test error {row.test_error:.2%}"
        for row in _last_errors(results).itertuples()
    )


@figure("Curves of training and test error by epoch, plain networks left and residual ones right", depth_curves_text)
def plot_depth_curves(results: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Training error (dashed) and test error (solid) by epoch, for networks of several depths.

    Plain networks are on the left, residual ones on the right; a line is the mean of its seeds.

    Args:
        results: a row per network and epoch, with the columns depth, residual, seed, epoch, train_error and test_error
            (shares between 0 and 1), such as `cnnlesson.reference.load("cifar10_depth").table`.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE, sharey=True)[1]
    errors = _mean_errors(results)
    depths = sorted(results["depth"].unique())
    colours = {depth: SERIES_COLOURS[place % len(SERIES_COLOURS)] for place, depth in enumerate(depths)}
    for ax, is_residual in zip(axes, (False, True), strict=True):
        for depth, curve in errors[errors["residual"] == is_residual].groupby("depth"):
            style = {"color": colours[depth], "marker": "o" if len(curve) == 1 else ""}  # one epoch is no line
            ax.plot(curve["epoch"], 100 * curve["train_error"], "--", **style)
            ax.plot(curve["epoch"], 100 * curve["test_error"], "-", label=f"{depth} layers", **style)
        ax.set_title(_kind(is_residual))
        ax.set_xlabel("epoch")
        ax.set_ylabel("error (%)")
        ax.set_ylim(0, 105 * errors[["train_error", "test_error"]].max(axis=None))
        ax.set_xlim(0.5, errors["epoch"].max() + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        label_ends(ax)
    handles = [Line2D([], [], color="grey", label="test"), Line2D([], [], color="grey", ls="--", label="training")]
    axes[1].legend(handles=handles)
    return axes


def depth_text(results: pd.DataFrame, published: dict[int, float]) -> str:
    """The facts of `plot_depth`: one line per network, and one with the published errors."""
    errors = ", ".join(f"{depth} layers {error:.2%}" for depth, error in published.items())
    return f"{depth_curves_text(results)}\nresidual, test error as published (He et al., 2015): {errors}"


@figure("Training and test error by depth, plain and residual, with published test errors", depth_text)
def plot_depth(results: pd.DataFrame, published: dict[int, float], ax: Axes | None = None) -> Axes:
    """Training and test error after the last epoch by depth, plain and residual, with published test errors.

    Args:
        results: as in `plot_depth_curves`.
        published: test error by depth of residual networks: `cnnlesson.experiments.depth.PUBLISHED_TEST_ERROR`.
    """
    ax = ax or new_axes(WIDE)
    last = _last_errors(results)
    for kind, colour in _COLOURS.items():
        errors = last[last["residual"] == (kind == "residual")]
        for column, style, name in (("train_error", "o--", "training"), ("test_error", "o-", "test")):
            ax.plot(errors["depth"], 100 * errors[column], style, color=colour, label=f"{kind}, {name}")
    errors = [100 * error for error in published.values()]
    ax.plot(published.keys(), errors, "D:", color="grey", markerfacecolor="white", label="_published")
    ax.annotate(
        "residual, test, as published (He et al., 2015; not measured here)",
        (max(published), errors[-1]),
        (0, -9),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=11,
    )
    ax.set_xticks(sorted({*last["depth"], *published}))
    ax.set_xlabel("depth (layers)")
    ax.set_ylabel("error (%)")
    ax.set_ylim(bottom=0)
    label_ends(ax)
    return ax


def signals_text(signals: pd.DataFrame) -> str:
    """The facts of `plot_signals`, two lines per network."""
    return "\n".join(
        f"{network}, {len(sizes)} layers, {column}s: {_range_text(sizes[column])}"
        for network, sizes in signals.groupby("network", sort=False)
        for column in ("activation", "gradient")
    )


@figure("The size of the activations and of the gradients in each layer, from input to output", signals_text)
def plot_signals(signals: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The size of the activations (left) and of the gradients (right) in each layer of one or more networks.

    Args:
        signals: a row per network and layer, from input to output, with the columns network ("plain" or "residual"),
            activation and gradient, from `cnnlesson.signals.activation_sizes` and `gradient_norms`.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=(9.6, 3.6))[1]
    titles = {"activation": "size of the activations", "gradient": "norm of the gradient"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        networks = signals.groupby("network", sort=False)
        _plot_by_layer(ax, {network: sizes[column] for network, sizes in networks})
        ax.set_title(title)
    return _finish_by_layer(axes)


def gradient_norms_text(gradients: pd.DataFrame) -> str:
    """A summary of `plot_gradient_norms`, one line per curve."""
    curves = _deepest(gradients).groupby(["residual", "depth", "epochs_done"])
    return "\n".join(
        f"{_kind(residual)}, {depth} layers, {_when(epochs_done)}: {_range_text(curve['norm'])}"
        for (residual, depth, epochs_done), curve in curves
    )


@figure("The norm of the gradient in each layer of a plain and of a residual network", gradient_norms_text)
def plot_gradient_norms(gradients: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The norm of the gradient in each layer of the deepest plain and residual network, from input to output.

    Before training on the left, after one epoch on the right.

    Args:
        gradients: a row per network, epoch and layer, with the columns depth, residual, seed, epochs_done, layer and
            norm, such as `cnnlesson.reference.load("cifar10_gradients").table`; of several seeds the first is drawn.
    """
    axes = axes if axes is not None else plt.subplots(1, 2, figsize=WIDE, sharey=True)[1]
    gradients = _deepest(gradients)
    for ax, epochs_done in zip(axes, (0, 1), strict=True):
        norms = gradients[gradients["epochs_done"] == epochs_done].groupby("residual")["norm"]
        _plot_by_layer(ax, {_kind(is_residual): of_network for is_residual, of_network in norms})
        ax.set_title(f"{_when(epochs_done)}, {gradients['depth'].max()} layers")
        ax.set_ylabel("norm of the gradient")
    return _finish_by_layer(axes)


def _plot_by_layer(ax: Axes, networks: Mapping[str, pd.Series]) -> None:
    for network, sizes in networks.items():
        ax.semilogy(range(1, len(sizes) + 1), sizes, ".-", color=_COLOURS[network], label=network)
    ax.set_xlabel("layer, from input to output")
    ax.xaxis.get_major_locator().set_params(integer=True)


def _finish_by_layer(axes: Sequence[Axes]) -> Sequence[Axes]:
    """Label axes and curves, when all panels are drawn."""
    for ax in axes:
        label_log_axis(ax.yaxis)
        label_ends(ax)
    return axes


def residual_sizes_text(sizes: pd.DataFrame) -> str:
    """The facts of `plot_residual_sizes`, one line per block."""
    return "\n".join(
        f"{row.block}: x {row.x_size:.2f}, F(x) {row.residual_size:.2f}, ratio {row.residual_size / row.x_size:.2f}"
        for row in sizes.itertuples()
    )


@figure("The sizes of x and of F(x), block by block", residual_sizes_text)
def plot_residual_sizes(sizes: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The sizes of x and of F(x), block by block through a residual network.

    Args:
        sizes: from `cnnlesson.signals.residual_sizes`.
    """
    ax = ax or new_axes(WIDE)
    places = range(1, len(sizes) + 1)
    ax.plot(places, sizes["x_size"], "o-", color="grey", label="x (shortcut)")
    ax.plot(places, sizes["residual_size"], "o-", color=RESIDUAL_COLOUR, label="F(x) (block)")
    stages = sizes["block"].str.split(".").str[0]
    for place in places[1:]:
        if stages.iloc[place - 1] != stages.iloc[place - 2]:
            ax.axvline(place - 0.5, color="lightgrey", zorder=0)  # here the channels double
    ax.set_xlabel("residual block, from input to output\n(grey lines: the number of channels doubles)")
    ax.set_ylabel("root mean square")
    ax.set_ylim(bottom=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    label_ends(ax)
    return ax


def _mean_errors(results: pd.DataFrame) -> pd.DataFrame:
    """Training and test error by residual, depth and epoch: the mean over the seeds."""
    return results.groupby(["residual", "depth", "epoch"])[["train_error", "test_error"]].mean().reset_index()


def _last_errors(results: pd.DataFrame) -> pd.DataFrame:
    return _mean_errors(results).groupby(["residual", "depth"]).tail(1)


def _deepest(gradients: pd.DataFrame) -> pd.DataFrame:
    """The first seed of the deepest networks, before training and after one epoch."""
    drawn = gradients[(gradients["depth"] == gradients["depth"].max()) & (gradients["epochs_done"] <= 1)]
    return drawn[drawn["seed"] == gradients["seed"].min()]


def _kind(is_residual: bool) -> str:
    return "residual" if is_residual else "plain"


def _when(epochs_done: int) -> str:
    return "after one epoch" if epochs_done else "before training"


def _range_text(sizes: pd.Series) -> str:
    return (
        f"first layer {sizes.iloc[0]:.2g}, last layer {sizes.iloc[-1]:.2g}, smallest {sizes.min():.2g}, "
        f"largest {sizes.max():.2g}"
    )
