"""Build the student and instructor notebooks from the sources. Builds are reproducible byte for byte.

    python notebooks/build.py

The source of each lesson is notebooks/src/NN_name.py: cells in jupytext's percent format, complete with solutions. The
student's copy, notebooks/NN_name.ipynb, has a placeholder instead of the code between an exercise's markers, and omits
cells tagged `solution`. The instructor's copy, notebooks/solutions/NN_name.ipynb, contains everything. Both have links
to the neighbouring lessons, a badge and a set-up cell for Colab, and cell ids derived from the headings.
"""

import re
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parent
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"  # nbgrader's markers
TAGS = {"exercise", "solution"}

SETUP = """\
# Set-up: run this cell first.
import importlib.util
import sys

if sys.version_info < ({python}):
    raise RuntimeError("Python {oldest} or newer is needed. In Colab, choose Runtime, Change runtime type, Latest.")
if importlib.util.find_spec("cnnlesson") is None:
    {install}

from cnnlesson.runtime.versions import say_versions

say_versions()
"""
INSTALL = "%pip install --quiet --no-deps git+{repository}  # Colab and Kaggle already have all dependencies"
NO_REPOSITORY = """\
raise ModuleNotFoundError(
        "The package cnnlesson is not installed. On your own machine, run `make lab` in the project folder: it "
        "installs the package and opens JupyterLab. To use the notebooks in Colab, create a GitHub repository for the "
        "project, set its address in pyproject.toml ([tool.cnnlesson] repository), run `make notebooks`, and push."
    )"""


def main() -> None:
    for path, text in build_all(NOTEBOOKS / "src", repository()).items():
        target = NOTEBOOKS / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
        print(target.relative_to(NOTEBOOKS.parent))


def repository() -> str:
    """The URL of the project's repository; empty if none is set."""
    return pyproject()["tool"]["cnnlesson"]["repository"]


def oldest_python() -> str:
    """Such as "3.11"."""
    return pyproject()["project"]["requires-python"].removeprefix(">=")


def pyproject() -> dict:
    return tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text(encoding="utf-8"))


def build_all(sources: Path, repository: str) -> dict[str, str]:
    """The text of every notebook, keyed by its path under notebooks/.

    Raises:
        ValueError: if a source has stray or missing markers, an unknown tag, or two identical headings.
    """
    built = {}
    lessons = {source.stem: read(source) for source in sorted(sources.glob("*.py"))}
    titles = {name: title(lesson) for name, lesson in lessons.items()}
    for name, lesson in lessons.items():
        for folder, is_student in (("", True), ("solutions/", False)):
            cells = [cell for cell in map(student_cell, lesson.cells) if cell] if is_student else lesson.cells
            path = f"{folder}{name}.ipynb"
            built[path] = nbformat.writes(finish(name, cells, path, titles, repository), version=4) + "\n"
    return built


def read(source: Path) -> NotebookNode:
    """Read a lesson's source and check the tags and markers of its cells."""
    lesson = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(lesson.cells, start=1):
        where = f"{source.name}, cell {number} ({cell.source.splitlines()[0] if cell.source else 'empty'})"
        tags = set(cell.metadata.get("tags", ()))
        if tags - TAGS:
            raise ValueError(
                f"{where}: unknown tag {', '.join(sorted(tags - TAGS))}; use one of {', '.join(sorted(TAGS))}"
            )
        markers = [
            line.strip() for line in cell.source.splitlines() if line.strip().startswith("###") and "SOLUTION" in line
        ]
        if "exercise" not in tags:
            if markers:
                raise ValueError(
                    f"{where}: {markers[0]!r} needs a cell tagged exercise: add the tag or remove the marker"
                )
        elif not markers or markers != [BEGIN, END] * (len(markers) // 2):
            raise ValueError(f"{where}: an exercise needs pairs of {BEGIN!r} and {END!r}, got {markers or 'none'}")
    return lesson


def student_cell(cell: NotebookNode) -> NotebookNode | None:
    """The student's version of a cell; None if the student's copy omits it."""
    tags = cell.metadata.get("tags", ())
    if "solution" in tags:
        return None
    if "exercise" not in tags:
        return cell
    lines, inside = [], False
    for line in cell.source.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip() == BEGIN:
            inside = True
            lines.append(f"{indent}# YOUR CODE HERE")
            if indent:  # in a function or class: tells the check that the exercise is unanswered
                lines.append(f"{indent}raise NotImplementedError")
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return NotebookNode({**cell, "source": "\n".join(lines)})


def title(lesson: NotebookNode) -> str:
    return lesson.cells[0].source.splitlines()[0].removeprefix("# ")


def finish(name: str, cells: list[NotebookNode], path: str, titles: dict[str, str], repository: str) -> NotebookNode:
    """Assemble the notebook: add links, badge, set-up cell and cell ids to `cells`."""
    links = navigation(name, path, titles, repository)
    first, *rest = cells
    heading, _, text = first.source.partition("\n")
    opening = "\n\n".join(part for part in (heading, badge(path, repository), links, text.strip()) if part)
    oldest = oldest_python()
    install = INSTALL.format(repository=repository) if repository else NO_REPOSITORY
    setup = SETUP.format(oldest=oldest, python=oldest.replace(".", ", "), install=install)
    contents = [("markdown", opening, {}), ("code", setup.rstrip(), {})]
    contents += [
        (cell.cell_type, cell.source, {"tags": cell.metadata.tags} if "tags" in cell.metadata else {}) for cell in rest
    ]
    if links:
        contents.append(("markdown", links, {}))

    notebook = nbformat.v4.new_notebook(
        metadata={
            "accelerator": "GPU",  # requests a GPU in Colab
            "colab": {"gpuType": "T4", "toc_visible": True},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    heading, number = "start", 0
    for kind, source, metadata in contents:
        headings = re.findall(r"^#+ (.+)", source, flags=re.MULTILINE) if kind == "markdown" else []
        if headings:
            heading, number = slug(headings[-1]), 0
        number += 1
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        notebook.cells.append(make(source, metadata=metadata, id=f"{slug(name)[:16]}-{heading[:40]}-{number}"))
    ids = [cell.id for cell in notebook.cells]
    duplicates = sorted({cell_id for cell_id in ids if ids.count(cell_id) > 1})
    if duplicates:
        raise ValueError(
            f"{name}: two identical headings would duplicate the cell id {duplicates[0]}: rename one of them"
        )
    nbformat.validate(notebook)
    return notebook


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def badge(path: str, repository: str) -> str:
    if not repository:
        return ""
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab(path, repository)})"


def colab(path: str, repository: str) -> str:
    return (
        repository.replace("https://github.com/", "https://colab.research.google.com/github/")
        + f"/blob/main/notebooks/{path}"
    )


def navigation(name: str, path: str, titles: dict[str, str], repository: str) -> str:
    """Links to the previous and the next lesson; `titles` maps the names of all lessons to their titles, in order."""
    names = list(titles)
    index = names.index(name)
    links = []
    for word, number in (("Previous", index - 1), ("Next", index + 1)):
        if 0 <= number < len(names):
            link = f"{word}: [{titles[names[number]]}]({names[number]}.ipynb)"
            if repository:
                link += f" ([in Colab]({colab(path.replace(name, names[number]), repository)}))"
            links.append(link)
    return " · ".join(links)


if __name__ == "__main__":
    sys.exit(main())
