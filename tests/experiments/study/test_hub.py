"""A checkpoint's name: directories are taken as they are, Hub ids from the cache or the Hub."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.hf_api import RepoSibling

from experiments.errors import InputError
from experiments.study.hub import config_folder, local_checkpoint

# conftest refuses every look-up, also of this machine's own number.
LOOKUP = socket.getaddrinfo


def test_a_directory_is_itself(tmp_path):
    assert local_checkpoint(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["/no/such/place", "nowhere", "a/b/c", "../models"])
def test_what_is_no_hub_id_is_a_missing_directory(name):
    with pytest.raises(InputError, match=r"checkpoint .*: no such directory; pass DIR"):
        local_checkpoint(name, advice="pass DIR")


def test_a_gguf_file_is_itself_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "model.Q8_0.gguf"
    path.write_bytes(b"")
    assert local_checkpoint(str(path)) == config_folder(str(path)) == path
    for name in (str(tmp_path / "other.gguf"), "other.gguf", "models/other.gguf", "../a/b.gguf"):
        for find in (local_checkpoint, config_folder):
            with pytest.raises(InputError, match=r"checkpoint .*other|b\.gguf: no such file; "):
                find(name)


def test_a_gguf_file_of_the_hub_is_fetched_alone(monkeypatch, tmp_path):
    asked = []

    def listing(repo_id, revision, timeout):
        names = ("config.json", "q4/model.gguf", "q8/model.gguf")
        return SimpleNamespace(siblings=[RepoSibling(rfilename=name) for name in names])

    def download(**given):
        if given.get("local_files_only"):
            raise FileNotFoundError
        asked.append(given)
        return str(tmp_path / "model.gguf")

    monkeypatch.setattr(huggingface_hub, "model_info", listing)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert local_checkpoint("somebody/models@v2/q4/model.gguf") == tmp_path / "model.gguf"
    expected = {"repo_id": "somebody/models", "revision": "v2", "filename": "q4/model.gguf"}
    assert asked == [expected]
    with pytest.raises(InputError, match=r"has none of that name, but q4/model\.gguf, q8/model"):
        local_checkpoint("somebody/models/model.gguf")
    with pytest.raises(InputError, match=r"no such file; a GGUF file is planned for when"):
        config_folder("somebody/models/model.gguf")


def test_an_earlier_download_of_a_gguf_file_serves_without_network(tmp_path, monkeypatch):
    cached = _cache(tmp_path, ["model.gguf"])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert local_checkpoint("somebody/some-model/model.gguf") == cached / "model.gguf"


def test_a_folder_of_gguf_files_asks_for_one_of_them(tmp_path):
    (tmp_path / "b.gguf").write_bytes(b"")
    (tmp_path / "a.gguf").write_bytes(b"")
    for find in (local_checkpoint, config_folder):
        with pytest.raises(
            InputError, match=r"found GGUF files; pass one of them, such as .*a\.gguf"
        ):
            find(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert local_checkpoint(str(tmp_path)) == tmp_path


def test_a_gguf_file_of_the_hub_without_network_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"model\.gguf: no such file, and it cannot be") as caught:
        local_checkpoint("somebody/models/model.gguf")
    assert "\n" not in str(caught.value)


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

    def listing(repo_id, revision, timeout):
        asked["listed"] = (repo_id, revision)
        names = [RepoSibling(rfilename=name) for name in ("config.json", *files)]
        return SimpleNamespace(siblings=names)

    def download(repo_id, revision, allow_patterns, ignore_patterns):
        asked["fetched"] = (repo_id, revision)
        asked["patterns"], asked["ignored"] = allow_patterns, ignore_patterns
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "model_info", listing)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert local_checkpoint("somebody/some-model") == tmp_path
    assert asked["listed"] == asked["fetched"] == ("somebody/some-model", None)
    assert taken in asked["patterns"]
    assert left not in asked["patterns"]
    local_checkpoint("somebody/some-model@step-100")
    assert asked["listed"] == asked["fetched"] == ("somebody/some-model", "step-100")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on this machine that answers every request with `hub.answer`, (status, X-Error-Code)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found.asked += 1
            status, code = found.answer
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = SimpleNamespace(answer=None, asked=0)
    address = f"http://127.0.0.1:{server.server_port}"
    api = huggingface_hub.HfApi(endpoint=address)
    for name in ("model_info", "snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(api, name))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", LOOKUP)
    huggingface_hub.close_session()
    yield found
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, "GatedRepo"), ("gated", "licence", "/somebody/some-model,", "HF_TOKEN")),
        ((401, "RepoNotFound"), ("the name is wrong", "private", "HF_TOKEN")),
        ((404, "RevisionNotFound"), ("no revision 'step-9'",)),
        ((503, None), ("answered 503",)),
    ],
)
@pytest.mark.parametrize("find", [local_checkpoint, config_folder])
def test_a_refusal_is_asked_for_once_and_says_what_to_do(hub, answer, said, find):
    hub.answer = answer
    begin = time.perf_counter()
    with pytest.raises(InputError) as caught:
        find("somebody/some-model@step-9")
    assert (hub.asked, time.perf_counter() - begin < 5) == (1, True), caught.value
    message = str(caught.value)
    assert message.startswith("checkpoint somebody/some-model@step-9: ")
    assert message.endswith("pass a local directory")
    for words in said:
        assert words in message


def test_a_configuration_that_was_downloaded_serves_while_the_hub_refuses(hub, tmp_path):
    cached = _cache(tmp_path, ["config.json"])
    hub.answer = (503, None)
    begin = time.perf_counter()
    assert config_folder("somebody/some-model") == cached
    assert (hub.asked, time.perf_counter() - begin < 5) == (1, True)


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


def test_tokenizer_files_are_fetched_and_no_second_copy_of_the_weights(tmp_path, monkeypatch):
    names = {
        "config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "vocab.json", "vocab.txt",
        "spiece.model", "chat_template.jinja", "qwen.tiktoken", "special_tokens_map.json",
        "model-00001-of-00002.safetensors", "model.safetensors.index.json",
    }  # fmt: skip
    copies = {
        "consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "onnx/model.onnx",
        "onnx/config.json", "original/consolidated.00.pth", "original/params.json",
        "original/tokenizer.model", "model.Q4.gguf", "tf_model.h5", "flax_model.msgpack",
        "pytorch_model-00001-of-00002.bin", "optimizer.bin", "README.md",
        "checkpoint-10/model.safetensors",
    }  # fmt: skip
    listed = SimpleNamespace(siblings=[RepoSibling(rfilename=name) for name in names | copies])
    monkeypatch.setattr(huggingface_hub, "model_info", lambda **_: listed)
    taken = set()

    def download(allow_patterns, ignore_patterns, **_):
        taken.update(
            huggingface_hub.utils.filter_repo_objects(
                names | copies, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    local_checkpoint("somebody/some-model")
    assert taken == names
