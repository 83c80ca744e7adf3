"""The checks of all lessons: answers written in other ways are right, and the mistakes of students are named."""

import pytest
import test_check_alexnet
import test_check_data_splitting
import test_check_hyperparameters
import test_check_resnet

LESSONS = [test_check_data_splitting, test_check_alexnet, test_check_resnet, test_check_hyperparameters]


def each(kind: str) -> list:
    """One case for each RIGHT or WRONG answer of all lessons: (check, answer)."""
    return [
        pytest.param(getattr(lesson.check, exercise), answer, id=f"{exercise}-{place}")
        for lesson in LESSONS
        for exercise, answers in getattr(lesson, kind).items()
        for place, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(("check", "answer"), each("RIGHT"))
def test_other_ways_to_write_it_are_right(check, answer):
    verdict = check(answer)
    assert verdict.right, verdict


@pytest.mark.parametrize(("check", "answer"), each("WRONG"))
def test_the_mistake_is_named(check, answer, monkeypatch):
    wrong, mistake = answer
    if getattr(wrong, "__name__", "") == "endless":
        monkeypatch.setattr("cnnlesson.checks.verdict.SECONDS", 1)
    verdict = check(wrong)
    assert verdict.status == "wrong"
    assert mistake in verdict.message


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_exercise_has_two_right_and_eight_wrong_answers(lesson):
    assert list(lesson.RIGHT) == list(lesson.WRONG)
    assert all(len(answers) >= 2 for answers in lesson.RIGHT.values())
    assert all(len(answers) >= 8 for answers in lesson.WRONG.values())


class AlwaysEqual:
    """An object that is equal to everything, and a number in each sense that Python knows."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return True

    def __float__(self):
        return 1.0

    __int__ = __index__ = lambda self: 1


@pytest.mark.parametrize("answer", [AlwaysEqual(), lambda *arguments, **named: AlwaysEqual()])
@pytest.mark.parametrize(("lesson", "exercise"), [(lesson, name) for lesson in LESSONS for name in lesson.RIGHT])
def test_an_object_that_equals_everything_is_not_right(lesson, exercise, answer):
    assert not getattr(lesson.check, exercise)(answer).right
