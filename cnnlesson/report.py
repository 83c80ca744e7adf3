"""The report that a student hands in, and a run beside a reference run.

`write` makes one text in Markdown, with the figures beside it, and from that text one page in HTML that holds all.
"""

import base64
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import mistune
import pandas as pd
from matplotlib.figure import Figure
from mistune.plugins.table import table as tables
from mistune.plugins.table import table_in_quote as tables_in_quotes

from cnnlesson.plots import blank, outcomes, plot_grid, plot_trials, plot_weight_decay, trial_curves
from cnnlesson.reference import files as measured_files
from cnnlesson.results import at_point, best_point, grid_names, last_epochs
from cnnlesson.runtime.atomic import atomic_write, make_folder
from cnnlesson.runtime.display import count

AXES = ["lr", "batch_size"]  # of a heat map
WORDS = {"lr": "learning rate"}  # of names that are no words when their underscores are spaces
MOST_EPOCHS = 10  # columns that fit on a page
CLOSE = 0.05  # a difference that `compare_text` counts as small: five percentage points
STATES = ("completed", "diverged", "failed")  # that a report always counts
STYLE = """\
body {
  max-width: 56rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif;
  color: #111; background: #fff;
}
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 0.5rem; }
h2 { border-bottom: 1px solid #999; padding-bottom: 0.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #bbb; padding: 0.25rem 0.6rem; text-align: left; vertical-align: top; }
th { background: #eee; }
td:last-child { overflow-wrap: anywhere; } /* long values, such as the reason of a failure */
img { display: block; max-width: 100%; max-height: 22rem; margin: 1rem 0; }
blockquote { margin: 1rem 0; padding: 0 1rem; border-left: 4px solid #0072b2; }
blockquote :is(h1, h2, h3) { font-size: 1.1rem; margin: 1rem 0 0.5rem; border: 0; }
pre { overflow-x: auto; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  h1, h2, h3, p:has(+ table) { break-after: avoid; }
  table { font-size: 8pt; }
  table, img { break-inside: avoid; }
  img { max-height: 18rem; }
}
"""


class Chosen(NamedTuple):
    """The one trial that was chosen on the validation images, and what it reached."""

    model: str
    point: dict  # such as {"lr": 0.1, "batch_size": 16, "weight_decay": 0.0005}
    val_accuracy: float  # between 0 and 1
    test_accuracy: float  # between 0 and 1
    num_test_images: int


