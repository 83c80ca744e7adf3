"""Run all notebooks as on a host such as Google Colab: with its versions, and the package installed by the set-up cell.

    .venv/bin/python tests/hosts/run.py .venv-colab/bin/python tests/widgets

The set-up cells install from a git repository that this script creates from the current files, committed or not. The
tests in the folders that follow run afterwards, with the same versions. The exit status is 1 if a notebook or a test
fails, or if the notebooks did not use the package that the set-up cell installed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LESSON = Path(__file__).parents[2]
sys.path.insert(0, str(LESSON / "notebooks"))

import build  # noqa: E402

WORKERS = 2
BROUGHT = ("cnnlesson",)  # what the set-up cell installs; the host has everything else
SHOWN = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "ipywidgets", "ipykernel", "ipython", "traitlets")

VERSIONS = f"""
import importlib.metadata, importlib.util, platform
assert not [name for name in {BROUGHT} if importlib.util.find_spec(name)], "installed too early: {BROUGHT}"
versions = [f"{{name}} {{importlib.metadata.version(name)}}" for name in {SHOWN}]
print(f"Python {{platform.python_version()}}", *versions, sep=", ")
"""
ORIGIN = """
import cnnlesson, importlib.metadata, json, sys
address = json.loads(importlib.metadata.distribution("cnnlesson").read_text("direct_url.json"))["url"]
print(json.dumps([address, cnnlesson.__file__.startswith(sys.prefix)]))
"""


def main(python: str, *tests: str) -> int:
    python = os.path.abspath(python)  # do not resolve the link: it identifies the virtual environment
    with tempfile.TemporaryDirectory(prefix="host-") as folder:
        address = make_repository(Path(folder) / "lesson")
        notebooks = write_notebooks(Path(folder) / "notebooks", address)

        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--quiet", "--yes", *BROUGHT], check=True)
        print(output_of(python, VERSIONS, folder), flush=True)
        first, *others = notebooks
        passed = [run(python, first)]  # before the others: its set-up cell installs the package for all of them
        with ThreadPoolExecutor(WORKERS) as pool:
            passed += pool.map(lambda notebook: run(python, notebook), others)
        print(f"{sum(passed)} of {len(passed)} notebooks passed")
        if not all(passed):
            return 1

        origin = json.loads(output_of(python, ORIGIN, folder))
        assert origin == [address, True], f"expected cnnlesson from {address}, got {origin}"
        checkout = Path(folder) / "checkout"  # so that nobody's next edit is tested with an older package
        subprocess.run(["git", "clone", "--quiet", address, checkout], check=True)
        return int(not run_tests(python, checkout, tests))


def make_repository(folder: Path) -> str:
    """Create a git repository of the project's files, without those in .gitignore, and return its URL."""
    identity = {f"GIT_{role}_{what}": "lesson" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | identity | {"GIT_CONFIG_GLOBAL": os.devnull}  # without the user's hooks and signatures
    git = ["git", f"--git-dir={folder}", f"--work-tree={LESSON}"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "As it is now"]):
        subprocess.run([*git, *command], cwd=LESSON, env=environment, check=True)
    return folder.as_uri()


def write_notebooks(folder: Path, address: str) -> list[Path]:
    paths = []
    for name, text in build.build_all(LESSON / "notebooks" / "src", address).items():
        paths.append(folder / name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def output_of(python: str, code: str, folder: str) -> str:
    """The output of `code`, run like a notebook's kernel."""
    command = [python, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def run(python: str, notebook: Path) -> bool:
    """Run a notebook with nbval and return whether it passes; if it does not, print nbval's output."""
    start = time.perf_counter()
    checks = "strict" if notebook.parent.name == "solutions" else "untouched"
    command = [python, "-m", "pytest", "--quiet", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]
    process = subprocess.run(
        [*command, notebook.name],
        cwd=notebook.parent,
        env=environment() | {"CNNLESSON_TINY": "1", "CNNLESSON_CHECKS": checks},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    passed = process.returncode == 0
    name = f"{notebook.parent.name}/{notebook.name}"
    summary = f"{name}: {'passed' if passed else 'FAILED'} in {time.perf_counter() - start:.0f} seconds"
    print(summary if passed else f"{process.stdout}\n{summary}", flush=True)
    return passed


def run_tests(python: str, checkout: Path, tests: tuple[str, ...]) -> bool:
    """Test the package that the set-up cell installed, such as its explorers: no notebook moves their controls."""
    options = ["--quiet", "--numprocesses", str(WORKERS), "--dist", "worksteal", "-p", "no:cacheprovider"]
    command = [python, "-P", "-m", "pytest", *options, "-m", "not serial and not thorough", *tests]
    return subprocess.run(command, cwd=checkout, env=environment()).returncode == 0


def environment() -> dict[str, str]:
    """The environment without PYTHONPATH, which could import the checkout; one torch thread per worker."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
