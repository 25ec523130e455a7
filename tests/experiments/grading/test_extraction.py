r"""Where the final answer stands in a response: boxes, answer lines, thinking, formulas.

Expected answers and verdicts are a reader's; no other program made them.
"""

import pytest

from experiments.grading.extraction import candidates
from experiments.grading.grade import grade

# (response, reference, is right)
READ = [
    # The rest of an answer line counts.
    (r"Work. The answer is: \frac{5}{6}.", r"\frac{5}{6}", True),
    (r"Work. The answer is: \frac{5}{6}.", "5", False),
    ("The answer is: y+2", "y+2", True),
    ("The answer is: y+2", "2", False),
    ("So it is 8.\nThe answer is: 8 ки", "8", True),
    (r"The answer is: \left( 2, \frac{\pi}{3} \right)", r"(2, \frac{\pi}{3})", True),
    (r"**Answer:** $3\sqrt{7}$", r"3\sqrt{7}", True),
    ("**Final Answer**: 3\\sqrt{7}\n", r"3\sqrt{7}", True),
    (r"The answer is $ \frac{8}{5} $.", r"\frac{8}{5}", True),
    (r"Hence the ratio is $ \frac{8}{5} $.", "5", False),
    (r"Hence the ratio is $ \frac{8}{5} $.", r"\frac{8}{5}", True),
    ("The answer is\n$$\n\\frac{8}{5}\n$$", "1.6", True),
    ("The answer is:\n\\[ x = 4 \\]", "4", True),
    ("Final Answer: The final answer is $8$. I hope it is correct.", "8", True),
    ("The answer to the first question is 12.", "12", True),
    ("The answer is all real numbers but 2.", "all real numbers but 2", True),
    ("The answer is 3.5.", "3.5", True),
    # Words before or after a value do not win over it.
    ("Final Answer: The smallest $k$ is 19.", "19", True),
    ("The answer is 12 because 3 times 4 is 12 and 5 is odd.", "12", True),
    ("The answer is therefore 15.", "15", True),
    (r"The answer is \frac{3}{4} of the cake.", r"\frac{3}{4}", True),
    ("The answer is 6 + 7 = 13 pears.", "13", True),
    # Boxes.
    (r"$$\boxed{(4, 1)} \quad \text{and} \quad \boxed{(5, 9)}$$", "(4,1), (5,9)", True),
    (r"$\boxed{6}$ for part (a) and $\boxed{7}$", "6, 7", True),
    (r"(a) $\boxed{6}$ (b) $\boxed{7}$", "6, 7", True),
    (r"We get $\boxed{6}$. Then $\boxed{7}$", "7", True),
    (r"$\boxed{6}$, so it must be $\boxed{7}$", "7", True),
    (r"$\boxed{\frac12}$, i.e. $\boxed{0.5}$", r"\frac12", True),
    (r"$\boxed{3\frac{1}{2}},$ or $\boxed{\frac{7}{2}}$ inches", r"\frac{7}{2}", True),
    (r"$\boxed{3}$ or $\boxed{4}$", "4", False),
    (r"The sum is 12 and so we have \boxed{12", "12", False),
    (r"So \boxed 9", "9", True),
    (r"So $\boxed{{3, 5, 8}}$.", "3, 5, 8", True),
    # Of several lines with #### the last one.
    ("#### 3\nNo, 4 + 4 is 8:\n#### 8", "8", True),
    ("#### 3\nNo, 4 + 4 is 8:\n#### 8", "3", False),
    ("#### Step 1: 3\nso\n#### 8", "8", True),
    # Thinking is not searched.
    ("<think>Is it \\boxed{3}?</think>\nThe final answer is 4.", "4", True),
    ("Is it \\boxed{3}?</think> It is 4.", "4", True),
    ("<think>the answer is 4", "4", False),
    ("<think>The answer is 4.</think>", "4", False),
    ("<THINK>no</THINK> The answer is 4. <think>or 5</think>", "4", True),
    ("<think>3</think><answer>4</answer> as 5 was asked", "4", True),
    # Choices by letter.
    ("The correct answer is (C) 42.", "C", True),
    ("The correct answer is (C) 42.", "42", True),
    ("The correct answer is (C) 42.", "B", False),
    ("So the correct option is **B**.", "B", True),
    ("The correct choice is (B).", "(B)", True),
    ("The answer is option D because the rest fail.", "D", True),
    (r"\boxed{\text{(A)}\ 7}", "A", True),
    ("Answer: D. 12 cm", "D", True),
]


