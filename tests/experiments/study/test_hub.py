"""A checkpoint's name: directories are taken as they are, Hub ids from the cache or the Hub."""

import json
from pathlib import Path

import huggingface_hub
import pytest

from experiments.errors import InputError
from experiments.study.hub import local_checkpoint


def test_a_directory_is_itself(tmp_path):
    assert local_checkpoint(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["/no/such/place", "nowhere", "a/b/c", "../models"])
def test_what_is_no_hub_id_is_a_missing_directory(name):
    with pytest.raises(InputError, match=r"checkpoint .*: no such directory; pass DIR"):
        local_checkpoint(name, advice="pass DIR")


def test_a_hub_id_without_network_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="somebody/some-model: .*cannot be downloaded") as caught:
        local_checkpoint("somebody/some-model")
    assert "\n" not in str(caught.value)


def test_an_earlier_download_serves_without_network(tmp_path, monkeypatch):
    cached = _cache(tmp_path, ["config.json", "model.safetensors"])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert local_checkpoint("somebody/some-model") == cached


@pytest.mark.parametrize(
    ("files", "taken", "left"),
    [
        (["model.safetensors", "pytorch_model.bin"], "*.safetensors", "pytorch_model*.bin"),
        (["pytorch_model.bin"], "pytorch_model*.bin", "*.safetensors"),
    ],
)
def test_pickled_weights_are_fetched_only_where_there_is_nothing_else(
    monkeypatch, tmp_path, files, taken, left
):
    asked = {}

    def listing(repo_id, revision):
        asked["listed"] = (repo_id, revision)
        return ["config.json", *files]

    def download(repo_id, revision, allow_patterns):
        asked["fetched"], asked["patterns"] = (repo_id, revision), allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "list_repo_files", listing)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert local_checkpoint("somebody/some-model") == tmp_path
    assert asked["listed"] == asked["fetched"] == ("somebody/some-model", None)
    assert taken in asked["patterns"]
    assert left not in asked["patterns"]
    local_checkpoint("somebody/some-model@step-100")
    assert asked["listed"] == asked["fetched"] == ("somebody/some-model", "step-100")


def _cache(root: Path, files: list[str]) -> Path:
    """The Hub client's own folder layout."""
    revision = "0" * 40
    repository = root / "models--somebody--some-model"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    for name in files:
        (snapshot / name).write_text(json.dumps({}))
    return snapshot
