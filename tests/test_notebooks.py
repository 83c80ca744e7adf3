"""The built notebooks match their sources, and every exercise has a check."""

import importlib
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import build  # noqa: E402

SOURCES = sorted((NOTEBOOKS / "src").glob("*.py"))
LESSON = "# %% [markdown]\n# # 1 A lesson\n#\n# Text.\n\n"
EXERCISE = '# %% tags=["exercise"]\ndef f(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION\n'


def lesson(tmp_path, *texts: str) -> Path:
    for number, text in enumerate(texts, start=1):
        (tmp_path / f"0{number}_lesson.py").write_text(text)
    return tmp_path


def cells(text: str) -> list[str]:
    return [cell.source for cell in jupytext.reads(text, fmt="ipynb").cells]


def test_built_notebooks_match_their_sources_byte_for_byte():
    address = build.repository()
    built = build.build_all(NOTEBOOKS / "src", address)
    on_disk = {
        path.relative_to(NOTEBOOKS).as_posix(): path.read_bytes()
        for folder in (NOTEBOOKS, NOTEBOOKS / "solutions")
        for path in folder.glob("*.ipynb")
    }
    assert on_disk == {path: text.encode() for path, text in built.items()}, "run `make notebooks`"
    assert built == build.build_all(NOTEBOOKS / "src", address)


def test_student_copy_has_a_placeholder_instead_of_the_solution(tmp_path):
    extra = '\n# %% [markdown] tags=["solution"]\n# Twice.\n'
    built = build.build_all(lesson(tmp_path, LESSON + EXERCISE + extra), repository="")
    student, instructor = cells(built["01_lesson.ipynb"]), cells(built["solutions/01_lesson.ipynb"])
    assert student[2] == "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError"
    assert "return 2 * x" in instructor[2] and "Twice." in instructor
    assert "Twice." not in student


