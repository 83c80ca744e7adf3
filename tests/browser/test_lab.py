"""Each solution notebook in JupyterLab and Chromium, as a person uses it: run all cells, move explorers by keyboard.

It takes minutes and needs a browser, so that plain `pytest` leaves it out (`norecursedirs`), and `make test` runs it on
a line of its own, in place of nbval for the solutions: it runs the same cells, and is as strict.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"), reverse=True)  # the one that takes longest is first
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install Debian's package chromium")
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium has no sandbox for root
]
COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"  # there where the project has an address

# Of the user who opens the notebooks here: no question about news, and no request for them.
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}

EXPLORER = ".jp-OutputArea-output:has(.widget-vbox [role=status])"
TRACEBACK = ".jp-OutputArea-output:has-text('Traceback (most recent call last)')"
# What a keyboard user presses to move a control, and where it stands at its end. JupyterLab takes the arrow keys of a
# closed list for its own and goes to the next cell, so that a list is opened first.
KEYS = {
    "spinbutton": (["ArrowUp"], ["ArrowDown"]),
    "slider": (["ArrowLeft"], ["ArrowRight"]),  # back to where the field beside it was
    "combobox": (["Space", "ArrowDown", "Enter"], ["Space", "ArrowUp", "Enter"]),
    "checkbox": (["Space"],),
    "button": (["Enter"],),
}
ARIA = r"""- '?(\w+)(?: "(.*?)")?"""  # role and name; in quotes where YAML wants them
SCREEN = {"width": 1280, "height": 1200}  # pixels; an explorer fits on it
WHOLE_RUN = 400  # seconds that all cells of a notebook may take
ANSWER = 15  # seconds until an explorer must have followed a control

FIXTURE = """\
from cnnlesson.plots.figures import blank, figure
from cnnlesson.widgets.explorer import Choice, Explorer, Slider, Tick


@figure("A line", text=lambda end, colour, dots: f"It ends at {end} and is {colour}.")
def line(end, colour, dots):
    if end == 6:
        raise ValueError("A line that ends at 6 is not <drawn>.")
    ax = blank(size=(4, 2))
    ax.plot([0, end], color=colour, marker="o" if dots else "")
    return ax


Explorer(
    {"end": Slider("end", 5, 1, 9), "colour": Choice("colour", ["red", "blue"]), "dots": Tick("dots", False)},
    lambda **values: (line(**values), line.text(**values)),
)"""


class Lab:
    """A JupyterLab server that reads and writes in `folder` alone, and a browser to open its notebooks with."""

    def __init__(self, folder: Path, browser: Browser):
        self.browser = browser
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        for name, values in SETTINGS.items():
            path = folder / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(values))
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        options = {"ip": "127.0.0.1", "port": 0, "open_browser": False, "allow_root": True, "root_dir": self.notebooks}
        said = [f"--ServerApp.{name}={value}" for name, value in options.items()]
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *said],
                env=os.environ
                | {"CNNLESSON_TINY": "1", "CNNLESSON_CHECKS": "strict"}
                | {name: str(folder / value) for name, value in folders.items()},
                stdout=log,
                stderr=log,
            )
        running = self._running(folder / "runtime")
        self.url, self.token = running["url"], running["token"]

    def _running(self, folder: Path) -> dict:
        """What the server writes down of itself as soon as it listens: its port, and the token that it made up."""
        for _ in range(600):
            for path in folder.glob("jpserver-*.json"):
                with suppress(json.JSONDecodeError):  # half written
                    return json.loads(path.read_text())
            if self.server.poll() is not None:
                break
            time.sleep(0.1)
        self.close()
        raise AssertionError(self.log.read_text())

    def close(self) -> None:
        self.server.terminate()
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()

    @contextmanager
    def open(self, name: str) -> "Iterator[tuple[Page, list[str]]]":
        """The page of a notebook whose kernel is ready, and a list of what goes wrong on it."""
        wrong: list[str] = []
        with self.browser.new_context(viewport=SCREEN) as context:

            def is_here(url: str) -> bool:
                return urlsplit(url).scheme in ("data", "blob") or urlsplit(url).hostname == "127.0.0.1"

            def route(route) -> None:
                if is_here(route.request.url):
                    route.continue_()
                else:
                    route.abort()

            def requested(url: str) -> None:
                if not is_here(url) and url != COLAB_BADGE:
                    wrong.append(f"a request that leaves the machine: {url[:200]}")

            context.route("**/*", route)
            page = context.new_page()
            page.on("request", lambda request: requested(request.url))
            page.on("websocket", lambda socket: requested(socket.url))
            page.on("pageerror", lambda error: wrong.append(f"an error in the page: {error}"))
            page.on(
                "console",
                lambda said: wrong.append(f"an error in the console: {said.text}") if said.type == "error" else None,
            )
            page.goto(f"{self.url}lab/tree/{name}?reset&token={self.token}")
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
            wait_until_idle(page)  # without a kernel, to run a cell would open a question
            page.keyboard.press("Control+b")  # away with the list of files
            yield page, wrong


