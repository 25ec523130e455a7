"""A rerun after an edit of a model's files: one line names the file, nothing is overwritten."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from experiments.errors import InputError
from experiments.responses import claimed_files
from experiments.responses.claimed_files import claim_files
from experiments.study.opened import open_study
from experiments.study.pairs import SIDES, pair_of
from experiments.study.rule import Rule
from experiments.study.settings import Study

CHECKPOINTS = Path(__file__).resolve().parents[3] / "experiments" / "checkpoints"
DATASET = "arithmetic"


@pytest.fixture
def folders(tmp_path):
    names = {"base": "tiny_start", "rl": "tiny_grpo"}
    return {
        side: Path(shutil.copytree(CHECKPOINTS / names[side], tmp_path / side)) for side in SIDES
    }


def opened_of(folders):
    study = Study(
        pair=pair_of(str(folders["base"]), str(folders["rl"])),
        workdir=folders["base"].parent / "runs",
        datasets=(DATASET,),
        rules=(Rule(alpha=0.3),),
    )
    return open_study(study, lambda _: None)


def with_results(folders) -> Path:
    """The workdir of a run that saved an answer; its files' contents."""
    opened = opened_of(folders)
    claim_files(opened, DATASET)
    directory = opened.study.directory / DATASET
    (directory / "responses_base.jsonl").write_text("{}\n")
    return directory


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    tensors = {name: tensor.copy() for name, tensor in load_file(file).items()}
    next(iter(tensors.values())).flat[0] += 1
    save_file(tensors, file)


EDITS = {
    "chat template": (
        "tokenizer_config.json",
        lambda folder: edit_json(folder / "tokenizer_config.json", chat_template="{{ messages }}"),
    ),
    "new template file": (
        "chat_template.jinja",
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
    ),
    "tokenizer": (
        "tokenizer.json",
        lambda folder: edit_json(folder / "tokenizer.json", truncation=None, padding=None, x=1),
    ),
    "config": ("config.json", lambda folder: edit_json(folder / "config.json", rope_theta=2e4)),
    "tokenizer file gone": (
        "tokenizer_config.json",
        lambda folder: (folder / "tokenizer_config.json").unlink(),
    ),
    "weights": ("the weights", change_weights),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_between_two_runs_is_named_and_nothing_is_overwritten(folders, name, side):
    what, edit = EDITS[name]
    directory = with_results(folders)
    claim_files(opened_of(folders), DATASET)
    before = {path: path.read_bytes() for path in directory.rglob("*")}
    shutil.copytree(folders[side], folders[side].parent / "kept")
    edit(folders[side])
    with pytest.raises(InputError) as error:
        claim_files(opened_of(folders), DATASET)
    assert str(error.value) == (
        f"{directory / claimed_files.NAME}: {side} checkpoint {folders[side]}: {what}: expected as when "
        "these results were made, found changed since; put back what was there, or choose another "
        "--workdir"
    )
    assert {path: path.read_bytes() for path in directory.rglob("*")} == before
    shutil.rmtree(folders[side])
    shutil.copytree(folders[side].parent / "kept", folders[side])
    claim_files(opened_of(folders), DATASET)


def test_files_that_decide_nothing_may_change(folders):
    with_results(folders)
    (folders["rl"] / "README.md").write_text("another card")
    (folders["rl"] / "trainer_state.json").write_text("{}")
    claim_files(opened_of(folders), DATASET)


def test_a_run_that_saved_nothing_binds_nobody(folders):
    directory = with_results(folders)
    (directory / "responses_base.jsonl").unlink()
    EDITS["chat template"][1](folders["rl"])
    claim_files(opened_of(folders), DATASET)
    (directory / "all_correct.jsonl").write_text("")
    claim_files(opened_of(folders), DATASET)


def test_a_snapshots_tokenizer_lies_above_it_and_counts(folders):
    """The checkpoint's own hash does not cover it."""
    above = folders["rl"]
    snapshot = above / "snapshots" / "09999"
    snapshot.mkdir(parents=True)
    for file in (*above.glob("*.safetensors"), above / "config.json"):
        shutil.copyfile(file, snapshot / file.name)
    changed = folders | {"rl": snapshot}
    hashes = opened_of(changed).hashes
    with_results(changed)
    EDITS["chat template"][1](above)
    assert opened_of(changed).hashes == hashes
    with pytest.raises(
        InputError, match=f"rl checkpoint {above}: tokenizer_config.json: expected as"
    ):
        claim_files(opened_of(changed), DATASET)


def test_results_of_before_there_was_such_a_file_are_left_to_their_settings(folders):
    directory = with_results(folders)
    (directory / claimed_files.NAME).unlink()
    EDITS["chat template"][1](folders["rl"])
    claim_files(opened_of(folders), DATASET)
    assert not (directory / claimed_files.NAME).exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"base": {"files": 1}}', '{"base": 1, "rl": 2}'])
def test_a_broken_file_is_one_line(folders, content):
    directory = with_results(folders)
    (directory / claimed_files.NAME).write_text(content)
    with pytest.raises(InputError, match=r"checkpoint_files\.json: expected the files of both"):
        claim_files(opened_of(folders), DATASET)
