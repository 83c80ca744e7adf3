"""The package works on Windows and macOS too: code pages, and modules that only Unix has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlesson
from cnnlesson.checks import verdict

PACKAGE = Path(cnnlesson.__file__).parent
UNIX_ONLY = {"crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios"}


def run(folder: Path, encoding: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command as in a terminal of this encoding."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, "-m", "cnnlesson", *arguments], cwd=folder, env=environment, capture_output=True
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", ["exercise", "depth", "selftest"])
def test_help_prints_in_any_code_page(tmp_path, encoding, command):
    process = run(tmp_path, encoding, command, "--help")
    assert process.returncode == 0, process.stderr
    assert f"usage: python -m cnnlesson {command}" in process.stdout.decode(encoding)


def test_an_error_prints_in_any_code_page(tmp_path):
    options = ["--data", "Ωμέγα", "--epochs", "1", "--lr", "1", "--batch-size", "1", "--weight-decay", "0"]
    process = run(tmp_path, "ascii", "exercise", "--model", "alexnet", *options)
    assert process.returncode == 2
    assert process.stderr.startswith(b"error: ") and b"?????" in process.stderr


def test_an_exercise_prints_in_any_code_page_and_states_the_encoding_of_its_files(tmp_path):
    words = "exercise --model resnet18 --data shapes --images 100 --epochs 1 --lr 0.01 --batch-size 16 --weight-decay 0"
    options = [*words.split(), "--image-size", "32", "--device", "cpu", "--out", "out"]
    process = run(tmp_path, "ascii", *options, PYTHONWARNDEFAULTENCODING="1")
    assert process.returncode == 0, process.stderr
    assert b"chosen: resnet18" in process.stdout
    warnings = [line for line in process.stderr.decode().splitlines() if "EncodingWarning" in line]
    assert not [line for line in warnings if str(PACKAGE) in line]
    assert "<html" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_needs_what_only_unix_has(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & UNIX_ONLY, f"line {node.lineno}"


def test_without_the_timer_of_unix_a_check_still_answers(monkeypatch):
    for name in ("setitimer", "getitimer", "SIGALRM", "ITIMER_REAL"):
        monkeypatch.delattr(f"signal.{name}", raising=False)
    monkeypatch.setattr(verdict, "_verdicts", {})

    @verdict.exercise
    def double(answer):
        verdict.expect(answer, [(1,), (3,)], lambda x: 2 * x, {})

    assert double(lambda x: x + x).right
    assert not double(lambda x: 3 * x).right