def choose(page: Page, menu: str, command: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.locator(f'.lm-Menu [data-command="{command}"]').click()


def is_idle(page: Page) -> bool:
    return bool(re.search(r"Python.* \| Idle", page.locator("#jp-main-statusbar").inner_text()))


def wait_until_idle(page: Page) -> None:
    page.locator("#jp-main-statusbar").get_by_text(re.compile(r"^Python.* \| Idle$")).wait_for()


def run_all(page: Page, file: Path) -> None:
    """Run all cells of the notebook, which is saved in `file`, and fail with the cells that have an error."""
    choose(page, "Run", "runmenu:run-all")
    end, rests = time.monotonic() + WHOLE_RUN, 0
    while rests < 50:  # an error leaves the cells after it without a number
        assert time.monotonic() < end, f"it still runs after {WHOLE_RUN} s"
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        if all(re.search(r"\d", prompt) for prompt in prompts):
            break
        rests = rests + 1 if is_idle(page) and "[*]:" not in prompts else 0
        page.wait_for_timeout(100)
    wait_until_idle(page)
    save(page)
    # The page shows errors as it shows what is written to stderr; the file tells them apart.
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    errors = [
        "\n".join([cell.source, *output.traceback])
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert not errors, re.sub(r"\x1b\[[\d;]*m", "", "\n\n".join(errors))
    assert all(cell.execution_count for cell in cells), "a cell was not run"


def save(page: Page) -> None:
    choose(page, "File", "docmanager:save")
    page.locator(".jp-mod-dirty").first.wait_for(state="detached")


def shown(explorer: Locator) -> list[str]:
    """Words and pictures of an explorer."""
    return explorer.evaluate(
        """explorer => [...explorer.querySelectorAll("[role=status], img")].map(part => part.src || part.textContent)"""
    )


def has_focus(control: Locator) -> bool:
    return control.evaluate("control => control === document.activeElement")


def move(page: Page, explorer: Locator, control: Locator, role: str) -> bool:
    """Move a control by keyboard, and say whether the explorer shows something else then."""
    for keys in KEYS[role]:
        before = shown(explorer)
        for key in keys:
            page.keyboard.press(key)
            if len(keys) > 1:
                page.wait_for_timeout(200)  # a list opens in a window of its own
        assert has_focus(control), f"{keys} take the focus from {control.aria_snapshot()}"
        for _ in range(10 * ANSWER):
            if shown(explorer) != before:
                wait_until_idle(page)
                return True
            page.wait_for_timeout(100)
    return False


def move_all(page: Page, explorer: Locator) -> list[str]:
    """Go through the controls of an explorer with the Tab key, and move each; gives their names."""
    names = []
    for number, control in enumerate(explorer.locator("input, select, button, textarea, [role=slider]").all()):
        if number == 0:
            control.scroll_into_view_if_needed()
            control.focus()
        else:
            page.keyboard.press("Tab")
        said = re.match(ARIA, control.aria_snapshot())
        assert said, f"no control: {control.evaluate('control => control.outerHTML')}"
        role, name = said.groups()
        assert has_focus(control), f"the Tab key does not lead to {role} {name} after {names}"
        if role == "slider":  # ipywidgets gives it no name: it is one control with the named field before it
            field = control.locator("xpath=ancestor::*[contains(@class, 'widget-hbox')][1]").get_by_role("spinbutton")
            value = field.input_value()
            assert move(page, explorer, control, role), f"the slider beside {names[-1]} changes nothing"
            assert float(field.input_value()) == float(control.get_attribute("aria-valuenow")) != float(value)
        else:
            assert name, f"a {role} without a name: {control.evaluate('control => control.outerHTML')}"
            if role == "combobox" and control.locator("option").count() == 1:
                continue  # a list of one has nothing to move to
            assert move(page, explorer, control, role), f"{role} {name} changes nothing"
            names.append(name)
            if role == "checkbox":
                assert move(page, explorer, control, role)  # back, since without any tick there may be no picture
    assert names, "an explorer without controls"
    return names


def photograph(page: Page, folder: Path, name: str) -> None:
    """Save pictures of the whole notebook, from its top to its end, a screen each."""
    panel = page.locator(".jp-WindowedPanel-outer")
    end = page.locator(".jp-Notebook .jp-Cell").last
    panel.evaluate("panel => panel.scrollTo(0, 0)")
    number = 0
    while True:
        page.wait_for_timeout(100)  # JupyterLab lays out what comes into sight
        panel.screenshot(path=folder / f"{name}-{number:02d}.png")
        if end.evaluate("cell => cell.getBoundingClientRect().bottom < window.innerHeight"):
            return
        panel.evaluate("panel => panel.scrollBy(0, panel.clientHeight)")
        number += 1


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        lab = Lab(tmp_path_factory.mktemp("lab"), browser)
        yield lab
        browser.close()
        lab.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory) -> Path:
    """The folder that CNNLESSON_SCREENSHOTS names, or else one of pytest's."""
    folder = Path(os.environ.get("CNNLESSON_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def explorer_notebook(lab) -> Path:
    """A notebook with one explorer, that fails to draw one of its values."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FIXTURE)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = lab.notebooks / "explorer.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda path: path.stem)
def test_a_lesson_runs_and_its_explorers_follow_the_keyboard(lab, screenshots, solution, record_property):
    start = time.perf_counter()
    shutil.copy(solution, lab.notebooks)
    with lab.open(solution.name) as (page, wrong):
        run_all(page, lab.notebooks / solution.name)
        ran = time.perf_counter()
        photograph(page, screenshots, solution.stem)
        assert page.locator(".jp-OutputArea-output img:not([alt]), .jp-OutputArea-output img[alt='']").count() == 0
        moved = []
        for number, explorer in enumerate(page.locator(EXPLORER).all(), start=1):
            try:
                moved += move_all(page, explorer)
            finally:
                explorer.screenshot(path=screenshots / f"{solution.stem}-explorer-{number}.png")
        assert moved, "a lesson without an explorer"
        assert page.locator(TRACEBACK).count() == 0
        choose(page, "Kernel", "kernelmenu:shutdown")
    assert wrong == []
    record_property("took", f"{time.perf_counter() - start:.0f} s, {ran - start:.0f} s of them to run all cells")
    record_property("moved", f"{len(moved)} controls: {', '.join(moved)}")
    record_property("screenshots", str(screenshots))


def test_what_cannot_be_drawn_is_said_in_words(lab, explorer_notebook):
    with lab.open(explorer_notebook.name) as (page, wrong):
        run_all(page, explorer_notebook)
        explorer = page.locator(EXPLORER)
        page.get_by_role("spinbutton", name="end").focus()
        page.keyboard.press("ArrowUp")
        explorer.get_by_text("A line that ends at 6 is not <drawn>.").wait_for()
        assert explorer.locator("img").count() == 0
        page.keyboard.press("ArrowUp")
        explorer.get_by_role("img", name="A line: It ends at 7 and is red.").wait_for()
        assert page.locator(TRACEBACK).count() == 0
    assert wrong == []


def test_an_explorer_stays_readable_when_its_kernel_is_gone(lab, explorer_notebook):
    with lab.open(explorer_notebook.name) as (page, wrong):
        run_all(page, explorer_notebook)
        before = shown(page.locator(EXPLORER))
        choose(page, "Kernel", "kernelmenu:restart")
        page.get_by_role("button", name="Confirm Kernel Restart").click()
        page.locator(".jupyter-widgets-disconnected").first.wait_for()
        wait_until_idle(page)
        page.get_by_role("spinbutton", name="end").focus()
        page.keyboard.press("ArrowUp")  # nobody answers
        page.wait_for_timeout(1000)
        assert shown(page.locator(EXPLORER)) == before
        assert page.locator(TRACEBACK).count() == 0
    assert wrong == []


def test_a_saved_explorer_shows_its_picture_and_words_before_it_is_run_again(lab, explorer_notebook):
    with lab.open(explorer_notebook.name) as (page, _):
        run_all(page, explorer_notebook)
        choose(page, "Kernel", "kernelmenu:shutdown")
        page.wait_for_timeout(1000)
    with lab.open(explorer_notebook.name) as (page, _):
        page.get_by_role("img", name="A line: It ends at 5 and is red.").wait_for(timeout=5000)
        page.get_by_role("status").get_by_text("It ends at 5 and is red.").wait_for()
        assert not page.get_by_text("Error displaying widget").is_visible()
