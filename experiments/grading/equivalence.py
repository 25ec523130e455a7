r"""Whether two answers mean the same: form is taken apart here, values are compared by math-verify.

What counts as the same, and what does not:

* values: 0.5 and \frac{1}{2}; a decimal stands for an exact value that it gives to six digits;
* units, degrees and currency may be missing on one side; two different units are wrong;
* percent: 25\% is 25 and 0.25; without a percent sign on either side 0.25 is not 25;
* several values, bare or in braces, in any order; in parentheses in the given order; brackets of
  intervals count; bare values also match parentheses in the same order;
* x = 5 is 5, but not y = 5; x \in [0, 1) is [0, 1) and 0 \le x < 1;
* the letter of a choice, alone or before its text; |AB| = 1 is 1, as x = 1 is;
* words, times, ratios and bases are compared as text; a missing base is like a missing unit.

As a program it answers questions of `experiments.grading.grade`, one JSON object a line.
"""

import functools
import logging
import re
from decimal import Decimal

import sympy
from math_verify import LatexExtractionConfig, LatexNormalizationConfig, parse, verify

from experiments.child_python import answer_questions
from experiments.grading.answer_form import (
    assignment,
    canonical,
    collection,
    has_relation,
    join_thousands,
    plain_number,
    plus_minus,
    split_choice,
    union,
    words,
)
from experiments.grading.units import split_percent, split_unit

# It logs a traceback for every expression that it cannot read.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)

_MEMORY_BYTES = 4 * 2**30
_EXACT = 1e-12
_SIX_DIGITS = 2e-6
_NOISE = Decimal("1e-100")
_ORDERED = {("(", ")"), ("[", "]"), ("(", "]"), ("[", ")")}

# math-verify's own removal of units takes letters too (5t would be 5), so it is off.
_LATEX = LatexExtractionConfig(
    normalization_config=LatexNormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
)


def equivalent(reference: str, answer: str) -> bool:
    """Whether an answer is the reference in this or another form."""
    reference, answer = canonical(reference), canonical(answer)
    return reference == answer or same_meaning(reference, answer)


def same_meaning(reference: str, answer: str) -> bool:
    """The same for canonical forms, without looking whether the two texts are equal."""
    if not reference or not answer:
        return False
    joined = join_thousands(reference), join_thousands(answer)
    if joined != (reference, answer) and _same(*joined):
        return True
    if _same(reference, answer):
        return True
    letter, text = split_choice(answer)
    return bool(letter) and (_same(reference, letter) or _same(reference, text))


def _same(reference: str, answer: str) -> bool:
    if words(reference) is not None or words(answer) is not None:
        return _same_words(reference, answer)
    unions = union(reference), union(answer)
    if max(map(len, unions)) > 1:
        # x < 1 or x > 2 are the parts of a union, too.
        unions = [
            side.items
            if side and side.brackets is None and all(map(has_relation, side.items))
            else parts
            for parts, side in zip(unions, (collection(reference), collection(answer)), strict=True)
        ]
        return _same_in_any_order(*unions) or _same_by_math_verify(reference, answer)
    expected, found = collection(reference), collection(answer)
    if expected is None and found is None:
        expected, found = plus_minus(reference), plus_minus(answer)
        if len(expected) > 1 or len(found) > 1:
            return _same_in_any_order(expected, found)
        return _same_single(reference, answer)
    if (expected is None and has_relation(reference)) or (found is None and has_relation(answer)):
        return _same_by_math_verify(reference, answer)
    if expected is None or found is None:
        items = [*(expected or found).items]
        in_forms = expected is None and found.brackets is None and bool(items)
        if in_forms and all(_same(reference, item) for item in items):
            return True  # One value in several forms: a mixed number, a fraction.
        alone = (expected or found).brackets == ("\\{", "\\}") and len(items) == 1
        items = [value for item in items for value in plus_minus(item)]
        single = plus_minus(answer if found is None else reference)
        return (alone or len(single) > 1) and _same_in_any_order(items, single)
    return _same_collections(expected, found)


def _same_collections(expected, found) -> bool:
    ordered = [side.brackets in _ORDERED for side in (expected, found)]
    if all(ordered):
        return expected.brackets == found.brackets and _same_in_order(expected.items, found.items)
    if any(ordered):
        other = found if ordered[0] else expected
        whole = expected.brackets if ordered[0] else found.brackets
        return (
            other.brackets is None
            and whole in (("(", ")"), ("[", "]"))
            and _same_in_order(expected.items, found.items)
        )
    items = [
        [value for item in side.items for value in plus_minus(item)] for side in (expected, found)
    ]
    named = [len({name for item in side if (name := assignment(item)[0])}) for side in items]
    # x = 1, y = 2 is 1, 2 but not 2, 1.
    if max(named) > 1 and 0 in named:
        return _same_in_order(*items)
    # x = 1, 2 names x for both values.
    if max(named) == 1 and named[0] != named[1]:
        items = [[assignment(item)[1] for item in side] for side in items]
    return _same_in_any_order(*items)


def _same_in_order(expected: list[str], found: list[str]) -> bool:
    return len(expected) == len(found) and all(map(_same, expected, found))


