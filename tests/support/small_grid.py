"""A grid of 24 questions, 6 rules a pair, nothing cut; as a program, two pairs with counted scorings.

    python -m small_grid COUNTS WORKDIR

writes a line to COUNTS for every cut that a scoring covers.
"""

import sys
from pathlib import Path

from experiments.grid import run_grid
from experiments.report import report
from experiments.scoring import cells
from experiments.study.pairs import PAIRS
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study

RULES = tuple(Rule(alpha=alpha, delta=delta) for delta in (0.4, 0.5) for alpha in (0.1, 0.2, 0.3))


def silent(line: str) -> None:
    """The grid's facts are not looked at here."""


def study(workdir: Path, pair: str = "tiny_grpo", **changes) -> Study:
    """Nothing is cut: who does what is the same, and it is counted by scorings."""
    return Study(
        pair=PAIRS[pair],
        workdir=workdir,
        datasets=("arithmetic",),
        questions=QuestionSource(limit=24),
        **{"fidelity": "off", "rules": RULES} | changes,
    )


def main(counts: str, workdir: str) -> None:
    """The program; pages and figures are not drawn."""
    original = cells.score_texts

    def counted(checkpoint, texts, **settings):
        with open(counts, "a") as file:
            file.write(settings["description"] + "\n" * len(settings["cuts"]))
        return original(checkpoint, texts, **settings)

    cells.score_texts = counted
    report.write_report = lambda directory: directory / "report.html"
    work = Path(workdir)
    found = run_grid([study(work), study(work, "tiny_dpo")], silent)
    assert not found.failures, found.failures
    assert len(found.cells) == 12


if __name__ == "__main__":
    main(*sys.argv[1:])
