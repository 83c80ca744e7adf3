"""The project's English: none of the words that CONTRIBUTING.md advises against, in code, notebooks and documentation.

`python tests/test_words.py` lists what it finds, as file:line: word.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cnnlesson", "tests", "benchmarks", "examples", "notebooks", "docs", ".")  # "." is the top folder by itself

WORDS = {  # a regular expression: what to write instead
    "processors?": "CPU",
    "alone": "only, by itself",
    "anew": "again, from scratch",
    "first weights": "initial weights",
    "loss of guessing": "loss at chance level",
    "gives": "returns, yields, is",
    "goes on|go on|going on|went on": "continues, resumes",
    "(take|takes|taken|taking|took) up": "continues, resumes",
    "looked at": "evaluated, saw",
    "whoever|for who": "if you ..., readers who ...",
    "in no way": "not",
    "(in|into) words": "as text, described",
    "mend|mends|mended|mending": "fix",
    "shall": "should, will, must",
    "at once": "immediately, at the same time",
    "deviations?": "standard deviation",
}
# A phrase may continue on the next line.
PATTERNS = {
    re.compile(rf"\b({words})\b".replace(" ", r"\s+"), re.IGNORECASE): better for words, better in WORDS.items()
}
# The right term, an address, the name of a function or file, and the part of CONTRIBUTING.md that lists the words.
ALLOWED = re.compile(
    r"standard\s+deviations?|https?://\S+|platform\.processor|<!-- word list -->.*?<!-- end of word list -->",
    re.IGNORECASE | re.DOTALL,
)
NAME = re.compile(r"""\w?["'][\w-]*["']""")  # a string of one word is a key or an option, not a sentence
PROSE_TOKENS = {
    number
    for name in ("COMMENT", "STRING", "FSTRING_MIDDLE", "TSTRING_MIDDLE")  # the last two since Python 3.12 and 3.14
    if (number := getattr(tokenize, name, None)) is not None
}


def prose(code: str) -> str:
    """The comments and strings of Python code, each where it is in the code, and spaces for everything else."""
    lines = [[" "] * len(line) for line in code.splitlines()]
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type not in PROSE_TOKENS or NAME.fullmatch(token.string):
            continue
        text = token.string.strip("\"'# ").rjust(len(token.string)) if "\n" not in token.string else token.string
        row, column = token.start
        for offset, part in enumerate(text.split("\n")):
            start = column if offset == 0 else 0
            lines[row - 1 + offset][start : start + len(part)] = part
    return "\n".join("".join(line) for line in lines)


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, word, and what to write instead, for each word on the list."""
    text = ALLOWED.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
    for pattern, better in PATTERNS.items():
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), better


def findings_in(folder: str) -> list[str]:
    paths = (ROOT / folder).glob("*") if folder == "." else (ROOT / folder).rglob("*")
    found = []
    for path in sorted(path for path in paths if path.suffix in (".py", ".md") and path != Path(__file__)):
        text = path.read_text(encoding="utf-8")
        for line, word, better in sorted(findings(prose(text) if path.suffix == ".py" else text)):
            found.append(f"{path.relative_to(ROOT)}:{line}: {word!r}; write {better}")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_prose_has_no_word_that_the_style_guide_advises_against(folder):
    found = findings_in(folder)
    assert not found, "see the word list in CONTRIBUTING.md\n" + "\n".join(found)


def test_words_are_found_in_comments_strings_and_across_lines():
    code = 'x = f"it {goes} on"  # The loop goes\n# on.\nanew = alone("Weights are drawn anew")\n"""\nAt once.\n"""\n'
    assert sorted(findings(prose(code))) == [
        (1, "goes on", "continues, resumes"),
        (3, "anew", "again, from scratch"),
        (5, "At once", "immediately, at the same time"),
    ]


def test_code_keys_addresses_and_the_right_term_are_not_prose():
    code = 'found["processor"] = platform.processor()  # the standard\n# deviation, see https://x.org/gives\n'
    assert not list(findings(prose(code)))


if __name__ == "__main__":
    everything = [line for folder in FOLDERS for line in findings_in(folder)]
    print(*everything, sep="\n")
    sys.exit(bool(everything))