def _same_in_any_order(expected: list[str], found: list[str]) -> bool:
    if len(expected) != len(found):
        return False
    left = list(found)
    for item in expected:
        match = next((i for i, other in enumerate(left) if _same(item, other)), None)
        if match is None:
            return False
        left.pop(match)
    return True


def _same_words(reference: str, answer: str) -> bool:
    expected, found = words(reference), words(answer)
    if expected is None or found is None:
        # C and (C), x and \text{x}.
        bare = [words(side, force=True).casefold() for side in (reference, answer)]
        return bare[0] == bare[1] != ""
    return expected == found


def _same_single(reference: str, answer: str) -> bool:
    (name, value), (other_name, other_value) = assignment(reference), assignment(answer)
    if name and other_name and name != other_name:
        # y = 2x is x = y/2.
        return _same_by_math_verify(reference, answer)
    if name or other_name:
        if not (name and other_name) and has_relation(answer if name else reference):
            return _same_by_math_verify(reference, answer)
        return _same(value, other_value)
    if (value, other_value) != (reference, answer):
        return _same(value, other_value)
    if has_relation(reference) != has_relation(answer):
        return False
    (value, is_percent), (other_value, other_is_percent) = map(split_percent, (reference, answer))
    if is_percent != other_is_percent:
        if is_percent:
            return _same_value(value, other_value) or _same_value(f"({value})/100", other_value)
        return _same_value(value, other_value) or _same_value(value, f"({other_value})/100")
    (value, unit), (other_value, other_unit) = map(split_unit, (value, other_value))
    if unit and other_unit and unit != other_unit:
        return False
    return _same_value(value, other_value)


def _same_value(reference: str, answer: str) -> bool:
    for pattern, separator in ((r"[\w ]*:[\w: ]*", None), (r"(\w+)_\{?(\d+)\}?", "_")):
        sides = [re.fullmatch(pattern, side) for side in (reference, answer)]
        if any(sides) and (
            separator is None or all(side[:1].isdigit() for side in (reference, answer))
        ):
            texts = [re.sub(r"[\s{}]", "", side) for side in (reference, answer)]
            if separator and not all(sides):
                texts = [text.partition(separator)[0] for text in texts]
            return texts[0] == texts[1]
    numbers = plain_number(reference), plain_number(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _same_by_math_verify(reference, answer)


def _same_by_math_verify(reference: str, answer: str) -> bool:
    expected, found = parsed(reference), parsed(answer)
    if expected is None or found is None:
        return False
    if expected == found:
        return True
    expected, found = _with_own_symbols(expected), _with_own_symbols(found)
    values = [_numeric(side) for side in (expected, found)]
    if None not in values:
        exact = expected.doit(), found.doit()
        if all(isinstance(side, sympy.Rational) for side in exact):
            return bool(exact[0] == exact[1])
        return _close(values, [side.has(sympy.Float) for side in (expected, found)])
    if isinstance(expected, sympy.Eq) and isinstance(found, sympy.Eq):
        sides = [side.lhs - side.rhs for side in (expected, found)]
        ratio = sympy.simplify(sides[0] / sides[1])
        if ratio.is_number:
            return bool(ratio.is_finite and ratio.is_nonzero and sides[0].free_symbols)
        # math-verify would find the same solutions, namely none.
        if not sympy.solve(sides[0]):
            return False
    return verify([expected], [found], allow_set_relation_comp=True, timeout_seconds=None)


@functools.lru_cache(maxsize=256)
def parsed(text: str):
    """What math-verify reads in a formula, as sympy's object, or None."""
    found = parse(f"${text}$", [_LATEX], fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None


def _with_own_symbols(side):
    """The same with i as the imaginary unit and real variables: math-verify's vary with the spelling."""
    symbols = {
        symbol: sympy.I if symbol.name == "i" else sympy.Symbol(symbol.name, real=True)
        for symbol in side.free_symbols
    }
    return side.xreplace(symbols) if any(old != new for old, new in symbols.items()) else side


def _numeric(side) -> tuple[sympy.Expr, sympy.Expr] | None:
    """(real, imaginary) part to 30 digits of an expression without variables, or None."""
    if not isinstance(side, sympy.Expr) or side.free_symbols:
        return None
    value = sympy.N(side.doit(), 30)
    parts = value.as_real_imag() if value.is_finite else ()
    return parts if parts and all(part.is_Float or part.is_Integer for part in parts) else None


def _close(values, decimal: list[bool]) -> bool:
    """math-verify compares with an absolute tolerance, under which all small numbers are equal.

    Terms that cancel leave noise beyond the 100 digits that sympy tries; that is zero.
    """
    (real, imaginary), (other_real, other_imaginary) = values
    size = max(map(abs, (real, imaginary, other_real, other_imaginary)))
    distance = max(abs(real - other_real), abs(imaginary - other_imaginary))
    return bool(distance <= size * (_SIX_DIGITS if any(decimal) else _EXACT) or size < _NOISE)


def _verdict(question: dict[str, str]) -> bool:
    try:
        return equivalent(question["reference"], question["answer"])
    except Exception:  # Whatever a parser trips over is no right answer.
        return False


def main() -> None:
    """Answer every line {"reference", "answer", "seconds"} with true or false."""
    answer_questions(_verdict, memory=_MEMORY_BYTES)


if __name__ == "__main__":
    main()
