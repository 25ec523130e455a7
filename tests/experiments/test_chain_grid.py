"""Each checkpoint of a chain against the one before and the first: one precision, each model's answers
once, and a killed run ends with the same bytes."""

import json
import shutil
from pathlib import Path

import pytest
from answered_runs import answers_counted, files
from html_page import Page

from experiments.chain_grid import run_chain
from experiments.errors import InputError
from experiments.report import page as page_module
from experiments.report import report
from experiments.study.chains import find_chain
from experiments.study.pairs import PAIRS
from experiments.study.rule import Rule
from experiments.study.settings import QuestionSource, Study

GRPO = PAIRS["tiny_grpo"]
SHIPPED = Path(GRPO.rl) / "snapshots"
# A snapshot is stored in bfloat16, the two beside it in float32; the last one's weights are missing.
LABELS = ("tiny_start", "00008", "tiny_grpo", "broken")
# So few rows that all comparisons have as many, and one compiled program serves them.
RULE = Rule(alpha=0.3, num_samples=4)
COMPARED = {(0, 1): "tiny_start_to_00008", (1, 2): "00008_to_tiny_grpo",
            (0, 2): "tiny_start_to_tiny_grpo"}  # fmt: skip


def chain_of(*checkpoints):
    return find_chain([str(one) for one in checkpoints], prompt=GRPO.prompt, max_new_tokens=48)


def run(chain, workdir):
    """The chain's study, nothing cut; what was said, what came of it, and who answered."""
    studies = [
        Study(
            pair=pair, workdir=workdir, datasets=("arithmetic",), rules=(RULE,),
            questions=QuestionSource(limit=16), fidelity="off",
        )
        for pair in chain.pairs.values()
    ]  # fmt: skip
    said = []
    with answers_counted(workdir / f"chain_{chain.name}") as answered:
        outcome, directories = run_chain(chain, studies, said.append)
    return said, outcome, directories, answered


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    broken = tmp_path_factory.mktemp("chain") / "broken"
    shutil.copytree(GRPO.rl, broken, ignore=shutil.ignore_patterns("snapshots", "*.safetensors"))
    return chain_of(GRPO.base, SHIPPED / "00008", GRPO.rl, broken)


@pytest.fixture(scope="module")
def done(chain, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    return workdir, *run(chain, workdir)


def test_each_is_compared_with_the_one_before_and_the_first_and_a_broken_one_stops_no_other(
    done, chain
):
    workdir, _, outcome, directories, _ = done
    assert chain.labels == LABELS
    folder = workdir / f"chain_{'_'.join(LABELS)}"
    assert directories == {places: folder / name for places, name in COMPARED.items()}
    assert [name for name, _ in outcome.failures] == ["tiny_grpo_to_broken", "tiny_start_to_broken"]
    assert all("broken" in message for _, message in outcome.failures)


def test_each_model_answers_once_in_the_widest_precision(done):
    *_, directories, answered = done
    assert answered == [
        "tiny_start_to_00008/arithmetic/responses_base.jsonl",
        "tiny_start_to_00008/arithmetic/responses_rl.jsonl",
        "00008_to_tiny_grpo/arithmetic/responses_rl.jsonl",
    ]
    texts = [
        {
            side: (directories[places] / "arithmetic" / f"responses_{side}.jsonl").read_bytes()
            for side in ("base", "rl")
        }
        for places in COMPARED
    ]
    assert texts[0]["rl"] == texts[1]["base"]
    assert texts[0]["base"] == texts[2]["base"]
    assert texts[1]["rl"] == texts[2]["rl"]
    for places in COMPARED:
        claimed = json.loads((directories[places] / "arithmetic" / "answers.json").read_text())
        assert claimed["dtypes"] == {"base": "float32", "rl": "float32"}


def test_a_killed_run_continues_and_ends_with_the_same_bytes(done, chain, tmp_path):
    workdir = tmp_path / "again"
    shutil.copytree(done[0], workdir)
    second = workdir / f"chain_{chain.name}" / COMPARED[1, 2] / "arithmetic"
    (cell,) = second.glob("cut*")
    shutil.rmtree(cell)
    for name in ("all_correct.jsonl", "responses_base.jsonl"):
        (second / name).unlink()
    *_, answered = run(chain, workdir)
    assert answered == [], "the model in the middle has its answers from the comparison before"
    assert files(workdir) == files(done[0])


def test_the_report_over_the_chain_holds_its_words_its_tables_and_its_figure(
    done, chain, monkeypatch
):
    for place in (report, page_module):  # figures of cells and of sweeps have tests of their own
        monkeypatch.setattr(place, "sweep_figures", lambda *_: {})
        monkeypatch.setattr(place, "DRAWN_CELLS", 0)
    workdir, _, _, directories, _ = done
    folder = workdir / f"chain_{chain.name}"
    runs = report.ChainRuns(chain=chain, directories=directories)
    path = report.write_sweep_report(folder, list(directories.values()), chain=runs)
    data = json.loads((folder / "chain.json").read_text())
    assert [(one["before"], one["after"]) for one in data["comparisons"]] == [
        (LABELS[before], LABELS[after]) for before, after in COMPARED
    ]
    assert data["not_compared"] == [["tiny_grpo", "broken"], ["tiny_start", "broken"]]
    right = {
        LABELS[place]: sum(
            json.loads(line)["score"]
            for line in (directories[places] / "arithmetic" / f"responses_{side}.jsonl")
            .read_text()
            .splitlines()
        )
        for places in COMPARED
        for side, place in zip(("base", "rl"), places, strict=True)
    }
    shares = {
        model["label"]: model["accuracy"]["arithmetic"]["share"] for model in data["models"][:3]
    }
    assert shares == {label: number / 16 for label, number in right.items()}
    page = Page(path.read_text(encoding="utf-8"))
    assert page.problems == []
    text = page.text("section", id="chain")
    assert data["headline"] in text
    for one in data["comparisons"]:
        assert f"{one['before']} → {one['after']}: {one['finding']}" in text
    lines = (folder / "chain.csv").read_text().count("\n")
    assert lines == 1 + sum(len(one["changes"]) for one in data["comparisons"])
    for kind in ("png", "pdf", "svg"):
        assert (folder / "figures" / f"chain.{kind}").stat().st_size > 1000


def test_two_checkpoints_of_the_same_weights_are_an_error_before_any_answer(tmp_path):
    shutil.copytree(GRPO.base, tmp_path / "copy")
    with pytest.raises(InputError, match="chain: expected each checkpoint once, found the same we"):
        run(chain_of(GRPO.base, GRPO.rl, tmp_path / "copy"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_that_is_not_there_is_an_error_before_any_answer(tmp_path):
    with pytest.raises(InputError, match="chain: nowhere .*: no such directory.*--chain=DIR,DIR"):
        run(chain_of(GRPO.base, GRPO.rl, tmp_path / "nowhere"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
