"""A check reports what is wrong with an answer, and survives whatever the answer does."""

import os
import random
import signal
import sys

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from cnnlesson.checks import verdict
from cnnlesson.checks.verdict import CheckError, Wrong, exercise, expect, filled_in, progress, same_integer


@pytest.fixture
def check(monkeypatch):
    """A check of a function that doubles a number."""
    monkeypatch.setattr(verdict, "_verdicts", {})

    @exercise
    def double(answer):
        mistakes = {"It triples.": lambda x: 3 * x}
        expect(answer, [(1,), (2,), (5,)], lambda x: 2 * x, mistakes)

    return double


def test_right_wrong_and_unanswered(check, capsys):
    def unwritten(x):
        raise NotImplementedError

    assert check(lambda x: x + x).right
    assert check(unwritten).status == check(None).status == check(...).status == "unanswered"
    wrong = check(lambda x: 3 * x)
    assert (wrong.exercise, wrong.status, wrong.message) == ("double", "wrong", "It triples.")
    assert "✘ double: not right yet. It triples." in capsys.readouterr().out


def test_an_error_of_torch_is_not_an_unwritten_answer(check):
    def refused(x):  # since torch 2.15, the mean of integers raises this in the student's own line
        raise NotImplementedError("mean(): could not infer output dtype. Got: Byte")

    verdict = check(refused)
    assert verdict.status == "wrong"
    assert verdict.message.startswith("It raised NotImplementedError: mean(): could not infer output dtype")


def test_an_unknown_mistake_is_shown_in_the_first_case_that_differs(check):
    def square(x):
        return x * x

    assert check(square).message == "square(1) is 1, which is not right: work that case out by hand."
    assert check(lambda x: None).message == "It returns None: does the function end with a return?"


def test_an_error_is_reported_with_the_students_own_line(check):
    def broken(x):
        numbers = [1, 2]
        return numbers[7]

    message = check(broken).message
    assert message.startswith("It raised IndexError: list index out of range (in your line")
    assert message.endswith(": return numbers[7])")

    def inside_torch(x):
        return torch.zeros(2, 3) @ torch.zeros(2, 3)

    assert "return torch.zeros(2, 3) @ torch.zeros(2, 3)" in check(inside_torch).message


@pytest.mark.parametrize(
    "leave", [lambda x: sys.exit(3), lambda x: exit(), lambda x: (_ for _ in ()).throw(BaseException)]
)
def test_an_answer_cannot_end_the_program(check, leave):
    assert check(leave).status == "wrong"


def test_the_stop_button_still_stops(check):
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(interrupted)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system cannot interrupt an answer")
@pytest.mark.parametrize("swallows", [False, True])
def test_an_answer_that_never_returns_is_stopped_and_the_alarm_is_off_again(check, monkeypatch, swallows):
    monkeypatch.setattr(verdict, "SECONDS", 0.2)

    def endless(x):
        while True:
            try:
                pass
            except Exception:
                assert swallows

    before = signal.getsignal(signal.SIGALRM)
    assert "did not return within 0.2 seconds" in check(endless).message
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_random_states_and_torchs_settings_are_restored(check):
    def draws(x):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        return 2 * x

    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    assert check(draws).right
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32


def test_a_check_gets_a_copy_of_the_students_objects(monkeypatch):
    monkeypatch.setattr(verdict, "_verdicts", {})

    @exercise
    def table(answer):
        answer["a"].append(2)
        raise Wrong("no")

    mine = {"a": [1]}
    table(mine)
    assert mine == {"a": [1]}


def test_an_answer_that_cannot_be_copied_is_wrong(check):
    assert "It raised TypeError: cannot pickle 'generator' object" in check(x for x in ()).message