class Picture(NamedTuple):
    """A figure of the report."""

    name: str  # of its file, without the ending
    description: str  # for who does not see it
    figure: Figure


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

    results.csv has all epochs, and results.json is its record, so `cnnlesson.reference.load("results", folder)` reads
    them, and `compare` can put another run beside them. The page in HTML holds its figures and loads nothing. All files
    are written before the first takes its place: an earlier report stays where a new one cannot be written.

    Args:
        results: the table of each model's search by the model's name: a row a trial and epoch.
        num_classes: says how often guessing is right.
        conclusions: the student's own, in Markdown.
        about: what the results depend on, as plain values: settings, seeds, versions, hardware.
        chosen: the trial that was looked at with the test images; None where none was yet.

    Raises:
        ValueError: there is no trial in `results`, or they are not over learning rates and batch sizes.
        OSError: the folder cannot be made or written.
    """
    if isinstance(results, pd.DataFrame):
        raise TypeError('the results must be given by model: {"AlexNet": results}')
    results = {model: table for model, table in results.items() if len(table)}
    if not results:
        raise ValueError("there is no trial to report yet: run the search first")
    for model, table in results.items():
        missing = [name for name in AXES if name not in table]
        if missing:
            raise ValueError(
                f"the results of {model} have no column {missing[0]}: the report wants a grid over lr and batch_size"
            )
    title = f"Hyper-parameters of {_and(list(results))}"
    blocks = [
        f"# {_plain(title)}",
        _introduction(results, num_classes),
        *(block for number, model in enumerate(results, 1) for block in _model(number, model, results[model])),
        *_side_by_side(results),
        *_choice(chosen),
        *_conclusions(conclusions),
        *_circumstances(about),
        f"All epochs of all trials are in results.csv: {count(sum(map(len, results.values())), 'row')}.",
    ]
    pictures = {f"{block.name}.png": block for block in blocks if isinstance(block, Picture)}
    images = {name: _png(picture.figure) for name, picture in pictures.items()}
    text = "\n\n".join(_markdown(block) for block in blocks) + "\n"
    rows = [{"model": model} | row for model, table in results.items() for row in table.to_dict("records")]
    files = (
        images
        | measured_files("results", pd.DataFrame(rows), dict(about))
        | {
            "report.md": text.encode(),
            "report.html": _page(title, text, images).encode(),
        }
    )
    folder = make_folder(folder)
    try:
        with ExitStack() as unfinished:
            for name, content in files.items():
                unfinished.enter_context(atomic_write(folder / name)).write_bytes(content)
    except OSError as error:
        raise OSError(
            f"the report cannot be written into {folder} ({error.strerror}): make room, or name another folder"
        ) from error
    return folder / "report.html"


def compare(results: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Validation accuracy after the last epoch of a run and of a reference run: a row a point of either.

    The columns are validation, reference and difference, in shares between 0 and 1; of several seeds it is the mean. A
    point that one of the runs lacks, or at which no trial of it completed, has no number there.

    Args:
        results: the table of a search.
        reference: the same of one model, such as part of `cnnlesson.reference.load(NAME).table`.

    Raises:
        ValueError: the reference is over other hyper-parameters, or has several models.
    """
    models = list(reference["model"].unique()) if "model" in reference else []
    if len(models) > 1:
        raise ValueError(
            f"the reference has several models ({', '.join(models)}): choose one, "
            f"such as reference[reference.model == {models[0]!r}]"
        )
    names, reference_names = _point_names(results), _point_names(reference)
    if set(names) != set(reference_names):
        raise ValueError(
            f"the results are over {', '.join(names)}, the reference is over {', '.join(reference_names)}: "
            "give runs over the same hyper-parameters"
        )
    both = {"validation": _val_accuracy(results, names), "reference": _val_accuracy(reference, names)}
    table = pd.concat(both, axis=1, sort=False)
    return table.assign(difference=table["validation"] - table["reference"])


def compare_text(results: pd.DataFrame, reference: pd.DataFrame) -> str:
    """`compare` in percent, and a line on how close the two are."""
    table = compare(results, reference).sort_index()
    names = table.index.names
    table = table.reset_index()
    words = table[names].map("{:g}".format)
    for column, form in (("validation", "{:.1f}%"), ("reference", "{:.1f}%"), ("difference", "{:+.1f}")):
        words[column] = (100 * table[column]).map(form.format, na_action="ignore").fillna("-")
    lines = words.rename(columns=_in_words).to_string(index=False)
    both = table.dropna()
    if both.empty:
        return f"{lines}\nno point has a number in both"
    sizes = both["difference"].abs()
    num_close = (sizes <= CLOSE + 1e-9).sum()  # 0.55 - 0.5 is a little more than 0.05
    furthest = both.loc[sizes.idxmax()]
    return (
        f"{lines}\n{num_close} of {count(len(both), 'point')} with a number in both are within {100 * CLOSE:g} "
        "percentage points\n"
        f"the largest difference is {100 * furthest['difference']:+.1f}, at {_point(furthest[names])}"
    )


def _val_accuracy(results: pd.DataFrame, names: list[str]) -> pd.Series:
    """After the last epoch, by point, in the order of the table: the mean of the seeds that completed."""
    last = last_epochs(results)
    return last["val_accuracy"].where(last["state"] == "completed").groupby([last[n] for n in names], sort=False).mean()


# The parts of the report: each is a list of paragraphs in Markdown and of pictures.


def _introduction(results: Mapping[str, pd.DataFrame], num_classes: int) -> str:
    searches = []
    for model, table in results.items():
        epochs = table["epochs"].max()  # not a number where all trials failed at once
        length = "" if pd.isna(epochs) else f" of {count(int(epochs), 'epoch')}"
        searches.append(f"{_plain(model)}: {count(len(last_epochs(table)), 'trial')}{length}")
    return (
        f"{'; '.join(searches)}. Accuracy is the share of images whose class is named rightly; guessing among "
        f"{num_classes:,} classes gives {1 / num_classes:.1%}. Hyper-parameters are chosen on validation images, which "
        "no network was trained on. A trial diverged where its loss was not a finite number any more; it ended there."
    )


