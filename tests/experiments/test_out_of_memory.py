"""What the memory does not hold is halved twice, then ends in one line of advice; nothing is lost."""

import json
import math
import shutil
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from hf_folder import write_config, write_raw
from toys import GOLDEN

from converters.errors import CheckpointError
from experiments.errors import InputError
from experiments.out_of_memory import Halving, OutOfMemoryError, end_of, is_out_of_memory
from experiments.store import read_results
from experiments.study.pairs import DEFAULT_PAIR, PAIRS


def failed_allocation() -> Exception:
    """What XLA really raises for a petabyte."""
    try:
        jnp.zeros((2**18, 2**30), jnp.float32).block_until_ready()
    except Exception as error:
        return error
    raise AssertionError("a petabyte was allocated")


def failed_in_numpy() -> Exception:
    try:
        np.zeros(2**60, np.uint8)
    except Exception as error:
        return error
    raise AssertionError("an exabyte was allocated")


def test_failed_allocations_are_told_from_other_errors_also_where_they_are_wrapped():
    wrapped = CheckpointError("cannot read")
    wrapped.__cause__ = MemoryError()
    fast = ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")  # jit's fast path
    others = (failed_in_numpy(), MemoryError("std::bad_alloc"), wrapped, fast)
    for error in (failed_allocation(), *others):
        assert is_out_of_memory(error), error
    for error in (ValueError("bad_alloc"), RuntimeError("INVALID_ARGUMENT: a shape"), OSError(2)):
        assert not is_out_of_memory(error), error


def test_work_is_halved_twice_then_ends_in_one_line_that_says_what_helps():
    said = []
    together = Halving(100, "answers", said.append)
    together.after(failed_allocation())
    assert together.size == 50
    together.after(MemoryError(), failed=30, least=4)
    assert together.size == 12
    assert said == [
        "100 answers at once: out of memory, on with 50",
        "30 answers at once: out of memory, on with 12",
    ]
    with pytest.raises(OutOfMemoryError) as caught:
        together.after(failed_allocation())
    message = str(caught.value)
    assert message.startswith("12 answers at once: out of memory (RESOURCE_EXHAUSTED")
    assert "\n" not in message
    for flag in (
        "batch_answers",
        "batch_tokens",
        "numerics=bfloat16",
        "mesh=model:2",
        "memory=str",
    ):
        assert f"--{flag}" in message
    assert end_of(caught.value) is caught.value


def test_one_row_cannot_be_halved_and_other_errors_are_not_caught():
    with pytest.raises(OutOfMemoryError):
        Halving(1, "answers", print).after(MemoryError())
    with pytest.raises(OutOfMemoryError):  # a row on each of two devices
        Halving(64, "tokens", print).after(MemoryError(), failed=20, least=20)
    with pytest.raises(KeyError):
        Halving(8, "answers", print).after(KeyError("ours"))


# GiB that a run may have beside its imports; threads' stacks and arenas take a part of it.
_ROOM = {"weights": 1.0, "activations": 1.5, "cache": 1.5, "question": 1.5}


def hollow_model(folder, **sizes):
    """A checkpoint of zeros that takes no place on the disk: a hole in the file."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 76,
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "torch_dtype": "float32", "eos_token_id": 2,
    } | sizes  # fmt: skip
    width, wide, vocabulary = (
        config[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    heads = config["num_attention_heads"] * config["head_dim"]
    shapes = {
        "model.embed_tokens.weight": [vocabulary, width],
        "lm_head.weight": [vocabulary, width],
        "model.norm.weight": [width],
    }
    for layer in range(2):
        block = f"model.layers.{layer}."
        shapes |= {f"{block}self_attn.{name}_proj.weight": [heads, width] for name in "qkv"}
        shapes[f"{block}self_attn.o_proj.weight"] = [width, heads]
        shapes |= {f"{block}mlp.{name}_proj.weight": [wide, width] for name in ("gate", "up")}
        shapes[f"{block}mlp.down_proj.weight"] = [width, wide]
        for name in ("input", "post_attention"):
            shapes[f"{block}{name}_layernorm.weight"] = [width]
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    shutil.copytree(
        PAIRS[DEFAULT_PAIR].rl, folder, ignore=shutil.ignore_patterns("snap*", "*.saf*")
    )
    write_config(folder, config)
    write_raw(folder / "model.safetensors", header, b"")
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) + end)
    return folder


def long_question(path):
    """A file of one question of a megabyte, in words that the embedded tokenizer knows."""
    text = "Hugo has 7 coins. " * 55_000 + "How many coins does Hugo have?"
    path.write_text(json.dumps({"question": text, "answer": "7"}) + "\n")
    return path


@pytest.mark.parametrize("what", _ROOM)
def test_a_run_under_a_memory_limit_ends_in_one_line_with_advice(processes, tmp_path, what):
    """The limit is the system's own, as `ulimit -v` sets it, a little above what the imports take."""
    flags = {"workdir": tmp_path / "runs", "num_questions": 200}
    sizes = {
        "weights": {"vocab_size": 2**21},
        "activations": {"intermediate_size": 2**17},
        "cache": {"num_attention_heads": 64, "num_key_value_heads": 64, "head_dim": 64},
    }
    if what == "question":
        flags |= {"questions": long_question(tmp_path / "long.jsonl"), "dataset": "arithmetic"}
    else:
        for side, theta in (("base", 10000.0), ("rl", 20000.0)):  # two models, both of zeros
            folder = tmp_path / side
            flags[f"{side}_checkpoint"] = hollow_model(folder, rope_theta=theta, **sizes[what])
        flags["dataset"] = "arithmetic"
        flags |= {"prompt": "Question: {question}\nAnswer:"}
    if what == "activations":
        flags |= {"responses": GOLDEN / "responses/qwen/math/all_correct.jsonl", "dataset": "math"}
        flags |= {"batch_tokens": 10**6, "alpha": 1}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    done = processes.run("experiments.run", *argv, room=int(_ROOM[what] * 2**30))
    assert done.code == 1, done
    (error,) = [line for line in done.stderr if line.startswith("error: ")]
    assert "out of memory" in error
    assert "--memory=stream" in error
    assert not any("Traceback" in line for line in done.stderr)


def test_a_header_that_claims_more_than_the_file_holds_is_refused_before_anything_is_allocated(
    tmp_path,
):
    path = tmp_path / "claims.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20, 2**10)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("scores", "all_scores"):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.write(bytes(64))
    with pytest.raises(InputError, match=r"claims\.npz: .*scores.* claims 4,503,599,627,370,496"):
        read_results(path)
