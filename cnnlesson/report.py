"""The report that a student hands in, and the comparison of a run with a reference run.

`write` writes the report in Markdown with its figures, and as one HTML page that contains the figures.
"""

import base64
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from matplotlib.figure import Figure
from scipy.stats import binomtest

from cnnlesson.noise import verdict
from cnnlesson.plots import blank, plot_grid, plot_trials, plot_weight_decay
from cnnlesson.plots.trials import outcomes, trial_curves, uncertainty
from cnnlesson.points import words
from cnnlesson.reference import files as measured_files
from cnnlesson.results import ENDED, at_point, best_point, grid_names, last_epochs, unfinished
from cnnlesson.runtime.atomic import advice, atomic_write, make_folder
from cnnlesson.runtime.display import count

AXES = ["lr", "batch_size"]  # of a heat map
MAX_EPOCHS = 10  # columns that fit on a page
CLOSE = 0.05  # five percentage points: a difference that `compare_text` counts as small
STYLE = Path(__file__).with_name("report.css")


class Chosen(NamedTuple):
    """The trial that was chosen on the validation images, and its accuracy."""

    model: str
    point: dict  # such as {"lr": 0.1, "batch_size": 16, "weight_decay": 0.0005}
    val_accuracy: float  # between 0 and 1
    test_accuracy: float  # between 0 and 1
    num_test_images: int


class Picture(NamedTuple):
    """A figure of the report. As text it is a link in Markdown."""

    file: str
    alt: str
    figure: Figure

    def __str__(self) -> str:
        return f"![{_plain(self.alt)}]({self.file})"


def write(
    results: Mapping[str, pd.DataFrame],
    folder: str | os.PathLike,
    *,
    num_classes: int,
    conclusions: str,
    about: Mapping[str, object],
    chosen: Chosen | None,
) -> Path:
    """Write report.md, report.html, the figures, results.csv and results.json; return the path of report.html.

    results.csv contains all epochs, and results.json is its record: `cnnlesson.reference.load("results", folder)` reads
    them, and `compare` compares another run with them. The HTML page contains its figures and loads nothing. An
    earlier report stays until the new one is complete.

    Args:
        results: the table of each model's search by the model's name.
        num_classes: the number of classes, for the chance level.
        conclusions: the student's own, in Markdown.
        about: what the results depend on, as plain values: settings, seeds, versions, hardware.
        chosen: the trial that was evaluated on the test images, or None if there was none yet.

    Raises:
        ValueError: `results` has no trials, is not over learning rates and batch sizes, or is unfinished.
        OSError: the folder cannot be created or written to.
    """
    if isinstance(results, pd.DataFrame):
        raise TypeError('pass the results by model, such as {"AlexNet": results}')
    results = {model: table for model, table in results.items() if len(table)}
    if not results:
        raise ValueError("there is no trial to report yet: run the search first")
    for model, table in results.items():
        missing = [name for name in AXES if name not in table]
        if missing:
            raise ValueError(
                f"the results of {model} have no column {missing[0]}: the report needs a grid over lr and batch_size"
            )
        if points := unfinished(table):
            raise ValueError(
                f"the results of {model} are unfinished: {len(points)} of {count(len(last_epochs(table)), 'point')} "
                f"have not ended ({words(points[0])}{'; ...' if len(points) > 1 else ''}): run the search to its end"
            )
    title = f"Hyper-parameters of {' and '.join(results)}"
    blocks = [
        f"# {_plain(title)}",
        *_introduction(results, num_classes),
        *(block for number, model in enumerate(results, 1) for block in _model(number, model, results[model])),
        *_side_by_side(results),
        *_choice(chosen),
        *_conclusions(conclusions),
        *_circumstances(about),
        f"All epochs of all trials are in results.csv: {count(sum(map(len, results.values())), 'row')}.",
    ]
    text = "\n\n".join(map(str, blocks)) + "\n"
    images = {block.file: _png(block.figure) for block in blocks if isinstance(block, Picture)}
    table = pd.concat([table.assign(model=model) for model, table in results.items()], ignore_index=True)
    table.insert(0, "model", table.pop("model"))
    if "val_right" in table:  # of the last epochs: with those of all, the file would be many times as large
        table["val_right"] = table["val_right"].where(table.index.isin(last_epochs(table).index), "")
    files = images | measured_files("results", table, dict(about))
    files |= {"report.md": text.encode(), "report.html": _page(title, text, images).encode()}
    folder = make_folder(folder)
    try:
        with ExitStack() as incomplete:  # each file takes its place when all are written
            for name, content in files.items():
                incomplete.enter_context(atomic_write(folder / name)).write_bytes(content)
    except OSError as error:
        raise OSError(
            f"the report cannot be written into {folder} ({error.strerror}): {advice(error)}, or choose another folder"
        ) from error
    return folder / "report.html"


