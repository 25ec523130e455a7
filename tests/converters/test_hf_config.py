"""config.json: families and spellings read as transformers reads them, the rest refused by name."""

import dataclasses
import json
import time

import hf_folder
import pytest
import toys
import transformers

from converters.errors import CheckpointError, CheckpointWarning
from converters.hf_config import parse_config, read_config, stated_dtype, to_hf_config
from eap_jax.config import ModelConfig, RopeScaling

LLAMA3_JSON = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SMALL = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def minimal(family: str, **changes) -> dict:
    return SMALL | {"architectures": [hf_folder.ARCHITECTURES[family]]} | changes


def transformers_config(data: dict, folder):
    """What transformers makes of a config.json."""
    model_type = data["architectures"][0].removesuffix("ForCausalLM").lower()
    hf_folder.write_config(folder, {"model_type": model_type} | data)
    return transformers.AutoConfig.from_pretrained(folder)


def refusal(data: dict) -> str:
    with pytest.raises(CheckpointError) as error:
        parse_config(data, "here/config.json")
    message = str(error.value)
    assert message.startswith("here/config.json: ")
    assert "\n" not in message
    return message


# Three of the study's models: (config.json, the numbers of the paper's table).
PUBLISHED = {
    "deepseek_math": (
        {
            "architectures": ["LlamaForCausalLM"], "attention_bias": False,
            "attention_dropout": 0.0, "bos_token_id": 100000, "eos_token_id": 100001,
            "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
            "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
            "num_attention_heads": 32, "num_hidden_layers": 30, "num_key_value_heads": 32,
            "pretraining_tp": 1, "rms_norm_eps": 1e-06, "rope_scaling": None,
            "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
            "transformers_version": "4.37.1", "use_cache": True, "vocab_size": 102400,
        },
        {
            "num_layers": 30, "num_heads": 32, "num_kv_heads": 32, "d_model": 4096,
            "d_ff": 11008, "vocab_size": 102400, "head_dim": 128, "norm_eps": 1e-6,
            "rope_theta": 10000.0,
        },
    ),
    "mistral": (
        {
            "_name_or_path": "mistralai/Mistral-7B-v0.1", "architectures": ["MistralForCausalLM"],
            "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096,
            "initializer_range": 0.02, "intermediate_size": 14336,
            "max_position_embeddings": 32768, "model_type": "mistral",
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": False,
            "vocab_size": 32000,
        },
        {
            "num_layers": 32, "num_heads": 32, "num_kv_heads": 8, "d_model": 4096,
            "d_ff": 14336, "vocab_size": 32000, "head_dim": 128, "norm_eps": 1e-5,
            "rope_theta": 10000.0, "layer_windows": (4096,) * 32,
        },
    ),
    "qwen25": (
        {
            "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
            "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584,
            "initializer_range": 0.02, "intermediate_size": 18944,
            "max_position_embeddings": 4096, "max_window_layers": 28, "model_type": "qwen2",
            "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06, "rope_theta": 10000, "sliding_window": 4096,
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_mrope": False,
            "use_sliding_window": False, "vocab_size": 152064,
        },
        {
            "num_layers": 28, "num_heads": 28, "num_kv_heads": 4, "d_model": 3584,
            "d_ff": 18944, "vocab_size": 152064, "head_dim": 128, "norm_eps": 1e-6,
            "rope_theta": 10000, "qkv_bias": True,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", PUBLISHED)
def test_the_studys_models_read_as_the_papers_table(pair):
    data, fields = PUBLISHED[pair]
    assert parse_config(data) == ModelConfig(**fields)


@pytest.mark.parametrize("series", toys.SERIES)
def test_the_golden_checkpoints_configs_are_read(series):
    folder = toys.GOLDEN / "checkpoints" / f"toy_{series}_base"
    assert read_config(folder) == toys.golden_checkpoint(series, "base")[0]


@pytest.mark.parametrize("name", toys.ZOO)
def test_old_spellings_give_the_model(name, tmp_path):
    toy = toys.ZOO[name]
    hf_folder.write_config(tmp_path, hf_folder.config_json(toy))
    assert read_config(tmp_path) == toy.config


@pytest.mark.parametrize("name", toys.ZOO)
def test_what_transformers_itself_writes_gives_the_model(name, tmp_path):
    toy = toys.ZOO[name]
    theirs = transformers_config(hf_folder.config_json(toy), tmp_path / "old")
    theirs.save_pretrained(tmp_path / "new")
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert "rope_parameters" in written  # the new spelling
    assert "rope_theta" not in written
    assert read_config(tmp_path / "new") == toy.config


@pytest.mark.parametrize("kind_key", ["type", "rope_type"])
@pytest.mark.parametrize(
    ("kind", "numbers", "expected"),
    [
        ("default", {}, None),
        ("linear", {"factor": 4.0}, RopeScaling(kind="linear", factor=4.0)),
        ("llama3", LLAMA3_JSON, toys.LLAMA3),
    ],
)
def test_rope_scaling_reads_the_same_in_every_spelling(kind_key, kind, numbers, expected):
    scaling = {kind_key: kind} | numbers
    spellings = [
        {"rope_theta": 5e5, "rope_scaling": scaling},
        {"rope_parameters": scaling | {"rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_parameters": scaling},
        {"rope_theta": 5e5, "rope_scaling": scaling, "rope_parameters": scaling},
        {"rope_parameters": scaling | {"rope_theta": 5e5, "partial_rotary_factor": 1.0}},
    ]
    for spelling in spellings:
        config = parse_config(minimal("llama", **spelling))
        assert config.rope_theta == 5e5
        assert config.rope_scaling == expected


def test_rotary_settings_without_a_kind_are_transformers_default(tmp_path):
    data = minimal("llama", rope_parameters={"rope_theta": 5e5})
    theirs = transformers_config(data, tmp_path)
    assert theirs.rope_parameters == {"rope_theta": 5e5, "rope_type": "default"}
    config = parse_config(data)
    assert (config.rope_theta, config.rope_scaling) == (5e5, None)


@pytest.mark.parametrize("family", hf_folder.ARCHITECTURES)
def test_keys_that_are_left_out_get_transformers_defaults(family, tmp_path):
    # Mistral's and Qwen2's default of 8 and 32 key/value heads needs as many query heads.
    data = minimal(family, num_attention_heads=32, hidden_size=64)
    theirs = transformers_config(data, tmp_path)
    config = parse_config(data)
    assert config.num_kv_heads == theirs.num_key_value_heads
    assert config.head_dim == (getattr(theirs, "head_dim", None) or 2)
    assert config.norm_eps == theirs.rms_norm_eps
    assert config.rope_theta == theirs.rope_parameters["rope_theta"]
    assert config.rope_scaling is None
    assert config.tied_embeddings == theirs.tie_word_embeddings
    assert config.qkv_bias == (family == "qwen2")
    assert (config.output_bias, config.mlp_bias) == (False, False)
    windows = (theirs.sliding_window,) * 3 if family == "mistral" else None
    assert config.layer_windows == windows


@pytest.mark.parametrize(
    ("field", "changes", "expected"),
    [
        ("num_kv_heads", {"num_key_value_heads": 2}, 2),
        ("num_kv_heads", {"num_key_value_heads": None}, 4),
        ("head_dim", {}, 6),
        ("head_dim", {"head_dim": None}, 6),
        ("head_dim", {"head_dim": 10}, 10),
        ("norm_eps", {"rms_norm_eps": 1e-5}, 1e-5),
        ("norm_eps", {"rms_norm_eps": 1}, 1),
        ("rope_theta", {"rope_theta": 1000000}, 1000000),
        ("qkv_bias", {"attention_bias": True}, True),
        ("output_bias", {"attention_bias": True}, True),
        ("mlp_bias", {"mlp_bias": True}, True),
        ("tied_embeddings", {"tie_word_embeddings": True}, True),
        ("d_model", {"hidden_size": 48}, 48),
        ("d_ff", {"intermediate_size": 13}, 13),
        ("num_layers", {"num_hidden_layers": 7}, 7),
        ("vocab_size", {"vocab_size": 99}, 99),
    ],
)
def test_a_key_reaches_its_field(field, changes, expected):
    assert getattr(parse_config(minimal("llama", **changes)), field) == expected


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", None])
def test_both_names_of_the_weights_dtype_are_known(key, dtype):
    assert parse_config(minimal("llama", **{key: dtype})) == parse_config(minimal("llama"))


@pytest.mark.parametrize("layer_types", [None, ["full", "sliding", "full"], ["full"] * 3])
@pytest.mark.parametrize("first", [0, 1, 3, 28, None])
@pytest.mark.parametrize("size", [7, None, "left out"])
@pytest.mark.parametrize("used", [True, False, None])
def test_qwen2_windows_are_those_of_transformers(used, size, first, layer_types, tmp_path):
    data = minimal("qwen2", num_key_value_heads=4)
    if used is not None:
        data["use_sliding_window"] = used
    if size != "left out":
        data["sliding_window"] = size
    if first is not None:
        data["max_window_layers"] = first
    if layer_types is not None:
        data["layer_types"] = [f"{kind}_attention" for kind in layer_types]
    theirs = transformers_config(data, tmp_path)
    kinds = [kind == "sliding_attention" for kind in theirs.layer_types]
    if any(kinds) and theirs.sliding_window is None:
        assert "layer_types" in refusal(data)
        return
    expected = tuple(theirs.sliding_window if kind else None for kind in kinds)
    assert parse_config(data).layer_windows == (expected if any(kinds) else None)


@pytest.mark.parametrize(
    ("family", "windows", "expected"),
    [
        ("mistral", {"sliding_window": 7}, (7, 7, 7)),
        ("mistral", {"sliding_window": None}, None),
        ("mistral", {}, (4096,) * 3),
        ("mistral", {"sliding_window": 5, "layer_types": ["sliding_attention"] * 3}, (5, 5, 5)),
        ("llama", {"sliding_window": None}, None),
        ("llama", {"layer_types": ["full_attention"] * 3}, None),
    ],
)
def test_a_family_without_kinds_of_layers_has_one_window_or_none(family, windows, expected):
    data = minimal(family, num_key_value_heads=4, **windows)
    assert parse_config(data).layer_windows == expected


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llama", {"attn_logit_softcapping": 30.0}, ["attn_logit_softcapping", "30.0"]),
        ("llama", {"quantization_config": {"bits": 4}}, ["quantization_config", "'bits': 4"]),
        ("llama", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5"]),
        ("llama", {"architectures": ["GPT2LMHeadModel"]}, ["LlamaForCausalLM", "GPT2LMHeadModel"]),
        ("llama", {"architectures": ["Qwen3MoeForCausalLM"]}, ["Qwen2ForCausalLM", "Qwen3Moe"]),
        ("llama", {"architectures": []}, ["architectures", "[]"]),
        (
            "llama",
            {"architectures": [["LlamaForCausalLM"]]},
            ["architectures", "['LlamaForCausalLM']"],
        ),
        ("llama", {"architectures": ["LlamaForCausalLM"] * 2}, ["architectures", "LlamaFor"]),
        ("llama", {"architectures": None}, ["architectures", "None"]),
        ("llama", {"architectures": "LlamaForCausalLM"}, ["architectures", "'LlamaForCausalLM'"]),
        ("llama", {"model_type": "mistral"}, ["model_type", "expected llama", "'mistral'"]),
        ("llama", {"hidden_act": "relu"}, ["hidden_act", "silu", "'relu'"]),
        ("llama", {"torch_dtype": "float64"}, ["torch_dtype", "'float64'"]),
        ("llama", {"dtype": "int8"}, ["dtype", "'int8'"]),
        ("llama", {"rope_scaling": {"type": "mrope"}}, ["rope_scaling", "'mrope'"]),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, ["rope_parameters", "longrope"]),
        ("llama", {"rope_scaling": {"type": "linear"}}, ["linear", "factor"]),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2, "beta": 1}}, ["'beta'"]),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, ["factor", "'2'"]),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0.5}}, ["factor", "0.5"]),
        ("llama", {"rope_scaling": {"type": ["linear"], "factor": 2}}, ["['linear']"]),
        ("llama", {"rope_scaling": {"type": "llama3", "factor": 8.0}}, ["low_freq_factor"]),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3"} | LLAMA3_JSON | {"low_freq_factor": 9.0}},
            ["low_freq_factor", "9.0"],
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 2}},
            ["rope_type 'linear'", "type 'llama3'"],
        ),
        ("llama", {"rope_scaling": "linear"}, ["rope_scaling", "'linear'"]),
        (
            "llama",
            {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
            ["10000.0", "500000.0", "contradict"],
        ),
        (
            "llama",
            {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
            ["500000.0", "10000.0", "contradict"],
        ),
        (
            "llama",
            {
                "rope_scaling": {"type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "linear", "factor": 4.0},
            },
            ["contradict"],
        ),
        (
            "llama",
            {
                "rope_scaling": {"type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "default"},
            },
            ["contradict"],
        ),
        ("llama", {"rope_scaling": {"type": "linear", "factor": True}}, ["factor", "True"]),
        ("llama", {"rope_theta": "10000"}, ["rope_theta", "'10000'"]),
        ("llama", {"rope_theta": -1.0}, ["rope_theta", "-1.0"]),
        ("llama", {"rms_norm_eps": None}, ["rms_norm_eps", "None"]),
        ("llama", {"num_hidden_layers": "3"}, ["num_hidden_layers", "'3'"]),
        ("llama", {"num_hidden_layers": 0}, ["num_hidden_layers", "found 0"]),
        ("llama", {"num_hidden_layers": True}, ["num_hidden_layers", "True"]),
        ("llama", {"vocab_size": 61.0}, ["vocab_size", "61.0"]),
        ("llama", {"hidden_size": 26}, ["hidden_size 26", "num_attention_heads 4", "head_dim"]),
        ("llama", {"head_dim": 7}, ["head_dim", "even", "7"]),
        ("llama", {"num_key_value_heads": 3}, ["num_kv_heads", "divisor", "3"]),
        ("llama", {"num_key_value_heads": 0}, ["num_key_value_heads", "found 0"]),
        ("llama", {"tie_word_embeddings": "yes"}, ["tie_word_embeddings", "'yes'"]),
        ("llama", {"attention_bias": 1}, ["attention_bias", "found 1"]),
        ("llama", {"qkv_bias": True}, ["qkv_bias", "LlamaForCausalLM"]),
        ("llama", {"sliding_window": 7}, ["sliding_window", "LlamaForCausalLM"]),
        ("llama", {"layer_types": ["sliding_attention"] * 3}, ["layer_types"]),
        ("mistral", {"attention_bias": True}, ["attention_bias", "MistralForCausalLM"]),
        ("mistral", {"mlp_bias": True}, ["mlp_bias", "MistralForCausalLM"]),
        ("mistral", {"sliding_window": 0}, ["sliding_window", "found 0"]),
        ("mistral", {"sliding_window": 7.5}, ["sliding_window", "7.5"]),
        (
            "mistral",
            {"sliding_window": 7, "layer_types": ["full_attention"] * 3},
            ["layer_types", "MistralForCausalLM"],
        ),
        ("qwen2", {"mlp_bias": True}, ["mlp_bias", "Qwen2ForCausalLM"]),
        ("qwen2", {"qkv_bias": False}, ["qkv_bias", "Qwen2ForCausalLM"]),
        ("qwen2", {"use_sliding_window": True, "sliding_window": "7"}, ["sliding_window", "'7'"]),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": None},
            ["max_window_layers", "None"],
        ),
        ("qwen2", {"layer_types": ["full_attention"]}, ["layer_types", "3 entries"]),
        ("qwen2", {"layer_types": ["full_attention"] * 2 + ["linear"]}, ["layer_types", "linear"]),
        ("qwen2", {"layer_types": 3}, ["layer_types", "found 3"]),
    ],
)
def test_what_the_model_cannot_honour_is_refused_by_name(family, changes, words):
    data = minimal(family, num_key_value_heads=4)
    parse_config(data)  # whole before the change
    message = refusal(data | changes)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("key", SMALL)
def test_a_missing_size_is_named(key):
    data = minimal("llama")
    del data[key]
    assert key in refusal(data)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (b"", ["expected JSON"]),
        (b'{"vocab_size": 61,', ["expected JSON", "line 1"]),
        (b"\xff\xfe{}", ["expected JSON"]),
        (b"[1]", ["expected a JSON object", "list"]),
        (b'{"rope_theta": NaN}', ["NaN"]),
        (b'{"rope_theta": Infinity}', ["Infinity"]),
        (b'{"rope_theta": 1e999}', ["1e999"]),
        (b'{"rope_theta": -1e999}', ["-1e999"]),
        (b'{"vocab_size": ' + b"9" * 9999 + b"}", ["expected JSON", "digits"]),
        (b'{"a": ' + b"[" * 200000, ["nested too deeply"]),
        (b'{"a":' * 200000, ["nested too deeply"]),
    ],
)
def test_a_broken_file_is_named(content, words, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_config(tmp_path)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "config.json"))
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("name", toys.ZOO)
def test_what_we_write_is_read_by_transformers_as_the_same_model(name, tmp_path):
    toy = toys.ZOO[name]
    data = to_hf_config(
        toy.config,
        architecture=hf_folder.ARCHITECTURES[toy.family],
        dtype="bfloat16",
        extra={"bos_token_id": 1, "eos_token_id": 2},
    )
    assert read_back(data) == toy.config
    found = transformers_config(data, tmp_path / "ours")
    expected = transformers_config(hf_folder.config_json(toy), tmp_path / "theirs")
    assert type(found) is type(expected)
    assert str(found.dtype).endswith("bfloat16")
    assert (found.bos_token_id, found.eos_token_id) == (1, 2)
    ours, theirs = found.to_dict(), expected.to_dict()
    informative = {"dtype", "bos_token_id", "eos_token_id", "max_position_embeddings"}
    informative |= {"_name_or_path"}
    if toy.config.layer_windows is None:
        informative |= {"max_window_layers"}  # no window is in use
    assert {k: v for k, v in ours.items() if k not in informative} == {
        k: v for k, v in theirs.items() if k not in informative
    }


