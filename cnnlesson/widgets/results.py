"""The results of searches: the heat map of any metric, and the curves of any point."""

from collections.abc import Mapping

import ipywidgets
import pandas as pd
from matplotlib.patches import Rectangle

from cnnlesson.plots import METRICS, grid_text, history_text, plot_grid, plot_history
from cnnlesson.plots.figures import MARK_COLOUR, blank_mosaic
from cnnlesson.results import best_point, last_epochs
from cnnlesson.search import GridSearch
from cnnlesson.training import Epoch
from cnnlesson.widgets.explorer import Choice, Explorer


def explore_results(sources: Mapping[str, pd.DataFrame | GridSearch]) -> Explorer:
    """The results of one or more searches over learning rates, batch sizes and weight decays.

    Args:
        sources: by the name of the network: a table of results, such as `GridSearch.run` gives it, or the search
            itself, which is then read anew at each look, also while another process runs it.
    """
    controls = {
        "name": Choice("network", list(sources)),
        "metric": Choice("metric", [(words, column) for column, words in METRICS.items()]),
        "weight_decay": Choice("weight decay", []),
        "lr": Choice("learning rate", []),
        "batch_size": Choice("batch size", []),
    }

    def offer_points() -> None:
        source = sources[controls["name"].value]
        for column in ("weight_decay", "lr", "batch_size"):
            controls[column].offer([(f"{value:g}", value) for value in _values(source, column)])

    offer_points()
    first = sources[controls["name"].value]
    best = None if isinstance(first, GridSearch) else best_point(first)
    for column, value in (best or {}).items():
        controls[column].value = value  # at first, where there is most to see

    def draw(name: str, metric: str, weight_decay: float, lr: float, batch_size: int) -> tuple:
        source = sources[name]
        table = source.results() if isinstance(source, GridSearch) else source
        table = table[(table["weight_decay"] == weight_decay) & (table["epoch"] > 0)]
        if table.empty:
            raise ValueError(f"{name} has no finished epoch with weight decay {weight_decay:g}: choose another one")
        trials = last_epochs(table)
        point = table[(table["lr"] == lr) & (table["batch_size"] == batch_size)]
        axes = blank_mosaic([["grid", "loss", "accuracy"]], (12, 4), width_ratios=[1.3, 1, 1])
        plot_grid(trials, axes["grid"], metric)
        rows, columns = sorted(trials["lr"].unique(), reverse=True), sorted(trials["batch_size"].unique())
        if not point.empty:
            corner = columns.index(batch_size) - 0.5, rows.index(lr) - 0.5
            axes["grid"].add_patch(
                Rectangle(corner, 1, 1, fill=False, edgecolor=MARK_COLOUR, linewidth=4, clip_on=False)
            )
        words = [f"{name}, {METRICS[metric]}, weight decay {weight_decay:g}", grid_text(trials, metric)]
        title = f"learning rate {lr:g}, batch size {batch_size:g}"
        words.append(f"\n{title}:")
        if point.empty:
            words.append("no trial here has ended an epoch")
            axes["loss"].set_axis_off()
            axes["accuracy"].set_axis_off()
        else:
            history = _history(point)
            plot_history(history, [axes["loss"], axes["accuracy"]])
            axes["loss"].set_title(title)
            words.append(history_text(history))
        return axes["grid"], "\n".join(words)

    explorer = Explorer(controls, draw, offer_points)
    if any(isinstance(source, GridSearch) for source in sources.values()):
        again = ipywidgets.Button(description="Read again", tooltip="read the results of the search once more")
        again.on_click(lambda _: explorer.redraw())
        explorer.box.children = (again, *explorer.box.children)
    return explorer


def _values(source: pd.DataFrame | GridSearch, column: str) -> list[float]:
    """The values of a hyper-parameter in a search, the smallest first."""
    table = pd.DataFrame(source.points) if isinstance(source, GridSearch) else source
    return sorted(set(table[column].tolist()))


def _history(point: pd.DataFrame) -> list[Epoch]:
    """The epochs of a point, of several seeds the first."""
    if "seed" in point:
        point = point[point["seed"] == point["seed"].min()]
    rows = point.rename(columns={"epoch": "number"})[list(Epoch.__dataclass_fields__)]
    return [Epoch(**row) for row in rows.to_dict("records")]
