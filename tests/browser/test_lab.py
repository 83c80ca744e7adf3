"""Use each solution notebook in JupyterLab and Chromium as a person would: run it, and move explorers by keyboard.

These tests take minutes and need a browser, so plain `pytest` skips them (`norecursedirs`). `make test` runs them
separately, instead of nbval on the solutions: they run the same cells and are equally strict.
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
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"), reverse=True)  # the slowest first
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium not found: install Debian's package chromium")
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium's sandbox does not run as root
]
COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"  # only if the project has a repository URL

# JupyterLab user settings: do not ask about news, and do not fetch any.
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}

EXPLORER = ".jp-OutputArea-output:has(.widget-vbox [role=status])"
TRACEBACK = ".jp-OutputArea-output:has-text('Traceback (most recent call last)')"
# The keys that change a control; the second list is for a control that is already at its end. JupyterLab uses the arrow
# keys on a closed list to select the next cell, so the test opens a list first.
KEYS = {
    "spinbutton": (["ArrowUp"], ["ArrowDown"]),
    "slider": (["ArrowLeft"], ["ArrowRight"]),  # back to where it was before the test of the number field beside it
    "combobox": (["Space", "ArrowDown", "Enter"], ["Space", "ArrowUp", "Enter"]),
    "checkbox": (["Space"],),
    "button": (["Enter"],),
}
ARIA = r"""- '?(\w+)(?: "(.*?)")?"""  # role and name, in quotes if YAML requires them
SCREEN = {"width": 1280, "height": 1200}  # pixels; large enough for an explorer
WHOLE_RUN = 400  # seconds, for all cells of a notebook
ANSWER = 15  # seconds within which an explorer must follow a control

FIXTURE = """\
from cnnlesson.plots.figures import blank, describe, description, lesson_style
from cnnlesson.widgets.explorer import Choice, Explorer, Slider, Tick


@lesson_style
def draw(end, colour, dots):
    if end == 6:
        raise ValueError("A line that ends at 6 is not <drawn>.")
    ax = blank(size=(4, 2))
    ax.plot([0, end], color=colour, marker="o" if dots else "")
    describe(ax, "A line", f"It ends at {end} and is {colour}.")
    return ax, description(ax).text


Explorer(
    {"end": Slider("end", 5, 1, 9), "colour": Choice("colour", ["red", "blue"]), "dots": Tick("dots", False)},
    draw,
)"""


class Lab:
    """A JupyterLab server that reads and writes only in `folder`, and a browser that opens its notebooks."""

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
        arguments = [f"--ServerApp.{name}={value}" for name, value in options.items()]
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *arguments],
                env=os.environ
                | {"CNNLESSON_TINY": "1", "CNNLESSON_CHECKS": "strict"}
                | {name: str(folder / value) for name, value in folders.items()},
                stdout=log,
                stderr=log,
            )
        running = self._running(folder / "runtime")
        self.url, self.token = running["url"], running["token"]

    def _running(self, folder: Path) -> dict:
        """The file that the server writes when it starts to listen, with its URL and its token."""
        for _ in range(600):
            for path in folder.glob("jpserver-*.json"):
                with suppress(json.JSONDecodeError):  # not completely written yet
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
        """Yield the page of a notebook whose kernel is ready, and a list that collects errors on the page."""
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
                    wrong.append(f"request to another machine: {url[:200]}")

            context.route("**/*", route)
            page = context.new_page()
            page.on("request", lambda request: requested(request.url))
            page.on("websocket", lambda socket: requested(socket.url))
            page.on("pageerror", lambda error: wrong.append(f"error in the page: {error}"))
            page.on(
                "console",
                lambda message: (
                    wrong.append(f"error in the console: {message.text}") if message.type == "error" else None
                ),
            )
            page.goto(f"{self.url}lab/tree/{name}?reset&token={self.token}")
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
            wait_until_idle(page)  # running a cell without a kernel would open a dialog
            page.keyboard.press("Control+b")  # hides the file browser
            yield page, wrong


