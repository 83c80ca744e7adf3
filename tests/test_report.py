import base64
import csv
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnlesson import reference, report
from cnnlesson.report import Chosen, compare, compare_text

COLUMNS = [
    *("lr", "batch_size", "weight_decay", "epoch", "epochs", "train_loss", "train_accuracy", "val_loss"),
    *("val_accuracy", "learning_rate", "seconds", "images_per_second", "diverged", "state", "reason"),
]


def trial(lr, batch_size, weight_decay, accuracies, state="completed", reason="", **names):
    """The rows of a trial with these validation accuracies; training accuracy is 0.1 higher, an epoch is a minute."""
    point = {"lr": lr, "batch_size": batch_size, "weight_decay": weight_decay, **names}
    ending = {"state": state, "reason": reason}
    if not accuracies:
        return [point | ending | {"epoch": 0, "diverged": False}]
    return [
        point
        | ending
        | {"epoch": number, "epochs": 3, "val_accuracy": accuracy, "train_accuracy": accuracy + 0.1, "seconds": 60.0}
        | {"train_loss": 2.0, "val_loss": 2.1, "learning_rate": lr, "images_per_second": 100.0}
        | {"diverged": state == "diverged" and number == len(accuracies)}
        for number, accuracy in enumerate(accuracies, start=1)
    ]


def table(*trials):
    columns = COLUMNS if "seed" not in trials[0][0] else [*COLUMNS[:3], "seed", *COLUMNS[3:]]
    return pd.DataFrame([row for rows in trials for row in rows], columns=columns)


@pytest.fixture(scope="module")
def alexnet():
    return table(
        trial(0.1, 16, 0.0005, [0.05, 0.01], "diverged"),
        trial(0.1, 32, 0.0005, [], "failed", "out of memory | <b>4 GB</b>\nuse *smaller* batches"),
        trial(0.001, 16, 0.0005, [0.2, 0.3, 0.41]),
        trial(0.001, 32, 0.0005, [0.1, 0.2, 0.35]),
        trial(0.0001, 16, 0.0005, [0.05, 0.08, 0.08]),
        trial(0.0001, 32, 0.0005, [0.05, 0.08, 0.125]),
        trial(0.001, 16, 0.0, [0.2, 0.3, 0.38]),
        trial(0.001, 16, 0.05, [0.02, 0.01], "diverged"),
    )


@pytest.fixture(scope="module")
def resnet():
    """Three seeds per point; at one point the second seed diverged."""
    return table(
        trial(0.1, 16, 0.0005, [0.3, 0.5, 0.52], seed=0),
        trial(0.1, 16, 0.0005, [0.01], "diverged", seed=1),
        trial(0.1, 16, 0.0005, [0.3, 0.5, 0.56], seed=2),
        *(trial(0.001, 16, 0.0005, [0.3, 0.5, last], seed=seed) for seed, last in enumerate((0.61, 0.64, 0.58))),
    )


CHOSEN = Chosen("resnet18", {"lr": 0.001, "batch_size": 16, "weight_decay": 0.0005}, 0.61, 0.5, 10_000)
CONCLUSIONS = """# Learned

Small steps are **best**, for a < b <script>alert(1)</script> \\\\<b>, see ![that](https://example.org/x.png).

| a | b |
| - | - |
| 1 | 2 |

```
code that is never closed
"""
ABOUT = {"path": "C:\\a|b\\", "[x](y)": "<script>alert(2)</script> $x$ `a` **b** ~~c~~ &amp; _d_", "seeds": [0, 1, 2]}


def write(results, folder, chosen=None, conclusions="", about=None):
    return report.write(
        results, folder, num_classes=200, conclusions=conclusions, about=about or {"seed": 0}, chosen=chosen
    )