def read_back(data: dict) -> ModelConfig:
    return parse_config(json.loads(json.dumps(data)))


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"layer_windows": (7, 7)}),
        ("llama", {"qkv_bias": True}),  # llama's bias flag is for the output projection too
        ("mistral", {"qkv_bias": True}),
        ("mistral", {"layer_windows": (None, 7)}),
        ("qwen2", {}),  # always has q, k and v biases
        ("qwen2", {"qkv_bias": True, "mlp_bias": True}),
        ("qwen2", {"qkv_bias": True, "layer_windows": (7, None)}),
    ],
)
def test_an_architecture_that_cannot_express_the_model_is_refused(family, fields):
    config = dataclasses.replace(toys.ZOO["multi-head"].config, **fields)
    with pytest.raises(CheckpointError, match="ForCausalLM"):
        to_hf_config(config, architecture=hf_folder.ARCHITECTURES[family])


def test_a_further_key_cannot_change_the_model():
    config = toys.ZOO["multi-head"].config
    with pytest.raises(CheckpointError, match="cannot express"):
        to_hf_config(config, extra={"rope_theta": 5.0})
    with pytest.raises(CheckpointError, match="rope_interleaved"):
        to_hf_config(config, extra={"rope_interleaved": True})
    with pytest.warns(CheckpointWarning, match="'colour'"):
        assert read_back(to_hf_config(config, extra={"colour": 5.0})) == config


