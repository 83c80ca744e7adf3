"""Test what you changed since origin/main or the last commit, in less than a minute: `make quick`.

The tests of a module are those that mirror its path, or else its folder's. When the time is over, the remaining tests
are skipped, and `make test` runs them.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 40  # from now on, imports included; the last test may take longer
END = time.monotonic() + SECONDS
ALWAYS = ("tests/test_words.py", "tests/test_notebooks.py::test_built_notebooks_match_their_sources_byte_for_byte")


class Deadline:
    """Skips the remaining tests when the time is over."""

    def pytest_runtest_setup(self) -> None:
        if time.monotonic() > END:
            pytest.skip(f"not in the first {SECONDS} seconds: `make test` runs it")


def main() -> int:
    chosen = list(dict.fromkeys([*ALWAYS, *(test for path in changed_files() for test in tests_of(path))]))
    print("testing", *chosen, flush=True)
    options = ["--quiet", "--exitfirst", "--no-header", "-rs", "-m", "not serial and not ray and not thorough"]
    return pytest.main([*options, *chosen], plugins=[Deadline()])


def changed_files() -> list[Path]:
    base = git("merge-base", "HEAD", "origin/main") or git("rev-parse", "--verify", "--quiet", "HEAD~1") or ["HEAD"]
    names = git("diff", "--name-only", base[0]) + git("ls-files", "--others", "--exclude-standard")
    return [Path(name) for name in sorted(set(names))]


def git(*arguments: str) -> list[str]:
    """The lines that a git command prints; none if it fails."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def tests_of(path: Path) -> list[str]:
    """The test file itself, or the file in tests/ that mirrors a module of the package, or else the folder."""
    candidates = []
    if path.parts[0] == "tests" and path.name.startswith("test_") and "browser" not in path.parts:
        candidates = [path]
    elif path.parts[0] == "cnnlesson":
        folder = Path("tests", *path.parts[1:-1])
        candidates = [folder / f"test_{path.name}"] + ([folder] if folder != Path("tests") else [])
    return [str(test) for test in candidates if (ROOT / test).exists()][:1]


if __name__ == "__main__":
    sys.exit(main())