def _model(number: int, model: str, results: pd.DataFrame) -> Iterator[str | Picture]:
    """The section of one model: its grids, the effect of weight decay, and what failed."""
    prefix = f"{number}-{_slug(model)}"
    yield f"## {_plain(model)}"
    others = [name for name in _point_names(results) if name not in AXES]
    is_alone = len(results[_point_names(results)].drop_duplicates()) == 1
    for values, grid in results.groupby(others) if others else [((), results)]:
        if is_alone or len(grid[AXES].drop_duplicates()) > 1:
            yield from _grid(prefix, model, dict(zip(others, values, strict=True)), grid)
    if "weight_decay" in others:
        yield from _weight_decay(prefix, model, results)
    yield from _failed(results)


def _grid(prefix: str, model: str, point: dict, results: pd.DataFrame) -> Iterator[str | Picture]:
    """Learning rate by batch size: the table, the heat map and the curves of the trials."""
    where = _point(point) or "learning rate and batch size"
    seeds = results["seed"].nunique() if "seed" in results else 1
    mean = f", the mean of {seeds} seeds ± their standard deviation in percentage points" if seeds > 1 else ""
    last = last_epochs(results)
    found = outcomes(last, AXES, "val_accuracy")["words"].unstack().sort_index(ascending=False).fillna("")
    yield f"### {_capital(where)}"
    yield f"Validation accuracy after the last epoch{mean}:"
    yield _table(
        ["learning rate", *(f"batch size {batch_size:g}" for batch_size in found.columns)],
        [[f"{lr:g}", *words] for lr, words in zip(found.index, found.to_numpy(), strict=True)],
    )
    if "pruned" in set(last["state"]):
        yield "A pruned trial was ended early; its accuracy is that of the epoch it reached."
    title = f"{model}, {where}"
    file = _slug(f"{prefix}-{where}")
    if len(last[AXES].drop_duplicates()) > 1:
        ax = plot_grid(last, blank())
        ax.set_title(title, fontsize=11, parse_math=False)
        yield Picture(f"{file}-heat-map", f"Heat map of the table above: {title}", ax.figure)
    curves = trial_curves(results)["words"].unstack("epoch").fillna("")
    if curves.empty:
        return
    epochs = curves.columns
    some = ""
    if len(epochs) > MOST_EPOCHS:
        epochs = [epochs[round(k * (len(epochs) - 1) / (MOST_EPOCHS - 1))] for k in range(MOST_EPOCHS)]
        some = f" (here {MOST_EPOCHS} of them, in results.csv all)"
    yield f"Validation accuracy after each epoch{some}{mean}:"
    yield _table(
        ["learning rate", "batch size", *(f"epoch {epoch}" for epoch in epochs)],
        [
            [f"{lr:g}", f"{batch_size:g}", *curves.loc[(lr, batch_size), epochs]]
            for lr, batch_size in curves.sort_index(ascending=[False, True]).index
        ],
    )
    num_panels = results["lr"].nunique()
    axes = blank(1, num_panels, (3 * num_panels + 1.6, 3.2), sharey=True, squeeze=False)[0]
    plot_trials(results, axes)
    axes[0].figure.suptitle(title, fontsize=11, parse_math=False)
    yield Picture(f"{file}-curves", f"Curves of the table above: {title}", axes[0].figure)


def _weight_decay(prefix: str, model: str, results: pd.DataFrame) -> Iterator[str | Picture]:
    """Training and validation accuracy by weight decay, at the best of the points where several were tried."""
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
        "is taken while the weights change, with dropout and augmentation where there are any; so it can be the lower "
        "one."
    )
    yield _table(
        ["weight decay", "training", "validation", "gap"],
        [
            [f"{decay:g}", *words]
            for decay, *words in zip(validation.index, train["words"], validation["words"], gap, strict=True)
        ],
    )
    title = f"{model}, {_point(point)}"
    ax = plot_weight_decay(last, blank())
    ax.set_title(title, fontsize=11, parse_math=False)
    yield Picture(f"{prefix}-weight-decay", f"Bars of the table above: {title}", ax.figure)


def _failed(results: pd.DataFrame) -> Iterator[str]:
    last = last_epochs(results)
    failed = last[last["state"] == "failed"]
    if failed.empty:
        return
    names = grid_names(results)
    yield "### Trials that failed"
    yield _table(
        [*map(_in_words, names), "reason"],
        [[*(f"{row[name]:g}" for name in names), _plain(row["reason"])] for row in failed.to_dict("records")],
    )


