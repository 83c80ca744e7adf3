"""The front page's example runs, and the links in the documentation lead somewhere."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

import cnnlesson.data
from cnnlesson.data import TrainTest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def anchors(page: Path) -> set[str]:
    """The headings of a page as a code host writes them into addresses."""
    headings = re.findall(r"^#+ (.+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_example_of_the_front_page_trains(image_set, monkeypatch):
    code = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)[1]
    # Of the 30 images here, 27 are for training; one epoch runs every line.
    for larger, smaller in (
        ("batch_size=64", "batch_size=9"),
        ("batch_size=256", "batch_size=3"),
        ("epochs=5", "epochs=1"),
    ):
        assert larger in code
        code = code.replace(larger, smaller)
    monkeypatch.setattr(cnnlesson.data, "tiny_imagenet", lambda root: TrainTest(image_set, image_set))
    output = StringIO()
    with redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"epoch 1: validation accuracy \d+\.\d%\n", output.getvalue())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_front_page_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110


def test_the_version_is_the_same_everywhere():
    citation = re.search(r"^version: (.+)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    assert cnnlesson.__version__ == citation == newest
