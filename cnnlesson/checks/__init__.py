"""Checks of the exercises: one module per notebook, one function per exercise.

    from cnnlesson.checks import alexnet as check
    check.conv_output_size(conv_output_size)

A check tries the answer, shows a `Verdict` and returns it: right, wrong (with the mistake) or unanswered. With the
environment variable CNNLESSON_CHECKS, checks also raise: with `strict` if an answer is not right, for instructors who
run a returned notebook; with `untouched` if an exercise is answered, for the copies that students start from.
"""