class Page(HTMLParser):
    """What a browser would find: tags, the attributes of images, headings, tables as lists of rows, and the text."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.images, self.headings, self.tables, self.quoted = [], [], [], [], ""
        self.cell = self.heading = None
        self.quotes = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""
        elif tag in ("h1", "h2", "h3"):
            self.heading = ""
        elif tag == "blockquote":
            self.quotes += 1

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None
        elif tag in ("h1", "h2", "h3"):
            self.headings.append(self.heading)
            self.heading = None
        elif tag == "blockquote":
            self.quotes -= 1

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data.replace("\N{NO-BREAK SPACE}", " ")
        if self.heading is not None:
            self.heading += data
        if self.quotes:
            self.quoted += data

    def find(self, *header):
        """The rows of the tables that start with this header."""
        return [rows[1:] for rows in self.tables if rows[0][: len(header)] == list(header)]


@pytest.fixture(scope="module")
def folder(alexnet, resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report"
    assert write({"AlexNet": alexnet, "resnet18": resnet}, path, CHOSEN, CONCLUSIONS, ABOUT) == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder / "report.html")


def test_the_page_is_in_order(page):
    model = ["Weight decay 0.0005", "The effect of weight decay", "Trials that failed"]
    assert page.headings == [
        "Hyper-parameters of AlexNet and resnet18",
        *("AlexNet", *model),
        *("resnet18", model[0]),
        *("The models side by side", "The choice", "Conclusions", "Learned", "Experimental setup"),
    ]


def test_the_page_holds_its_figures_and_loads_and_runs_nothing(page, folder):
    assert not {"script", "link", "iframe", "object", "b"} & set(page.tags)
    files = {path.read_bytes() for path in folder.glob("*.png")}
    assert len(files) == 5  # heat map and curves of each model, weight decay of one
    start = "data:image/png;base64,"
    assert all(image["src"].startswith(start) and image["alt"] for image in page.images)
    assert {base64.b64decode(image["src"].removeprefix(start)) for image in page.images} == files


def test_the_markdown_names_the_same_figures(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    for path in folder.glob("*.png"):
        assert f"]({path.name})\n" in text
    assert (
        "\n| learning rate | batch size 16 | batch size 32 |\n| --- | --- | --- |\n| 0.1 | diverged | failed |" in text
    )


def test_the_tables_of_the_grids_have_the_result_of_each_trial(page, resnet):
    alexnet_rows, resnet_rows = page.find("learning rate", "batch size 16")
    assert alexnet_rows == [
        ["0.1", "diverged", "failed"],
        ["0.001", "41.0%", "35.0%"],
        ["0.0001", "8.0%", "12.5%"],
    ]
    three = 100 * np.array([0.61, 0.64, 0.58])
    assert resnet_rows[0] == ["0.1", "54.0% ± 2.8 (1 of 3 diverged)"]
    assert resnet_rows[1] == ["0.001", f"{three.mean():.1f}% ± {three.std(ddof=1):.1f}"]


def test_the_numbers_of_the_curves_are_in_a_table(page):
    rows = page.find("learning rate", "batch size", "epoch 1", "epoch 2", "epoch 3")[0]
    assert rows[:2] == [["0.1", "16", "5.0%", "diverged", ""], ["0.001", "16", "20.0%", "30.0%", "41.0%"]]
    assert len(rows) == 5  # the trial that failed has no epoch


def test_of_many_epochs_the_table_shows_ten_from_the_first_to_the_last(tmp_path):
    long = trial(0.1, 16, 0, list(np.linspace(0.01, 0.5, 100)))
    (rows,) = Page(write({"AlexNet": table(long)}, tmp_path)).find("learning rate", "batch size", "epoch 1", "epoch 12")
    assert len(rows[0]) == 12 and rows[0][2] == "1.0%" and rows[0][-1] == "50.0%"


def test_the_effect_of_weight_decay_has_its_gap(page):
    (rows,) = page.find("weight decay", "training", "validation", "gap")
    assert rows == [
        ["0", "48.0%", "38.0%", "+10.0"],
        ["0.0005", "51.0%", "41.0%", "+10.0"],
        ["0.05", "diverged", "diverged", ""],
    ]


def test_of_several_points_the_effect_is_shown_at_the_best(tmp_path):
    accuracies = {16: (0.1, 0.2), 32: (0.3, 0.5), 64: (0.2, 0.3)}
    trials = [trial(0.1, size, decay, [accuracies[size][decay]]) for size in accuracies for decay in (0, 1)]
    page = Page(write({"AlexNet": table(*trials)}, tmp_path))
    assert page.headings[2:5] == ["Weight decay 0", "Weight decay 1", "The effect of weight decay"]
    (rows,) = page.find("weight decay", "training")
    assert [row[2] for row in rows] == ["30.0%", "50.0%"]


def test_failed_trials_have_their_reason_unchanged_in_one_line(page):
    (rows,) = page.find("learning rate", "batch size", "weight decay", "reason")
    assert rows == [["0.1", "32", "0.0005", "out of memory | <b>4 GB</b> use *smaller* batches"]]


def test_the_models_are_side_by_side(page, alexnet, resnet):
    (rows,) = page.find("model", "best point", "validation", "training", "completed", "diverged", "failed", "minutes")
    point = "learning rate 0.001, batch size 16, weight decay 0.0005"
    assert rows == [
        ["AlexNet", point, "41.0%", "51.0%", "5", "2", "1", f"{alexnet['seconds'].sum() / 60:.1f}"],
        ["resnet18", point, "61.0% ± 3.0", "71.0% ± 3.0", "5", "1", "0", f"{resnet['seconds'].sum() / 60:.1f}"],
    ]


def test_the_choice_has_its_test_accuracy_and_a_confidence_interval(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "**resnet18** with learning rate 0.001, batch size 16, weight decay 0.0005" in text
    assert "**test accuracy is 50.0%**, on 10,000 images" in text
    assert "(95% confidence interval: 49.0% to 51.0%)" in text  # 1.96 · sqrt(0.5 · 0.5 / 10,000) = 0.0098


# By hand, from Wilson's formula with z = 1.96; of none right in n: from 0 to z² / (n + z²).
@pytest.mark.parametrize(
    ("num_right", "number", "interval"),
    [(0, 100, "0.0% to 3.7%"), (20, 20, "83.9% to 100.0%"), (2, 100, "0.6% to 7.0%")],
)
def test_the_confidence_interval_also_holds_near_0_and_1(num_right, number, interval, alexnet, tmp_path):
    chosen = CHOSEN._replace(test_accuracy=num_right / number, num_test_images=number)
    write({"AlexNet": alexnet}, tmp_path, chosen)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"(95% confidence interval: {interval})" in text


def test_conclusions_are_quoted_and_never_run(page, folder):
    assert "Small steps are best, for a < b <script>alert(1)</script> \\<b>, see that." in page.quoted
    assert "code that is never closed" in page.quoted and "Experimental setup" not in page.quoted
    assert page.find("a", "b") == [[["1", "2"]]]
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "> Small steps are **best**, for a < b \\<script>alert(1)\\</script> \\\\\\<b>" in text


def test_the_table_of_the_setup_shows_any_value_unchanged(page):
    (rows,) = page.find("what", "value")
    assert rows == [["path", "C:\\a|b\\"], ["[x](y)", ABOUT["[x](y)"]], ["seeds", "0, 1, 2"]]


def test_the_csv_has_every_row_with_its_model_first(folder, alexnet, resnet):
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert next(iter(rows[0])) == "model"
    assert [row["model"] for row in rows] == ["AlexNet"] * len(alexnet) + ["resnet18"] * len(resnet)
    assert [row["val_accuracy"] for row in rows[: len(alexnet)]] == [
        "" if np.isnan(accuracy) else str(accuracy) for accuracy in alexnet["val_accuracy"]
    ]
    assert rows[2]["reason"] == alexnet["reason"][2]


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([trial(0.1, 16, 0, [0.01], "diverged"), trial(0.1, 32, 0, [float("nan")], "diverged")], "no trial completed"),
        ([trial(0.1, 16, 0, [], "failed", "no memory"), trial(0.01, 16, 0, [], "failed", "no memory")], "no memory"),
        ([trial(0.1, 16, 0, [0.1, 0.2, 0.25])], "| 0.1 | 25.0% |"),
        ([trial(0.1, 16, decay, [0.1, 0.2, 0.25]) for decay in (0, 0.1)], "| 0.1 | 35.0% | 25.0% | +10.0 |"),
    ],
    ids=["all diverged", "all failed", "one point", "only decays"],
)
def test_a_search_with_few_results_can_be_reported(trials, expected, tmp_path):
    path = write({"My $net_1$ | <b>": table(*trials)}, tmp_path)
    assert expected in (tmp_path / "report.md").read_text(encoding="utf-8")
    headings = Page(path).headings
    assert headings[0] == "Hyper-parameters of My $net_1$ | <b>"
    assert "The search as a whole" in headings


def test_an_unfinished_table_is_refused(alexnet, tmp_path):
    unfinished = table(
        trial(0.1, 16, 0.0005, [0.1, 0.2, 0.25]),
        trial(0.1, 32, 0.0005, [0.3], "interrupted"),
        trial(0.001, 16, 0.0005, [0.4, 0.5], "running"),
        trial(0.001, 32, 0.0005, [], "waiting"),
    )
    message = (
        r"^the results of resnet18 are unfinished: 3 of 4 points have not ended \(lr 0.1, batch size 32, weight decay "
        r"0.0005; ...\): run the search to its end$"
    )
    with pytest.raises(ValueError, match=message):
        write({"AlexNet": alexnet, "resnet18": unfinished}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_grid_without_weight_decay_and_a_model_without_trials(tmp_path):
    plain = table(trial(0.1, 16, 0, [0.2]), trial(0.1, 32, 0, [0.25])).drop(columns="weight_decay")
    page = Page(write({"AlexNet": plain, "resnet18": plain.iloc[:0]}, tmp_path))
    assert page.headings[:3] == ["Hyper-parameters of AlexNet", "AlexNet", "Learning rate and batch size"]
    assert page.find("learning rate", "batch size 16") == [[["0.1", "20.0%", "25.0%"]]]


def test_a_second_report_replaces_the_first(alexnet, tmp_path):
    write({"AlexNet": alexnet}, tmp_path, conclusions="first")
    names = {path.name for path in tmp_path.iterdir()}
    write({"AlexNet": alexnet}, tmp_path, conclusions="second")
    assert "second" in (tmp_path / "report.html").read_text() and "first" not in (tmp_path / "report.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(alexnet, tmp_path, monkeypatch):
    write({"AlexNet": alexnet}, tmp_path, conclusions="first")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, content, write_bytes=Path.write_bytes):
        if "report.html" in path.name:
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    expected = r"^the report cannot be written into .* \(No space left on device\): free some space on that disk, or"
    with pytest.raises(OSError, match=expected):
        write({"AlexNet": alexnet}, tmp_path, conclusions="second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrong_arguments_are_named_in_one_line(alexnet, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file cannot be"):
        write({"AlexNet": alexnet}, tmp_path / "file")
    with pytest.raises(ValueError, match="no trial to report yet"):
        write({"AlexNet": alexnet.iloc[:0]}, tmp_path)
    with pytest.raises(TypeError, match="by model"):
        write(alexnet, tmp_path)
    with pytest.raises(ValueError, match="AlexNet have no column batch_size"):
        write({"AlexNet": alexnet.drop(columns="batch_size")}, tmp_path)


def test_a_point_that_lost_a_seed_has_no_number_in_a_comparison(resnet):
    found = compare(resnet, resnet[resnet["seed"] == 0])
    assert found["validation"].to_dict() == pytest.approx(
        {(0.1, 16, 0.0005): math.nan, (0.001, 16, 0.0005): 0.61}, nan_ok=True
    )
    assert found["reference"].to_dict() == pytest.approx({(0.1, 16, 0.0005): 0.52, (0.001, 16, 0.0005): 0.61})


def test_a_run_is_compared_with_a_reference(alexnet):
    reference = table(
        trial(0.001, 32, 0.0005, [0.5, 0.4], seed=0),
        trial(0.001, 32, 0.0005, [0.5, 0.4], seed=1),
        trial(0.001, 16, 0.0005, [0.4], seed=0),
        trial(0.001, 16, 0.0005, [0.5], seed=1),
        trial(0.1, 16, 0.0005, [0.2], seed=0),
        trial(5.0, 16, 0.0005, [0.2], seed=0),
        trial(0.0001, 32, 0.0005, [0.1], "diverged", seed=0),
    ).assign(model="AlexNet")
    found = compare(alexnet, reference)
    assert found.index.names == ["lr", "batch_size", "weight_decay"]
    last = alexnet.drop_duplicates(["lr", "batch_size", "weight_decay"], keep="last")
    completed = last[last["state"] == "completed"].set_index(found.index.names)["val_accuracy"]
    pd.testing.assert_series_equal(found["validation"].dropna(), completed, check_names=False)
    assert found["reference"].dropna().to_dict() == pytest.approx(
        {(0.1, 16, 0.0005): 0.2, (0.001, 16, 0.0005): 0.45, (0.001, 32, 0.0005): 0.4, (5.0, 16, 0.0005): 0.2}
    )
    assert found["difference"].dropna().to_dict() == pytest.approx(
        {(0.001, 16, 0.0005): -0.04, (0.001, 32, 0.0005): -0.05}
    )
    lines = compare_text(alexnet, reference).splitlines()
    assert len(lines) == 1 + len(found) + 2
    rows = [line.split() for line in lines[1 : 1 + len(found)]]
    assert ["0.001", "16", "0.0005", "41.0%", "45.0%", "-4.0"] in rows
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=float)  # in the order of the learning rates
    assert ["0.1", "16", "0.0005", "-", "20.0%", "-"] in rows
    assert lines[-2] == "2 of 2 points with a number in both runs are within 5 percentage points"
    assert lines[-1] == "the largest difference is -5.0, at learning rate 0.001, batch size 32, weight decay 0.0005"


def test_runs_that_cannot_be_compared(alexnet):
    both = pd.concat([alexnet.assign(model="AlexNet"), alexnet.assign(model="resnet18")])
    with pytest.raises(ValueError, match=r"several models \(AlexNet, resnet18\): choose one, such as reference"):
        compare(alexnet, both)
    with pytest.raises(ValueError, match="the reference is over lr, batch_size: pass"):
        compare(alexnet, alexnet.drop(columns="weight_decay"))
    assert compare_text(alexnet, alexnet.assign(lr=7.0)).endswith("\nno point has a number in both runs")


def test_a_reports_results_can_be_the_reference_of_another_run(alexnet, tmp_path):
    write({"AlexNet": alexnet}, tmp_path, about={"command": "python -m cnnlesson exercise", "seeds": [0]})
    kept = reference.load("results", tmp_path)
    assert kept.made["seeds"] == [0]
    differences = compare(alexnet, kept.table.query("model == 'AlexNet'"))["difference"].dropna()
    assert len(differences) == 5 and (differences == 0).all()


def test_what_is_noise_is_said_with_the_tables_and_the_bits_of_the_last_epochs_are_kept(tmp_path):
    """Two points that differ in 3 of 200 images, and one that is far behind."""
    rights = {16: 150, 32: 147, 64: 0}  # the bits of the last are digits only
    results = table(*(trial(0.001, size, 0.0, [0.1, 0.2, number / 200]) for size, number in rights.items()))
    bits = [np.packbits(np.arange(200) < 200 * accuracy).tobytes().hex() for accuracy in results["val_accuracy"]]
    folder = write({"alexnet": results.assign(val_images=200, val_right=bits)}, tmp_path).parent
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "Validation accuracy after the last epoch (± standard error with 200 images, in percentage points):" in text
    assert "| 0.001 | 75.0% ± 3.1 | 73.5% ± 3.1 | 0.0% ± 0.0 |" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "1 of the 2 other points cannot be told apart from lr 0.001, batch size 16, weight decay 0 with 200 validation "
        "images and one seed: lr 0.001, batch size 32, weight decay 0."
    ) in text.replace("\\", "")
    kept = reference.load("results", folder).table
    assert kept["val_right"].notna().tolist() == [False, False, True] * 3
    assert kept["val_right"].dropna().tolist() == bits[2::3]