@pytest.mark.parametrize(("response", "reference", "right"), READ)
def test_the_final_answer_is_read_as_a_reader_does(response, reference, right):
    verdict = grade(response, reference)
    assert verdict.correct == right, verdict.extracted


# (answer, reference, is right): form and size.
COMPARED = [
    ("-1 + exp(9)", "e^{9}-1", True),
    ("pi/3", r"\frac{\pi}{3}", True),
    ("-4*pi", r"-4\pi", True),
    ("sqrt(12)", r"2\sqrt{3}", True),
    ("x**2 + 1", "x^2+1", True),
    (r"\frac{pi}{3}", r"\frac{\pi}{3}", True),
    (r"\frac{1}{2006!}", r"\frac{1}{2004!}", False),
    (r"\frac{1}{2004!}", r"\frac{1}{2004!}+0", True),
    ("10^{-41}", "10^{-40}", False),
    ("10^{-40}", r"\frac{1}{10^{40}}", True),
    (r"(1+\sqrt{2})^2-3-2\sqrt{2}", "0", True),
    ("5:12", "S_{ABC}:S=5:12", True),
    ("5:13", "S_{ABC}:S=5:12", False),
    (r"\frac{1}{\sqrt{5}}", r"\frac{AB}{CD}=\frac{1}{\sqrt{5}}", True),
    (r"\frac{AB}{CD}=\frac{1}{\sqrt{5}}", r"\frac{1}{\sqrt{5}}", True),
    ("3", "|PQ|=3", True),
    ("4", "|PQ|=3", False),
    ("4", "x^2+y^2=4", False),
    ("0", "x^2-4x-2=0", False),
]


@pytest.mark.parametrize(("answer", "reference", "right"), COMPARED)
def test_values_are_compared_by_what_they_are(answer, reference, right):
    assert grade(rf"So it is $\boxed{{{answer}}}$.", reference).correct == right


REFERENCES = [
    "18", "70,000", "3.5", "-7", r"\frac{14}{3}", r"3\sqrt{13}", "6 - 5i", "p - q", "1,-2",
    r"\left( 3, \frac{\pi}{2} \right)", r"\text{Evelyn}", r"90^\circ", "x=-6, x=2", "y = 2x + 1",
    r"x \in [-2,7]", "all real numbers", r"12.5\%", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
]  # fmt: skip
FORMS = [
    r"So we get $\boxed{%s}$.",
    "Work on 5.\nThe answer is: %s",
    "The answer is: %s.",
    "The answer is $ %s $.",
    "Work on 5.\n#### %s",
    "Step 1: 5 ки\nThe answer is: %s ки",
    "First 5.\n\n**Final Answer:** $%s$",
    "<think>\\boxed{5}</think>The final answer is\n\\[ %s \\]",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_is_right_in_every_written_form_and_its_first_half_is_not(form, reference):
    assert grade(form.replace("%s", reference), reference).correct
    half = reference[: len(reference) // 2]
    assert not grade(form.replace("%s", half), reference).correct


@pytest.mark.parametrize(
    "response", ["<think>5</think>", r"\boxed{5", "<think>\\boxed{5}</think>\n", "#### \n"]
)
def test_what_is_no_answer_gives_none(response):
    assert candidates(response) == ()


def test_of_several_headings_the_last_one_may_begin_the_answer():
    found = candidates("#### Addition:\n2 + 2 = 4\n#### Solution:\nall real numbers")
    assert found == ("4", "Solution:\nall real numbers")
