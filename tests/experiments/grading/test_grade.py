r"""Verdicts: what means the same is right, what only looks alike is wrong, and nothing hangs."""

import os
import subprocess
import sys
import threading
import time

import pytest

from experiments import child_python
from experiments.grading import grade as grading
from experiments.grading.extraction import candidates
from experiments.grading.grade import grade

# (answer, reference) that a reader calls the same.
RIGHT = [
    # numbers
    ("42", "42"), ("42.", "42"), ("$42$", "42"), ("007", "7"), ("+5", "5"), ("−5", "-5"),
    ("-0", "0"),
    ("3.50", "3.5"), ("1,234", "1234"), ("1{,}234", "1234"), (r"1\,234", "1234"),
    (r"7,\!654,\!321", "7654321"), ("12,345.60", "12345.6"), ("10^{6}", "1,000,000"),
    ("1e3", "1000"),
    (r"1.5\times 10^{-8}", "0.000000015"), (r"3 \cdot 10^5", "3e5"), ("100, 200", "100,200"),
    # fractions, roots, powers, functions
    ("0.5", r"\frac{1}{2}"), (r"\dfrac{1}{2}", "1/2"), (r"\tfrac12", "0.5"),
    (r"\frac{-3}{4}", r"-\frac34"),
    (r"3\frac{1}{2}", "3.5"), ("3 1/2", r"\frac{7}{2}"), (r"-3\frac12", "-3.5"),
    (r"\frac{6}{8}", r"\frac34"),
    ("0.333333", r"\frac{1}{3}"), (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt3}{3}"),
    (r"\sqrt[3]{27}", "3"), ("2^{10}", "1024"), (r"0.5\pi", r"\frac{\pi}{2}"),
    (r"2\pi r", r"2r\pi"),
    (r"\ln 4", r"2\ln 2"), (r"\log_2 8", "3"), ("5!", "120"), (r"\binom{5}{2}", "10"),
    (r"\sin\frac{\pi}{6}", "0.5"), ("infinity", r"\infty"), (r"+\infty", r"\infty"),
    # complex numbers
    ("4i+3", "3+4i"), (r"\frac{4-6i}{13}", r"\frac{4}{13}-\frac{6}{13}i"), ("2i^2", "-2"),
    # currency, units, degrees, percent
    (r"\$42", "42"), ("$1,250.50", "1250.5"), (r"10\text{ dollars}", r"\$10"),
    (r"5\text{ cm}", "5"),
    (r"5 \mathrm{~km/h}", "5"), (r"5\text{ kilometers per hour}", "5 km/h"), ("12 inches", "12"),
    (r"6\text{ square centimeters}", r"6\text{ cm}^2"), (r"90^\circ", "90"),
    ("90 degrees", r"90^{\circ}"),
    ("3 apples", r"3\text{ apples}"), ("5 m", "5"), ("60 mph", "60"), (r"25\%", "25"),
    (r"25\%", "0.25"),
    ("0.25", r"25\%"), ("12.5%", r"\frac{1}{8}"), ("25 percent", r"25\%"),
    # several values
    ("1, 2", "2,1"), ("x=1 or x=2", "1,2"), (r"x = 1 \text{ or } x = 2", r"\{1,2\}"),
    ("x=0, 2", "2, 0"),
    (r"2\text{ and }3", "3, 2"), (r"\{2,1\}", "1, 2"), (r"\{5\}", "5"), (r"\pm 2", "2, -2"),
    (r"1\pm\sqrt2", r"1-\sqrt{2}, 1+\sqrt{2}"), (r"\{1\pm\sqrt5,-2\}", r"-2,1+\sqrt5,1-\sqrt5"),
    ("x=1,y=2", "y=2, x=1"), ("x=1, y=2", "1, 2"), ("(3,4), (1,2)", "(1,2),(3,4)"),
    # tuples, intervals, inequalities
    (r"\left( \frac12 , 2 \right)", "(0.5, 2)"), (r"\langle 1,2\rangle", "(1,2)"),
    ("1, 2", "(1,2)"),
    ("[0, 1)", "[0,1)"), (r"(-\infty,3]", r"(-\infty, 3.0]"), (r"x \le 3", r"(-\infty,3]"),
    (r"[0,1)", r"0 \le x < 1"), (r"1 > x \ge 0", "[0,1)"), (r"x \in [0,1)", "[0,1)"),
    ("3<x", "x>3"),
    (r"(3,4)\cup(0,1)", r"(0,1) \cup (3,4)"), (r"[1,2]\cup[2,3]", "[1,3]"), ("|x|<2", "(-2,2)"),
    (r"x<1 \text{ or } x>2", r"(-\infty,1)\cup(2,\infty)"), (r"\{x \mid x<0\}", r"(-\infty,0)"),
    # matrices
    (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} \\ 2 \end{pmatrix}"),
    # equations and expressions
    ("y=1+2x", "y = 2x+1"), ("2x+1", "y = 2x+1"), ("2x - y + 1 = 0", "y=2x+1"), ("x=5", "5"),
    ("(x+1)^2", "x^2+2x+1"), ("x^2-5x+6", "(x-2)(x-3)"), (r"0.5x", r"\frac{x}{2}"),
    ("f(x)=x^2+1", "x^2+1"),
    (r"A = \pi r^2 = 9\pi", r"9\pi"), (r"\text{Area} = 12", "12"), (r"\log_6(216)=3", "3"),
    (r"\sum_{k=1}^{4} k", "10"),
    # words, times, ratios, bases
    ("Evelyn", r"\text{Evelyn}"), ("C", "(C)"), (r"\text{(C)}", "C"), ("(b)", "B"), ("yes", "Yes"),
    (r"\text{odd}", "odd"), ("No solution", r"\text{no solution}"), (r"6:30 \text{ p.m.}", "6:30"),
    ("1 : 2", "1:2"), ("1101_{2}", "1101_2"),
]  # fmt: skip

