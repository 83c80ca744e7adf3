"""The results of searches: the heat map of any metric, and the curves of any point."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.patches import Rectangle

from cnnlesson.plots import blank, description, plot_grid, plot_history
from cnnlesson.plots.figures import MARK_COLOUR
from cnnlesson.plots.trials import METRICS
from cnnlesson.results import best_point, last_epochs
from cnnlesson.training import Epoch
from cnnlesson.widgets.explorer import Choice, Explorer

POINT = {"weight_decay": "weight decay", "lr": "learning rate", "batch_size": "batch size"}


def explore_results(results: Mapping[str, pd.DataFrame]) -> Explorer:
    """The results of one or more searches over learning rates, batch sizes and weight decays.

    Args:
        results: the table of each network's search by the network's name; it may be unfinished.

    Raises:
        ValueError: a table lacks one of the three hyper-parameters.
    """
    for name, table in results.items():
        for column in POINT:
            if column not in table:
                raise ValueError(
                    f"the results of {name} have no column {column}: pass the table of a search over lr, batch_size "
                    "and weight_decay"
                )
    controls = {
        "name": Choice("network", list(results)),
        "metric": Choice("metric", [(label, column) for column, label in METRICS.items()]),
        **{column: Choice(label, []) for column, label in POINT.items()},
    }

    def offer_point(table: pd.DataFrame) -> list[float]:
        options = {column: [(f"{value:g}", value) for value in sorted(set(table[column]))] for column in POINT}
        return [controls[column].offer(options[column]) for column in POINT]

    first = next(iter(results.values()))
    offer_point(first)
    best = best_point(first, allow_unfinished=True)
    for column in POINT if best else ():
        controls[column].value = best[column]  # start where there is most to see

    def draw(name: str, metric: str, **chosen: float) -> tuple:
        table = results[name]
        weight_decay, lr, batch_size = offer_point(table)  # as chosen, unless this network has no such trial
        table = table[table["weight_decay"] == weight_decay]
        trials = last_epochs(table)
        point = table[(table["lr"] == lr) & (table["batch_size"] == batch_size)]
        grid_axes, *curve_axes = blank(1, 3, (12, 4), width_ratios=[1.3, 1, 1])
        plot_grid(trials, grid_axes, metric)
        if not point.empty:
            rates, batch_sizes = sorted(set(trials["lr"]), reverse=True), sorted(set(trials["batch_size"]))
            corner = batch_sizes.index(batch_size) - 0.5, rates.index(lr) - 0.5
            mark = {"fill": False, "edgecolor": MARK_COLOUR, "linewidth": 4, "clip_on": False}
            grid_axes.add_patch(Rectangle(corner, 1, 1, **mark))
        title = f"learning rate {lr:g}, batch size {batch_size:g}"
        history = _history(point)
        if history:
            plot_history(history, curve_axes)
            curve_axes[0].set_title(title)
            history_text = description(curve_axes).text
        else:
            for ax in curve_axes:
                ax.set_axis_off()
            history_text = "no trial has completed an epoch at this point"
        text = f"{name}, {METRICS[metric]}, weight decay {weight_decay:g}\n{description(grid_axes).text}"
        return [grid_axes, *curve_axes], f"{text}\n\n{title}:\n{history_text}"

    return Explorer(controls, draw)


def _history(point: pd.DataFrame) -> list[Epoch]:
    """The epochs of a point's first seed."""
    if "seed" in point:
        point = point[point["seed"] == point["seed"].min()]
    rows = point[point["epoch"] > 0].rename(columns={"epoch": "number"}).to_dict("records")
    return [Epoch(**{name: row[name] for name in Epoch.__dataclass_fields__ if name in row}) for row in rows]
