"""Build the students' and the instructors' notebooks from the sources, the same to the byte each time.

    python notebooks/build.py

Each lesson is notebooks/src/NN_name.py: cells in jupytext's percent format, complete with solutions. In the student's
copy, notebooks/NN_name.ipynb, what stands between the markers of an exercise is replaced by a place to write in, and
cells tagged `solution` are left out. The instructor's copy, notebooks/solutions/NN_name.ipynb, has everything. Both
get links to the other lessons, a badge and a set-up cell for Colab, and cell ids made from headings.
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

if importlib.util.find_spec("cnnlesson") is None:
    {install}
"""
INSTALL = """\
%pip install --quiet --no-deps git+{repository}
    %pip install --quiet optuna  # all else that the package needs is in Colab already"""
NO_REPOSITORY = """\
raise ModuleNotFoundError(
        "The package cnnlesson is not installed. On your own machine run `make lab` in the folder of the lesson: it "
        "installs the package and opens JupyterLab. To use the notebooks in Colab, put the lesson on GitHub, write "
        "its address into pyproject.toml ([tool.cnnlesson] repository), run `make notebooks`, and push."
    )"""


def main() -> None:
    for path, text in build_all(NOTEBOOKS / "src", repository()).items():
        target = NOTEBOOKS / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
        print(target.relative_to(NOTEBOOKS.parent))


def repository() -> str:
    """The address of the lesson's repository, empty while none is set."""
    return tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text())["tool"]["cnnlesson"]["repository"]


def build_all(sources: Path, repository: str) -> dict[str, str]:
    """The text of every notebook by its path under notebooks/.

    Raises:
        ValueError: a source has stray or missing markers, or an unknown tag, or two headings that are alike.
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
    """A lesson as it is written, its cells checked."""
    lesson = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(lesson.cells, start=1):
        where = f"{source.name}, cell {number} ({cell.source.splitlines()[0] if cell.source else 'empty'})"
        tags = set(cell.metadata.get("tags", ()))
        if tags - TAGS:
            raise ValueError(
                f"{where}: unknown tag {', '.join(sorted(tags - TAGS))}; known are {', '.join(sorted(TAGS))}"
            )
        markers = [
            line.strip() for line in cell.source.splitlines() if line.strip().startswith("###") and "SOLUTION" in line
        ]
        if "exercise" not in tags:
            if markers:
                raise ValueError(f"{where}: {markers[0]!r} in a cell that is not tagged exercise")
        elif not markers or markers != [BEGIN, END] * (len(markers) // 2):
            raise ValueError(f"{where}: an exercise needs pairs of {BEGIN!r} and {END!r}, found {markers or 'none'}")
    return lesson


def student_cell(cell: NotebookNode) -> NotebookNode | None:
    """The cell as a student gets it, or None for one that is dropped."""
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
            if indent:  # in a function or class: the check sees that it is not written yet
                lines.append(f"{indent}raise NotImplementedError")
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return NotebookNode({**cell, "source": "\n".join(lines)})


def title(lesson: NotebookNode) -> str:
    return lesson.cells[0].source.splitlines()[0].removeprefix("# ")


def finish(name: str, cells: list[NotebookNode], path: str, titles: dict[str, str], repository: str) -> NotebookNode:
    """A notebook of `cells`, with links, badge, set-up cell and ids."""
    links = navigation(name, path, titles, repository)
    first, *rest = cells
    heading, _, text = first.source.partition("\n")
    opening = "\n\n".join(part for part in (heading, badge(path, repository), links, text.strip()) if part)
    setup = SETUP.format(install=INSTALL.format(repository=repository) if repository else NO_REPOSITORY)
    contents = [("markdown", opening, {}), ("code", setup.rstrip(), {})]
    contents += [
        (cell.cell_type, cell.source, {"tags": cell.metadata.tags} if "tags" in cell.metadata else {}) for cell in rest
    ]
    if links:
        contents.append(("markdown", links, {}))

    notebook = nbformat.v4.new_notebook(
        metadata={
            "accelerator": "GPU",  # Colab turns one on
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
    doubles = sorted({cell_id for cell_id in ids if ids.count(cell_id) > 1})
    if doubles:
        raise ValueError(f"{name}: two headings are alike, so cells would share the id {doubles[0]}")
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
    """Links to the lesson before and the lesson after; `titles` has all lessons in order."""
    names = list(titles)
    place = names.index(name)
    links = []
    for word, number in (("Before", place - 1), ("Next", place + 1)):
        if 0 <= number < len(names):
            link = f"{word}: [{titles[names[number]]}]({names[number]}.ipynb)"
            if repository:
                link += f" ([in Colab]({colab(path.replace(name, names[number]), repository)}))"
            links.append(link)
    return " · ".join(links)


if __name__ == "__main__":
    sys.exit(main())