@pytest.mark.parametrize("empty", [None, ..., (1, None)])
def test_empty_values_of_a_table_are_unanswered_and_named(monkeypatch, empty):
    monkeypatch.setattr(verdict, "_verdicts", {})

    @exercise
    def table(answer):
        assert filled_in(answer, ("a", "b")) == {"b": 2, "a": (1, 1)}

    assert str(table({"a": 1, "b": empty})) == "○ table: not answered yet. Still empty: b."
    assert table({"a": 1, "c": empty}).message == "Expected a dict with the keys 'a', 'b'."
    assert table({"a": (1, 1), "b": 2}).right


def test_strict_raises_unless_right_and_untouched_unless_unanswered(check, monkeypatch):
    monkeypatch.setitem(os.environ, "CNNLESSON_CHECKS", "strict")
    check(lambda x: 2 * x)
    with pytest.raises(CheckError, match=r"double: not right yet\. It triples"):
        check(lambda x: 3 * x)
    with pytest.raises(CheckError, match="double: not answered yet"):
        check(None)
    monkeypatch.setitem(os.environ, "CNNLESSON_CHECKS", "untouched")
    check(None)
    with pytest.raises(CheckError, match="double: right"):
        check(lambda x: 2 * x)


def test_the_panel_has_text_and_an_icon_and_escapes_what_the_student_wrote(check):
    panel = check(lambda x: "<script>")._repr_html_()
    assert "✘ double: not right yet" in panel
    assert "<script>" not in panel and "&lt;script&gt;" in panel


def test_progress_counts_and_lists_the_exercises(check, capsys):
    check(lambda x: 2 * x)
    capsys.readouterr()
    progress(__name__)
    assert capsys.readouterr().out.splitlines() == ["1 of 1 exercises are right.", "✔ double: right"]


def test_a_float_is_not_an_integer():
    assert same_integer(3, 3) and same_integer(np.int64(3), 3) and same_integer(3.0, 3.0)
    assert not same_integer(3.0, 3) and not same_integer(4, 3)


def test_a_notebook_shows_the_verdict_once_as_a_panel_with_the_same_text():
    cell = (
        "from cnnlesson.checks import alexnet as check\n"
        "def initial_loss(num_classes):\n    return 1 / num_classes\n"
        "check.initial_loss(initial_loss)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, timeout=120).execute()
    (output,) = notebook.cells[0].outputs
    assert "✘ initial_loss: not right yet" in output.data["text/html"]
    assert output.data["text/plain"].startswith("✘ initial_loss: not right yet. That is the probability")


def test_torchs_own_not_implemented_error_is_not_a_missing_answer(check):
    class Misspelt(torch.nn.Module):
        def froward(self, x):
            return 2 * x

    verdict = check(lambda x: Misspelt()(x))
    assert verdict.status == "wrong"
    assert "is missing the required" in verdict.message


def helper(x):
    raise NotImplementedError


def answer_that_calls_a_helper(x):
    return helper(x)


def test_an_answer_that_calls_another_exercise_uses_the_lessons_version_unless_the_students_is_right(
    check, monkeypatch
):
    monkeypatch.setattr(sys.modules[__name__], "OWN_VERSIONS", {"helper": lambda x: x + x}, raising=False)
    verdict._verdicts[__name__]["helper"] = None
    assert check(answer_that_calls_a_helper).right
    with pytest.raises(NotImplementedError):
        helper(1)  # the student's is back
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: 3 * x)
    verdict._verdicts[__name__]["helper"] = verdict.Verdict("helper", "right", "")
    assert check(answer_that_calls_a_helper).message == "It triples."


def test_what_the_student_has_switched_does_not_matter(check):
    def needs_gradients(x):
        weight = torch.ones(1, requires_grad=True)
        (weight * x * 2).backward()
        assert weight.dtype is torch.float32
        return int(weight.grad)

    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    try:
        assert check(needs_gradients).right
        assert not torch.is_grad_enabled() and torch.get_default_dtype() is torch.float64
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("result", [torch.tensor, np.array, np.int64])
def test_numbers_in_tensors_and_arrays_are_numbers(check, result):
    assert check(lambda x: result(2 * x)).right
    assert check(lambda x: result(3 * x)).message == "It triples."
