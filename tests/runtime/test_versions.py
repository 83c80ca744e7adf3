"""The set-up cell reports packages that are missing or too old."""

import importlib.metadata
import subprocess
import sys

import pytest

from cnnlesson.runtime import versions
from cnnlesson.runtime.versions import say_versions


@pytest.fixture
def host(monkeypatch):
    """Pretend that a host has these versions of some packages; None: it lacks the package."""

    def pretend(**installed: str | None) -> None:
        def version(name: str) -> str:
            if name in installed and installed[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return installed.get(name) or importlib.metadata.version(name)

        monkeypatch.setattr(versions, "version", version)
        monkeypatch.setattr(
            versions, "requires", lambda name: ["torch>=2.9", "numpy>=2.0", "tqdm>=4.67", 'ray>=2.40; extra == "ray"']
        )

    return pretend


@pytest.mark.parametrize("torch", ["2.9.0", "2.10.0+cpu", "2.11.0+cu128", "2.15.0", "3.0.0.dev20270101"])
def test_new_enough_versions_print_nothing(host, torch, capsys):
    host(torch=torch, numpy="2.0.2")
    say_versions()
    assert capsys.readouterr().out == ""


def test_what_is_too_old_or_missing_is_one_line_that_says_what_to_do(host, capsys):
    host(torch="2.8.0+cu126", numpy="2.0.0", tqdm=None)
    say_versions()
    said = capsys.readouterr().out
    assert said.startswith("This lesson needs torch>=2.9 (2.8.0+cu126 is installed), tqdm>=4.67 (not installed). Run ")
    assert '%pip install "torch>=2.9" "tqdm>=4.67" in a new cell, restart the kernel' in said
    assert said.count("\n") == 1


def test_a_package_that_is_only_on_the_path_prints_nothing(monkeypatch, capsys):
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions, "requires", requires)
    say_versions()
    assert capsys.readouterr().out == ""


def test_the_check_of_versions_loads_no_package_that_may_be_too_old():
    code = "import sys, cnnlesson.runtime.versions; print(*sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "\n"
