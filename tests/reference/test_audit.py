from math import prod

from formula import value_of

from cnnlesson.reference.audit import audit_caption, audit_slide


def test_seven_of_nine_figures_in_the_caption_are_right():
    audit = audit_caption()
    assert len(audit) == 9
    assert audit.index[~audit["agrees"]].tolist() == ["input", "conv1"]
    assert audit.loc["conv1", "computed"] == prod((96, 55, 55)) == 290_400
    assert audit.loc["input", "computed"] == prod((3, 227, 227))


def test_all_figures_on_the_slide_but_one_are_right():
    audit = audit_slide()
    assert len(audit) == 9 * 11 - 8  # three pools without filters; flatten without filters, kernel, stride, pad, size
    assert audit.index[~audit["agrees"]].tolist() == [("conv4", "flop_m")]
    assert audit.loc[("conv4", "flop_m"), "arithmetic"] == "256·384·3·3·13·13 = 149,520,384"


def test_the_printed_arithmetic_is_right():
    formulas = [*audit_slide()["arithmetic"], *audit_caption()["arithmetic"]]
    shown = [formula.split(";")[0].split(", rounded")[0] for formula in formulas if "=" in formula]
    assert len(shown) == 8 + 9 + 5 + 5 + 6  # sizes, memory, parameters, multiply-adds; the caption
    for formula in shown:
        left, right = formula.split(" = ")
        assert abs(value_of(left) - float(right.replace(",", ""))) < 1e-3 * abs(value_of(left))
