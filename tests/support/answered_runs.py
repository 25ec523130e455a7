"""Runs of several comparisons whose pages are not drawn: who answered, and which bytes are left."""

import contextlib

import pytest

from experiments.report import report
from experiments.responses import generated


@contextlib.contextmanager
def answers_counted(folder):
    """The files of answers, seen from a folder, in the order in which models were asked for them."""
    answered, original = [], generated.answer_questions

    def counted(*args, **settings):
        answered.append(settings["path"].relative_to(folder).as_posix())
        return original(*args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        # Pages and figures of one comparison have tests of their own.
        patch.setattr(report, "write_report", lambda directory: directory / "report.html")
        patch.setattr(generated, "answer_questions", counted)
        yield answered


def files(workdir):
    """Contents of what was measured; a manifest holds the time that it took."""
    return {
        path.relative_to(workdir): path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file() and ".locks" not in path.parts and path.name != "manifest.json"
    }