def test_exercise_outside_a_function_does_not_stop_run_all(tmp_path):
    source = LESSON + '# %% tags=["exercise"]\nx = None\n### BEGIN SOLUTION\nx = 3\n### END SOLUTION\n'
    built = build.build_all(lesson(tmp_path, source), repository="")
    assert cells(built["01_lesson.ipynb"])[2] == "x = None\n# YOUR CODE HERE"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (EXERCISE.replace("    ### END SOLUTION\n", ""), "an exercise needs pairs"),
        (EXERCISE.replace("    ### BEGIN SOLUTION\n", ""), "an exercise needs pairs"),
        ('# %% tags=["exercise"]\nx = 1\n', "an exercise needs pairs .* got none"),
        (EXERCISE.replace('tags=["exercise"]', ""), "needs a cell tagged exercise"),
        (EXERCISE.replace("exercise", "excercise"), "unknown tag excercise"),
        ("# %% [markdown]\n# ## Twins\n\n# %% [markdown]\n# ## Twins\n", "two identical headings"),
    ],
)
def test_mistake_in_a_source_stops_the_build(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        build.build_all(lesson(tmp_path, LESSON + source), repository="")


def test_ids_derive_from_headings_and_do_not_change_when_another_section_grows(tmp_path):
    source = LESSON + "# %% [markdown]\n# ## One\n\n# %%\n1\n\n# %% [markdown]\n# ## Two\n\n# %%\n2\n"
    grown = source.replace("# %%\n1\n", "# %%\n1\n\n# %%\n11\n")

    def ids(text: str) -> list[str]:
        text = build.build_all(lesson(tmp_path, text), repository="")["01_lesson.ipynb"]
        return [cell.id for cell in jupytext.reads(text, fmt="ipynb").cells]

    assert set(ids(source)) <= set(ids(grown))
    assert ids(source)[3] == "01-lesson-one-2"


def test_repository_url_adds_badge_colab_links_and_set_up_cell(tmp_path):
    second = LESSON.replace("1 A", "2 Another")
    built = build.build_all(lesson(tmp_path, LESSON, second), repository="https://github.com/someone/lesson")
    opening, setup, *_, links = cells(built["01_lesson.ipynb"])
    colab = "https://colab.research.google.com/github/someone/lesson/blob/main/notebooks"
    assert opening.startswith("# 1 A lesson\n\n[![Open in Colab]") and f"({colab}/01_lesson.ipynb)" in opening
    assert links == f"Next: [2 Another lesson](02_lesson.ipynb) ([in Colab]({colab}/02_lesson.ipynb))"
    (install,) = [line.strip() for line in setup.splitlines() if "%pip" in line]
    assert install.startswith("%pip install --quiet --no-deps git+https://github.com/someone/lesson ")
    assert f"{colab}/solutions/02_lesson.ipynb" in cells(built["solutions/01_lesson.ipynb"])[0]


def test_without_a_repository_url_the_set_up_cell_explains_how_to_set_it(tmp_path):
    opening, setup, *_ = cells(build.build_all(lesson(tmp_path, LESSON), repository="")["01_lesson.ipynb"])
    assert "colab" not in opening
    assert "[tool.cnnlesson] repository" in setup


def test_the_set_up_cell_reports_what_is_too_old(tmp_path, monkeypatch, capsys):
    _, setup, *_ = cells(build.build_all(lesson(tmp_path, LESSON), repository="")["01_lesson.ipynb"])
    exec(setup, {})
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("cnnlesson.runtime.versions.version", lambda name: "0.1")
    exec(setup, {})
    assert "torch>=2.9 (0.1 is installed)" in capsys.readouterr().out
    with monkeypatch.context() as old:
        old.setattr(sys, "version_info", (3, 10, 12, "final", 0))
        with pytest.raises(RuntimeError, match=r"^Python 3\.11 or newer is needed\. In Colab, choose .*$"):
            exec(setup, {})


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_exercise_has_difficulty_minutes_hints_and_check(source):
    sources = [cell.source for cell in jupytext.read(source, fmt="py:percent").cells]
    module = re.search(r"from cnnlesson\.checks import (\w+) as check", "\n".join(sources))[1]
    checks = importlib.import_module(f"cnnlesson.checks.{module}")
    headings = [cell for cell in sources if "### Exercise: " in cell]
    names = [re.search(r"### Exercise: (\w+)", cell)[1] for cell in headings]
    for name, cell in zip(names, headings, strict=True):
        text = cell[cell.index("### Exercise: ") :]
        assert re.search(r"\*\*Difficulty:\*\* (easy|medium|hard) · \*\*Time:\*\* \d+ minutes", text), name
        assert 1 <= text.count("<details><summary>Hint ") <= 3, name
        after = sources[sources.index(cell) + 1 :]
        assert "### BEGIN SOLUTION" in after[0], f"{name}: the answer cell must follow the exercise's text"
        assert f"check.{name}({name}" in after[1], f"{name}: the check must follow the answer"
    registered = [name for name in sys.modules["cnnlesson.checks.verdict"]._verdicts[checks.__name__]]
    assert registered == names
    assert "check.progress()" in sources[-1]


def exercises(source: Path, is_student: bool) -> dict:
    """Run the imports and all exercise cells of a student's or instructor's copy, and return the names they define."""
    names: dict = {}
    read = build.read(source).cells
    imports = next(cell for cell in read if cell.cell_type == "code")
    answers = [cell for cell in read if "exercise" in cell.metadata.get("tags", ())]
    for cell in [imports, *(build.student_cell(cell) if is_student else cell for cell in answers)]:
        with redirect_stdout(StringIO()):
            exec(compile(cell.source, source.name, "exec"), names)
    return names


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize(("is_student", "status"), [(True, "unanswered"), (False, "right")])
def test_solution_is_right_and_untouched_stub_is_unanswered(source, is_student, status, monkeypatch):
    monkeypatch.setitem(os.environ, "CNNLESSON_TINY", "1")
    names = exercises(source, is_student)
    check = names["check"]
    for cell in build.read(source).cells:
        for name, arguments in re.findall(r"check\.(\w+)\((\w[^)]*)\)", cell.source):
            values = [names[argument.strip()] for argument in arguments.split(",")]
            verdict = getattr(check, name)(*values)
            assert verdict.status == status, verdict


def test_returned_notebook_fails_only_at_the_exercises_with_mistakes(tmp_path):
    """An instructor runs nbval on a returned notebook, with checks that raise."""
    notebook = nbformat.read(NOTEBOOKS / "solutions" / "02_alexnet.ipynb", as_version=4)
    training = next(index for index, cell in enumerate(notebook.cells) if cell.source.startswith("## Train it"))
    notebook.cells = notebook.cells[:training]
    planted = {
        "filters * (in_channels // groups) * kernel**2 + filters": "filters * in_channels * kernel**2 + filters",
        "(inputs + 1) * outputs / 1e3": "inputs * outputs / 1e3",
        "math.log(num_classes)": "math.log2(num_classes)",
    }
    for right, wrong in planted.items():
        (cell,) = [cell for cell in notebook.cells if right in cell.source and "### BEGIN SOLUTION" in cell.source]
        cell.source = cell.source.replace(right, wrong)
    nbformat.write(notebook, tmp_path / "returned.ipynb")

    options = ["-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", "--color=no", "-q", "returned.ipynb"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env=os.environ | {"CNNLESSON_CHECKS": "strict", "CNNLESSON_TINY": "1"},
        capture_output=True,
        text=True,
    )
    messages = set(re.findall(r"CheckError: (.*)", re.sub(r"\x1b\[\d+m", "", run.stdout)))
    assert messages == {
        "✘ grouped_parameters: not right yet. The groups are not used: a filter sees only the channels of its own "
        "group.",
        "✘ missing_rows: not right yet. fc6's number of parameters lacks the biases: there is one per output.",
        "✘ initial_loss: not right yet. The logarithm has base 2: cross-entropy in torch is in nats, with the natural "
        "logarithm.",
    }
    assert re.search(r"\b3 failed", run.stdout)


def test_tiny_wins_over_the_form_fields_of_lesson_4():
    source = (NOTEBOOKS / "src" / "04_hyperparameters.py").read_text(encoding="utf-8")
    (cell,) = [cell.source for cell in jupytext.reads(source, fmt="py:percent").cells if "# @param" in cell.source]
    form, rest = cell.split("\n\n", 1)
    for field, value in (("NUM_IMAGES", "5000"), ("EPOCHS", "30"), ("FOLDER", '"mine"'), ("CHECKPOINTS", '"mine"')):
        form, replaced = re.subn(rf"^{field} = .*$", f"{field} = {value}", form, flags=re.MULTILINE)
        assert replaced == 1
    settings = rest.split("images = load_images")[0]
    names = {"TINY": True, "device": SimpleNamespace(type="cuda"), "TemporaryDirectory": TemporaryDirectory}
    exec(f"{form}\n{settings}", names)
    assert (names["NUM_IMAGES"], names["EPOCHS"]) == (60, 1)
    assert "mine" not in (names["FOLDER"], names["CHECKPOINTS"])
    names["temporary"].cleanup()