def compare(results: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Validation accuracy after the last epoch of a run and of a reference run: a row per point of either.

    The columns are validation, reference and difference, as shares between 0 and 1; several seeds are averaged. A
    point has no number if it is missing from a run, or if one of its trials has not completed: the mean of the others
    would look better than the point is.

    Args:
        results: the table of a search.
        reference: the table of another search. A column "model" is allowed if it is the same in all rows.

    Raises:
        ValueError: the reference is over other hyper-parameters, or has several models.
    """
    if "model" in reference and "model" not in results:
        models = list(reference["model"].unique())
        if len(models) > 1:
            raise ValueError(
                f"the reference has several models ({', '.join(models)}): choose one, "
                f"such as reference[reference.model == {models[0]!r}]"
            )
        reference = reference.drop(columns="model")
    names, reference_names = _point_names(results), _point_names(reference)
    if set(names) != set(reference_names):
        raise ValueError(
            f"the results are over {', '.join(names)}, the reference is over {', '.join(reference_names)}: "
            "pass runs over the same hyper-parameters"
        )
    both = {"validation": _val_accuracy(results, names), "reference": _val_accuracy(reference, names)}
    table = pd.concat(both, axis=1, sort=False)
    return table.assign(difference=table["validation"] - table["reference"])


def compare_text(results: pd.DataFrame, reference: pd.DataFrame) -> str:
    """`compare` in percent, followed by how close the two runs are."""
    table = compare(results, reference).sort_index()
    names = table.index.names
    table = table.reset_index()
    formats = dict.fromkeys(map(_label, names), "{:g}".format)
    formats |= dict.fromkeys(("validation", "reference"), "{:.1%}".format)
    formats["difference"] = lambda difference: f"{100 * difference:+.1f}"
    lines = table.rename(columns=_label).to_string(index=False, na_rep="-", formatters=formats)
    both = table.dropna()
    if both.empty:
        return f"{lines}\nno point has a number in both runs"
    sizes = both["difference"].abs()
    num_close = (sizes <= CLOSE + 1e-9).sum()  # 0.55 - 0.5 is slightly more than 0.05
    furthest = both.loc[sizes.idxmax()]
    return (
        f"{lines}\n{num_close} of {count(len(both), 'point')} with a number in both runs are within {100 * CLOSE:g} "
        "percentage points\n"
        f"the largest difference is {100 * furthest['difference']:+.1f}, at {_point(furthest[names])}"
    )


def _val_accuracy(results: pd.DataFrame, names: list[str]) -> pd.Series:
    """After the last epoch, by point, in the order of the table: the mean of its trials, if all have completed."""
    last = last_epochs(results)
    completed = last["val_accuracy"].where(last["state"] == "completed")
    return completed.groupby([last[n] for n in names], sort=False).agg(lambda values: values.mean(skipna=False))


# The parts of the report: each yields paragraphs in Markdown and pictures.


def _introduction(results: Mapping[str, pd.DataFrame], num_classes: int) -> Iterator[str]:
    searches = []
    for model, table in results.items():
        epochs = table["epochs"].max()  # NaN if no trial has an epoch
        length = "" if pd.isna(epochs) else f" of {count(int(epochs), 'epoch')}"
        searches.append(f"{_plain(model)}: {count(len(last_epochs(table)), 'trial')}{length}")
    yield (
        f"{'; '.join(searches)}. Accuracy is the share of images that are classified correctly; chance level is "
        f"{1 / num_classes:.1%} for {num_classes:,} classes. Hyper-parameters are chosen on validation images, which "
        "no network was trained on. A trial diverged if its loss was no longer finite; it ended there."
    )


def _model(number: int, model: str, results: pd.DataFrame) -> Iterator[str | Picture]:
    """The section of one model: its grids, the effect of weight decay, and the trials that failed."""
    prefix = f"{number}-{_slug(model)}"
    yield f"## {_plain(model)}"
    others = [name for name in _point_names(results) if name not in AXES]
    is_only_one = len(results[_point_names(results)].drop_duplicates()) == 1
    for values, grid in results.groupby(others) if others else [((), results)]:
        if is_only_one or len(grid[AXES].drop_duplicates()) > 1:
            yield from _grid(prefix, model, dict(zip(others, values, strict=True)), grid)
    if "weight_decay" in others:
        yield from _weight_decay(prefix, model, results)
    last = last_epochs(results).set_index(grid_names(results))
    failed = last[last["state"] == "failed"]
    if len(failed):
        yield "### Trials that failed"
        yield _table(failed[["reason"]].map(_plain))


def _grid(prefix: str, model: str, point: dict, results: pd.DataFrame) -> Iterator[str | Picture]:
    """Learning rate by batch size: the table, the heat map and the curves of the trials."""
    where = _point(point) or "learning rate and batch size"
    title, file = f"{model}, {where}", _slug(f"{prefix}-{where}")
    plus_minus = f" ({uncertainty(results)}, in percentage points)" if uncertainty(results) else ""
    last = last_epochs(results)
    ends = outcomes(last, AXES, "val_accuracy")["text"].unstack().sort_index(ascending=False).fillna("")
    yield f"### {where[0].upper() + where[1:]}"
    yield f"Validation accuracy after the last epoch{plus_minus}:"
    yield _table(ends.rename(columns="batch size {:g}".format))
    if ends.size > 1:
        yield _picture(plot_grid(last, blank()).figure, f"{file}-heat-map", "Heat map", title)
        yield from _verdict(last)
    curves = trial_curves(results)["text"].unstack("epoch").fillna("")
    if curves.empty:
        return
    some = ""
    if curves.shape[1] > MAX_EPOCHS:
        curves = curves.iloc[:, np.linspace(0, curves.shape[1] - 1, MAX_EPOCHS).round().astype(int)]
        some = f" ({MAX_EPOCHS} of them here, all in results.csv)"
    yield f"Validation accuracy after each epoch{some}{plus_minus}:"
    yield _table(curves.sort_index(ascending=[False, True]).rename(columns="epoch {}".format))
    num_panels = results["lr"].nunique()
    axes = blank(1, num_panels, (3 * num_panels + 1.6, 3.2), sharey=True, squeeze=False)[0]
    plot_trials(results, axes)
    yield _picture(axes[0].figure, f"{file}-curves", "Curves", title)


def _weight_decay(prefix: str, model: str, results: pd.DataFrame) -> Iterator[str | Picture]:
    """Training and validation accuracy by weight decay, at the best of the points that were tried with several."""
    names = [name for name in _point_names(results) if name != "weight_decay"]
    with_several = results[results.groupby(names)["weight_decay"].transform("nunique") > 1]
    if with_several.empty:
        return
    best = best_point(with_several) or with_several.iloc[0]
    point = {name: best[name] for name in names}
    last = last_epochs(at_point(with_several, point))
    train = outcomes(last, ["weight_decay"], "train_accuracy")
    validation = outcomes(last, ["weight_decay"], "val_accuracy")
    gap = (100 * (train["mean"] - validation["mean"])).map("{:+.1f}".format, na_action="ignore").fillna("")
    yield "### The effect of weight decay"
    yield (
        f"At {_point(point)}. The gap is training minus validation accuracy, in percentage points. Training accuracy "
        "is measured while the weights change, with dropout and augmentation if they are used; it can be the lower one."
    )
    yield _table(pd.DataFrame({"training": train["text"], "validation": validation["text"], "gap": gap}))
    figure = plot_weight_decay(last, blank()).figure
    yield _picture(figure, f"{prefix}-weight-decay", "Bars", f"{model}, {_point(point)}")
    yield from _verdict(last)


def _verdict(trials: pd.DataFrame) -> Iterator[str]:
    if text := verdict(trials):
        yield _plain(text)


def _side_by_side(results: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """A line per model: its best point, the accuracies there, and how its trials ended."""
    rows = []
    for model, table in results.items():
        states = {state: (last_epochs(table)["state"] == state).sum() for state in ENDED}
        minutes = f"{table['seconds'].sum() / 60:.1f}"
        rows.append({"model": _plain(model), **_best(table), **states, "minutes": minutes})
    yield "## The models side by side" if len(results) > 1 else "## The search as a whole"
    yield "The best point has the highest validation accuracy after the last epoch, among the trials that completed."
    yield _table(pd.DataFrame(rows).set_index("model"))


def _best(results: pd.DataFrame) -> dict[str, str]:
    """The best point of a search, with its validation and training accuracy."""
    best = best_point(results)
    if best is None:
        return {"best point": "no trial completed", "validation": "", "training": ""}
    last = last_epochs(at_point(results, best))
    metrics = {"validation": "val_accuracy", "training": "train_accuracy"}
    accuracies = {name: outcomes(last, AXES, metric)["text"].iloc[0] for name, metric in metrics.items()}
    return {"best point": _point(best), **accuracies}


def _choice(chosen: Chosen | None) -> Iterator[str]:
    yield "## The choice"
    if chosen is None:
        yield "No trial has been chosen yet, and no network has been evaluated on the test images."
        return
    yield (
        f"Chosen on the validation images: **{_plain(chosen.model)}** with {_point(chosen.point)}. Its validation "
        f"accuracy is {chosen.val_accuracy:.1%}."
    )
    num_right = round(chosen.test_accuracy * chosen.num_test_images)
    low, high = binomtest(num_right, chosen.num_test_images).proportion_ci(method="wilson")
    yield (
        f"Its **test accuracy is {chosen.test_accuracy:.1%}**, on {count(chosen.num_test_images, 'image')} that no "
        f"choice depends on (95% confidence interval: {low:.1%} to {high:.1%})."
    )


def _conclusions(conclusions: str) -> Iterator[str]:
    """The student's conclusions as a quotation, so that nothing in them, such as an open code block, extends beyond."""
    yield "## Conclusions"
    if not conclusions.strip():
        yield "The student has not written any yet."
        return
    yield "In the student's own words:"
    harmless = re.sub(r"\\.|<(?=[A-Za-z/!?])", lambda match: r"\<" if match[0] == "<" else match[0], conclusions)
    yield "\n".join(f"> {line}".rstrip() for line in harmless.strip().splitlines())


def _circumstances(about: Mapping[str, object]) -> Iterator[str]:
    yield "## Experimental setup"
    texts = {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value for name, value in about.items()
    }
    if texts:
        yield _table(pd.DataFrame(texts.items(), columns=["what", "value"]).map(_plain).set_index("what"))


# Text


def _point_names(results: pd.DataFrame) -> list[str]:
    """The hyper-parameters that make a point; the seed is not one of them."""
    return [name for name in grid_names(results) if name != "seed"]


def _label(name: str) -> str:
    return "learning rate" if name == "lr" else name.replace("_", " ")


def _point(point: Mapping[str, float]) -> str:
    return words({_label(name): value for name, value in point.items()})


def _slug(text: str) -> str:
    """For the name of a file."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


# Markdown and HTML


def _plain(value: object) -> str:
    """Markdown that shows `value` unchanged, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", " ".join(str(value).split()))


def _table(cells: pd.DataFrame) -> str:
    """A table of text and numbers in Markdown; the levels of the index are its first columns."""
    cells = cells.reset_index()
    rows = [[cell if isinstance(cell, str) else f"{cell:g}" for cell in row] for row in cells.itertuples(index=False)]
    lines = [map(_label, cells), ["---"] * cells.shape[1], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("± ", "±\N{NO-BREAK SPACE}")


def _picture(figure: Figure, name: str, kind: str, title: str) -> Picture:
    figure.suptitle(title, fontsize=11, parse_math=False)
    return Picture(f"{name}.png", f"{kind} of the table above: {title}", figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _page(title: str, text: str, images: Mapping[str, bytes]) -> str:
    """The HTML page of a text in Markdown: it embeds the report's own pictures, and shows HTML as text.

    Other pictures become links.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")

    def image(renderer, tokens, index, options, env) -> str:
        url = tokens[index].attrs["src"]
        if url not in images:
            return f'<a href="{escapeHtml(url)}">{escapeHtml(tokens[index].content or url)}</a>'
        tokens[index].attrs["src"] = f"data:image/png;base64,{base64.b64encode(images[url]).decode()}"
        return renderer.image(tokens, index, options, env)

    markdown.add_render_rule("image", image)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escapeHtml(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
{markdown.render(text)}</body>
</html>
"""
