"""The front page's example runs, and the links in the documentation lead somewhere."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

import cnnlesson.data
from cnnlesson.data import shapes, take

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def anchors(page: Path) -> set[str]:
    """The headings of a page as a code host writes them into addresses."""
    headings = re.findall(r"^#+ (.+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_example_of_the_front_page_trains(monkeypatch):
    code = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)[1]
    code = code.replace("batch_size=256", "batch_size=10")  # of 100 images here, 10 are for validation
    images = shapes(seed=0)
    few = cnnlesson.data.TrainTest(take(images.train, 100, seed=0), images.test)
    monkeypatch.setattr(cnnlesson.data, "tiny_imagenet", lambda root: few)
    output = StringIO()
    with redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    lines = output.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == [f"epoch {number}" for number in range(1, 6)]


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