def choose(page: Page, menu: str, command: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.locator(f'.lm-Menu [data-command="{command}"]').click()


def is_idle(page: Page) -> bool:
    return bool(re.search(r"Python.* \| Idle", page.locator("#jp-main-statusbar").inner_text()))


def wait_until_idle(page: Page) -> None:
    page.locator("#jp-main-statusbar").get_by_text(re.compile(r"^Python.* \| Idle$")).wait_for()


def run_all(page: Page, file: Path) -> None:
    """Run all cells of the notebook, save it to `file`, and fail with the cells that raised an error."""
    choose(page, "Run", "runmenu:run-all")
    end, rests = time.monotonic() + WHOLE_RUN, 0
    while rests < 50:  # after an error, the remaining cells never get a number
        assert time.monotonic() < end, f"the notebook is still running after {WHOLE_RUN} s"
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        if all(re.search(r"\d", prompt) for prompt in prompts):
            break
        rests = rests + 1 if is_idle(page) and "[*]:" not in prompts else 0
        page.wait_for_timeout(100)
    wait_until_idle(page)
    save(page)
    # The page displays errors and stderr in the same way; the file distinguishes them.
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    errors = [
        "\n".join([cell.source, *output.traceback])
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert not errors, re.sub(r"\x1b\[[\d;]*m", "", "\n\n".join(errors))
    assert all(cell.execution_count for cell in cells), "a cell did not run"


def save(page: Page) -> None:
    choose(page, "File", "docmanager:save")
    page.locator(".jp-mod-dirty").first.wait_for(state="detached")


def shown(explorer: Locator) -> list[str]:
    """The text and the images of an explorer."""
    return explorer.evaluate(
        """explorer => [...explorer.querySelectorAll("[role=status], img")].map(part => part.src || part.textContent)"""
    )


def has_focus(control: Locator) -> bool:
    return control.evaluate("control => control === document.activeElement")


def move(page: Page, explorer: Locator, control: Locator, role: str) -> bool:
    """Change a control by keyboard, and return whether the explorer's output changes."""
    for keys in KEYS[role]:
        before = shown(explorer)
        for key in keys:
            page.keyboard.press(key)
            if len(keys) > 1:
                page.wait_for_timeout(200)  # a list opens in a separate window
        assert has_focus(control), f"{control.aria_snapshot()} loses the focus after {keys}"
        for _ in range(10 * ANSWER):
            if shown(explorer) != before:
                wait_until_idle(page)
                return True
            page.wait_for_timeout(100)
    return False


def move_all(page: Page, explorer: Locator) -> list[str]:
    """Tab through the controls of an explorer, change each of them, and return their names."""
    names = []
    for number, control in enumerate(explorer.locator("input, select, button, textarea, [role=slider]").all()):
        if number == 0:
            control.scroll_into_view_if_needed()
            control.focus()
        else:
            page.keyboard.press("Tab")
        snapshot = re.match(ARIA, control.aria_snapshot())
        assert snapshot, f"not a control: {control.evaluate('control => control.outerHTML')}"
        role, name = snapshot.groups()
        assert has_focus(control), f"the Tab key does not reach {role} {name} after {names}"
        if role == "slider":  # has no name in ipywidgets: it belongs to the named field before it
            field = control.locator("xpath=ancestor::*[contains(@class, 'widget-hbox')][1]").get_by_role("spinbutton")
            value = field.input_value()
            assert move(page, explorer, control, role), f"the slider beside {names[-1]} has no effect"
            assert float(field.input_value()) == float(control.get_attribute("aria-valuenow")) != float(value)
        else:
            assert name, f"{role} without a name: {control.evaluate('control => control.outerHTML')}"
            if role == "combobox" and control.locator("option").count() == 1:
                continue  # a list with one option cannot change
            assert move(page, explorer, control, role), f"{role} {name} has no effect"
            names.append(name)
            if role == "checkbox":
                assert move(page, explorer, control, role)  # back: with all boxes cleared there may be no image
    assert names, "the explorer has no controls"
    return names


def photograph(page: Page, folder: Path, name: str) -> None:
    """Save screenshots of the whole notebook, one per screen, from top to bottom."""
    panel = page.locator(".jp-WindowedPanel-outer")
    end = page.locator(".jp-Notebook .jp-Cell").last
    panel.evaluate("panel => panel.scrollTo(0, 0)")
    number = 0
    while True:
        page.wait_for_timeout(100)  # JupyterLab lays out cells when they become visible
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
    """The folder named by CNNLESSON_SCREENSHOTS, or a temporary one."""
    folder = Path(os.environ.get("CNNLESSON_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def explorer_notebook(lab) -> Path:
    """A notebook with one explorer, which cannot draw one of its values."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FIXTURE)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = lab.notebooks / "explorer.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda path: path.stem)
def test_lesson_runs_and_its_explorers_follow_the_keyboard(lab, screenshots, solution, record_property):
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
        assert moved, "the lesson has no explorer"
        assert page.locator(TRACEBACK).count() == 0
        choose(page, "Kernel", "kernelmenu:shutdown")
    assert wrong == []
    record_property("took", f"{time.perf_counter() - start:.0f} s, of which {ran - start:.0f} s to run all cells")
    record_property("moved", f"{len(moved)} controls: {', '.join(moved)}")
    record_property("screenshots", str(screenshots))


def test_explorer_shows_the_reason_when_it_cannot_draw(lab, explorer_notebook):
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


def test_explorer_stays_readable_without_its_kernel(lab, explorer_notebook):
    with lab.open(explorer_notebook.name) as (page, wrong):
        run_all(page, explorer_notebook)
        before = shown(page.locator(EXPLORER))
        choose(page, "Kernel", "kernelmenu:restart")
        page.get_by_role("button", name="Confirm Kernel Restart").click()
        page.locator(".jupyter-widgets-disconnected").first.wait_for()
        wait_until_idle(page)
        page.get_by_role("spinbutton", name="end").focus()
        page.keyboard.press("ArrowUp")  # no kernel responds
        page.wait_for_timeout(1000)
        assert shown(page.locator(EXPLORER)) == before
        assert page.locator(TRACEBACK).count() == 0
    assert wrong == []


def test_saved_explorer_shows_image_and_text_before_it_runs_again(lab, explorer_notebook):
    with lab.open(explorer_notebook.name) as (page, _):
        run_all(page, explorer_notebook)
        choose(page, "Kernel", "kernelmenu:shutdown")
        page.wait_for_timeout(1000)
    with lab.open(explorer_notebook.name) as (page, _):
        page.get_by_role("img", name="A line: It ends at 5 and is red.").wait_for(timeout=5000)
        page.get_by_role("status").get_by_text("It ends at 5 and is red.").wait_for()
        assert not page.get_by_text("Error displaying widget").is_visible()
