"""Checks of the exercises, one module a notebook, one function an exercise.

    from cnnlesson.checks import alexnet as check
    check.conv_output_size(conv_output_size)

Each tries the answer, shows a `Verdict` and returns it: right, wrong (and what is wrong) or unanswered. The environment
variable CNNLESSON_CHECKS makes them raise instead: with `strict` where an answer is not right, for an instructor who
runs a returned notebook; with `untouched` where one is answered, for the copies that students start from.
"""