def _side_by_side(results: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """A line a model: its best point, how far it came there, and what the search took."""
    states = {model: last_epochs(table)["state"].value_counts() for model, table in results.items()}
    others = sorted({state for counts in states.values() for state in counts.index} - set(STATES))
    rows = []
    for model, table in results.items():
        best = best_point(table)
        words = ["no trial completed", "", ""]
        if best is not None:
            at_best = last_epochs(at_point(table, best))
            words = [
                _point(best),
                *(
                    outcomes(at_best, list(best), figure)["words"].iloc[0]
                    for figure in ("val_accuracy", "train_accuracy")
                ),
            ]
        counts = [str(states[model].get(state, 0)) for state in (*STATES, *others)]
        rows.append([_plain(model), *words, *counts, f"{table['seconds'].sum() / 60:.1f}"])
    yield "## The models side by side" if len(results) > 1 else "## The search as a whole"
    yield "The best point has the highest validation accuracy after the last epoch, among the trials that completed."
    yield _table(["model", "best point", "validation", "training", *STATES, *others, "minutes"], rows)


def _choice(chosen: Chosen | None) -> Iterator[str]:
    yield "## The choice"
    if chosen is None:
        yield "No trial has been chosen yet, and the test images have not been looked at."
        return
    share = chosen.test_accuracy
    margin = 1.96 * math.sqrt(share * (1 - share) / chosen.num_test_images)
    yield (
        f"Chosen on the validation images: **{_plain(chosen.model)}** with {_point(chosen.point)}. Its validation "
        f"accuracy is {chosen.val_accuracy:.1%}."
    )
    yield (
        f"Its **test accuracy is {share:.1%}**, on {count(chosen.num_test_images, 'image')} that nothing was chosen "
        f"on. With so many images, 95 of 100 such figures are less than {100 * margin:.1f} percentage points from what "
        "all images of the kind would give."
    )


def _conclusions(conclusions: str) -> Iterator[str]:
    """What the student says, as a quotation: nothing in it, such as an open block of code, reaches beyond it."""
    yield "## Conclusions"
    if not conclusions.strip():
        yield "The student has not written any yet."
        return
    yield "In the student's own words:"
    harmless = re.sub(r"\\.|<(?=[A-Za-z/!?])", lambda match: r"\<" if match[0] == "<" else match[0], conclusions)
    yield "\n".join(f"> {line}".rstrip() for line in harmless.strip().splitlines())


def _circumstances(about: Mapping[str, object]) -> Iterator[str]:
    yield "## Circumstances"
    if about:
        yield _table(["what", "value"], [[_plain(name), _plain(_listed(value))] for name, value in about.items()])


# Words


def _point_names(results: pd.DataFrame) -> list[str]:
    """Of the hyper-parameters that make a point: the seed does not."""
    return [name for name in grid_names(results) if name != "seed"]


def _in_words(name: str) -> str:
    return WORDS.get(name, name.replace("_", " "))


def _point(point: Mapping[str, float]) -> str:
    return ", ".join(f"{_in_words(name)} {value:g}" for name, value in point.items())


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _slug(words: str) -> str:
    """For the name of a file."""
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")


# Markdown and HTML


def _plain(value: object) -> str:
    """Markdown that shows `value` as it is, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", " ".join(str(value).split()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("± ", "±\N{NO-BREAK SPACE}")


def _markdown(block: str | Picture) -> str:
    return f"![{_plain(block.description)}]({block.name}.png)" if isinstance(block, Picture) else block


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


class _SelfContained(mistune.HTMLRenderer):
    """Shows the report's own pictures, from within the page. Of others there is a link, and HTML is shown as text."""

    def __init__(self, images: Mapping[str, bytes]):
        super().__init__(escape=True)
        self.images = images

    def image(self, text: str, url: str, title: str | None = None) -> str:
        if url not in self.images:
            return self.link(text or url, url, title)
        return super().image(text, f"data:image/png;base64,{base64.b64encode(self.images[url]).decode()}", title)


def _page(title: str, text: str, images: Mapping[str, bytes]) -> str:
    """The page in HTML of a text in Markdown."""
    convert = mistune.create_markdown(renderer=_SelfContained(images), plugins=[tables, tables_in_quotes])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{mistune.escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
{convert(text)}</body>
</html>
"""