# (answer, reference) that look close and are not the same.
WRONG = [
    ("43", "42"), ("-42", "42"), ("12345", "1234"), ("123", "1,234"), ("1.234", "1{,}234"),
    ("10^5", "10^6"),
    ("1.01", "1.0100001"), (r"2.5\times10^{-8}", r"1.5\times10^{-8}"), ("0.00000002", "0.00000001"),
    ("0.05", r"\frac12"), (r"\frac{2}{1}", r"\frac12"), (r"-\frac12", r"\frac12"),
    ("31/2", r"3\frac12"),
    (r"\frac32", r"3\frac12"), ("0.33", r"\frac13"), (r"2\sqrt{3}", r"\sqrt{8}"),
    ("1.41", r"\sqrt2"),
    ("3.14", r"\pi"), ("9", r"9\pi"), (r"\frac{\pi}{6}", r"\frac{\pi}{3}"), ("20", r"\binom{5}{2}"),
    (r"-\infty", r"\infty"), ("3-4i", "3+4i"), (r"5\text{ m}", r"5\text{ cm}"),
    ("12 feet", "12 inches"),
    (r"6\text{ cm}^3", r"6\text{ cm}^2"), ("5t", "5"), ("2c", "2d"), ("5x", "5"),
    ("54^\\circ", "45^\\circ"),
    ("0.25", "25"), ("25", "0.25"), (r"2.5\%", "0.25"), ("1,3", "1,2"), ("1", "1,2"),
    ("1,2,3", "1,2"),
    ("2", r"\pm 2"), (r"1+\sqrt2", r"1\pm\sqrt2"), ("x=2,y=1", "x=1,y=2"), ("2,1", "x=1,y=2"),
    ("(2,1)", "(1,2)"), ("(3,1)", "(2,1)"), (r"\{1,2\}", "(1,2)"), ("(1,2)", "(1,2,3)"),
    ("(4,3),(1,2)", "(3,4),(1,2)"), ("(0,1)", "[0,1)"), ("[0,1]", "[0,1)"), (r"x \le 3", "x < 3"),
    (r"(0,1)\cup(3,5)", r"(0,1)\cup(3,4)"), ("(0,1)", r"(0,1)\cup(3,4)"),
    (r"[3,\infty)", r"x \le 3"),
    (r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"), ("y=2x-1", "y=2x+1"),
    ("x^2+1=0", "x^2+4=0"), ("x+1=x", "x+2=x"), ("y=5", "x=5"), ("2x=10", "10"),
    ("(x+1)^2", "x^2+2x+2"),
    ("2x", "x^2"), ("Eve", r"\text{Evelyn}"), ("B", "(C)"), ("No", "Yes"), ("even", r"\text{odd}"),
    ("6:45", "6:30"), ("6:30 a.m.", r"6:30\text{ p.m.}"), ("2:1", "1:2"), ("1101_3", "1101_2"),
    ("13", "1101_2"),
    ("", "5"), ("5", r"\text{five}"),
    # Five digits of a decimal are too few; two fractions are never close enough.
    ("0.33333", r"\frac13"), (r"\frac{10000001}{30000000}", r"\frac13"),
    # More digits than a float has.
    ("9007199254740993", "9007199254740992"), ("0.10000000000000000001", "0.1"),
    (r"9007199254740993\text{ cm}", "9007199254740992 cm"), ("x = 9007199254740993", "9007199254740992"),
    ("(1, 9007199254740993)", "(1, 9007199254740992)"), ("1e400", "1e401"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_another_form_of_the_same_answer_is_right(answer, reference):
    verdict = grade(rf"Working, then \boxed{{{answer}}}. Done.", reference)
    assert verdict.extracted == answer
    assert verdict.correct


@pytest.mark.parametrize(("answer", "reference"), WRONG)
def test_what_only_looks_like_the_answer_is_wrong(answer, reference):
    assert not grade(rf"Working, then \boxed{{{answer}}}. Done.", reference).correct


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_forms_may_be_exchanged(answer, reference):
    assert grade(rf"\boxed{{{reference}}}", answer).correct


# (response, its answer, a reference that it meets)
RESPONSES = [
    (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}", "0.5"),
    (r"\boxed{\sqrt{\frac{a}{b^{2}}}}", r"\sqrt{\frac{a}{b^{2}}}", r"\sqrt{\frac{a}{b^2}}"),
    (r"\fbox{7}", "7", "7"),
    (r"\boxed {7}", "7", "7"),
    (r"First \boxed{3}. No, the sum is \boxed{4}.", "4", "4"),
    (r"Hence $x = \boxed{3}$ or $x = \boxed{4}$.", "3, 4", "4, 3"),
    (r"Hence $x = \boxed{3}$ or $x = \boxed{3}$.", "3", "3"),
    (r"\boxed{\boxed{5}}", "5", "5"),
    (r"\boxed{12} and then \boxed{3", "12", "12"),
    (r"\boxed{9} Put your final answer within \boxed{}.", "9", "9"),
    ("2 + 3 = 5\n#### 5", "5", "5"),
    ("#### 1,234", "1,234", "1234"),
    ("#### 42\n\nQuestion: What is 6 + 7?\n", "42", "42"),
    ("#### $18", "$18", "18"),
    ("#### Step 1: Add\n2 + 2 = 4.\nThe answer is 4.", "4", "4"),
    ("The answer is 42.", "42", "42"),
    ("The answer is 5.\nNo: 5 * 7 = 35, so the answer is 35.", "35", "35"),
    ("The final answer is: $\\frac{3}{4}$.", r"\frac{3}{4}", "0.75"),
    ("**Answer:** 17", "17", "17"),
    ("The answer is -3.5 because 7 / -2 is.", "-3.5", "-3.5"),
    ("The answer is 3 + 4 = 7.", "7", "7"),
    ("The answer is 1 and 2.", "1 and 2", "2,1"),
    ("The answer is Evelyn.", "Evelyn", r"\text{Evelyn}"),
    ("The answer is (C).", "(C)", "C"),
    ("The answer is 2.4 x 10^5.", "2.4 x 10^5", "240000"),
    ("She has 3 left and pays $42 in all, and has $8.", "$8", "8"),
    ("Adding up, 12 - 5 gives 7.", "7", "7"),
    (r"Therefore $y = \frac{3}{4}$.", r"\frac{3}{4}", "0.75"),
    (r"We get \( 6 \cdot 7 = 42 \).", "42", "42"),
    (r"This gives \[ y = 2x + 1. \]", "2x + 1", "y = 2x + 1"),
    ("It costs 1,250 dollars", "1,250", "1250"),
    ("The interest is 5%", "5%", "5"),
]


@pytest.mark.parametrize(("response", "answer", "reference"), RESPONSES)
def test_extracted_is_what_a_reader_calls_the_answer(response, answer, reference):
    verdict = grade(response, reference)
    assert verdict.extracted == answer
    assert verdict.correct


@pytest.mark.parametrize(
    "response", ["", "   \n", "I do not know.", r"\boxed{}", r"\boxed{ }", "####"]
)
def test_a_response_without_an_answer_is_wrong_and_extracts_nothing(response):
    verdict = grade(response, "5")
    assert verdict.extracted is None
    assert not verdict.correct


# (answer, reference): no computer finishes these, or no parser reads them.
ENDLESS = {
    "tower": ("9^{9^{9^9}}", "5"),
    "power": ("10^{10^{10}}", "10^{10^{11}}"),
    "factorials": ("((9!)!)!", "7"),
    "binomial": (r"\binom{10^9}{5 \cdot 10^8}", "1"),
    "expansion": ("(x+1)^{100000}", "(x+1)^{100001}"),
    "parentheses": ("(" * 5000 + "1" + ")" * 5000, "1+0"),
    "fractions": (r"\frac{" * 3000 + "1" + "}{2}" * 3000, "5"),
    "terms": ("1+" * 50000 + "1", "50001+0"),
    "letters": ("x" * 100_000, "x^2"),
    "digits": ("7" * 100_000, "8"),
    "sum": (r"\sum_{n=1}^{10^{12}} \sin(n^2)", r"\frac13"),
}
# A limit, and what a loaded machine needs to start the process again.
_SECONDS, _SLACK = 1, 8


@pytest.mark.parametrize("name", ENDLESS)
def test_no_expression_hangs(name):
    answer, reference = ENDLESS[name]
    start = time.monotonic()
    verdict = grade(rf"\boxed{{{answer}}}", reference, seconds=_SECONDS)
    assert time.monotonic() - start < _SECONDS + _SLACK
    assert verdict == grading.Verdict(correct=False, extracted=answer)
    # The next question gets its own answer.
    assert grade(r"\boxed{\frac{3}{4}}", "0.75").correct


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_answer_that_is_the_reference_is_right(name):
    answer, _ = ENDLESS[name]
    assert grade(rf"\boxed{{{answer}}}", answer, seconds=_SECONDS).correct


_LONG = 100_000
GARBAGE = [
    "\\boxed{", "\\boxed{1}, ", "#### ", "answer is ", "$", "$a", "\\(", "\\[", "1,", "1 ", "1,111",
    "a ",
    "{", "-", "\n", "\\", "(1, ", "1e5", "9.", "= ",
]  # fmt: skip


@pytest.mark.parametrize("part", GARBAGE)
def test_extraction_takes_linear_time_on_endless_responses(part):
    start = time.monotonic()
    candidates(part * (_LONG // len(part)))
    candidates("#### 5" + part * (_LONG // len(part)) + "x")
    candidates("The answer is" + part * (_LONG // len(part)) + "x")
    assert time.monotonic() - start < 5


def test_verdicts_from_many_threads_are_the_right_ones():
    verdicts = {}

    def work(number):
        right = rf"\boxed{{\frac{{{number}}}{{2}}}}"
        verdicts[number] = [
            grade(right, f"{number / 2}").correct,
            grade(right, f"{number}/3").correct,
        ]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 40, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: [True, False] for number in range(1, 40, 2)}


def test_the_limit_holds_outside_the_main_thread():
    verdicts = []

    def work():
        verdicts.append(grade(r"\boxed{8^{8^{8^8}}}", r"\frac12", seconds=_SECONDS))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=_SECONDS + _SLACK)
    assert not thread.is_alive()
    assert not verdicts[0].correct


def test_plain_numbers_and_equal_texts_need_no_other_process(monkeypatch):
    def refuse(*_):
        raise AssertionError("asked the process that compares formulas")

    monkeypatch.setattr(grading._COMPARER, "ask", refuse)
    assert grade(r"\boxed{-12}", "-12").correct
    assert grade(r"\boxed{-12.0}", "-12").correct
    assert not grade(r"\boxed{1,201}", "1200").correct
    assert grade(r"\boxed{a+b}", "a+b").correct
    start = time.monotonic()
    for number in range(2000):
        assert grade(
            rf"{number} + 1 = {number + 1}. \boxed{{{number + 1}}}", str(number + 1)
        ).correct
    assert (time.monotonic() - start) / 2000 < 0.5e-3


def test_grading_is_silent_and_leaves_no_process_behind():
    program = (
        "from experiments.grading import grade as grading\n"
        r"print(grading.grade(r'\boxed{\frac{x}{}+@}', r'\frac12').correct,"
        r" grading.grade(r'\boxed{9^{9^{9^9}}}', r'\frac13', seconds=1).correct,"
        r" grading.grade(r'\boxed{\frac12}', '0.5').correct, grading._COMPARER._process.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    *verdicts, process = done.stdout.split()
    assert verdicts == ["False", "False", "True"]
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


def test_a_process_that_does_not_start_is_an_error_and_not_a_wrong_answer(monkeypatch):
    comparer = child_python.Worker("experiments.grading.equivalence", "compares formulas")
    monkeypatch.setattr(grading, "_COMPARER", comparer)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        RuntimeError, match=r"expected the process that compares .* to start, found"
    ):
        grade(r"\boxed{\frac{1}{3}}", r"\frac{2}{6}+x")


def test_there_are_enough_pairs():
    assert len(RIGHT) >= 60
    assert len(WRONG) >= 30
    assert len(RIGHT) + len(WRONG) >= 90