def test_the_model_type_says_the_family_where_no_architecture_is_named():
    for family, architecture in hf_folder.ARCHITECTURES.items():
        data = minimal(family, num_key_value_heads=4)
        for unnamed in ({"model_type": family}, {"model_type": family, "architectures": None}):
            left = {key: value for key, value in data.items() if key != "architectures"}
            assert parse_config(left | unnamed) == parse_config(data), architecture


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_a_dtype_may_be_spelled_as_torch_prints_it(key):
    assert stated_dtype(minimal("llama", **{key: "torch.bfloat16"}), "here") == "bfloat16"
    assert stated_dtype(minimal("llama"), "here") is None
    assert "torch.int8" in refusal(minimal("llama", **{key: "torch.int8"}))


@pytest.mark.parametrize("name", ["num_hidden_layers", "vocab_size", "hidden_size"])
def test_sizes_that_no_model_has_are_refused_at_once(name):
    sizes = {"head_dim": 8, "num_key_value_heads": 4}
    smollm3 = SMALL | sizes | {"model_type": "smollm3"}
    parse_config(smollm3)
    for value in (1e30, 10**30, 10**9 if name == "num_hidden_layers" else 2**31, -1, True, "3"):
        started = time.perf_counter()
        assert name in refusal(smollm3 | {name: value})
        assert time.perf_counter() - started < 1
    most = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), 2**31 - 1)
    assert "a model that can exist" in refusal(minimal("llama", **sizes) | most)
