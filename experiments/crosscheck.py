r"""Compare our scores with a results file of the paper's program (or of anyone's).

    python -m experiments.crosscheck --reference_npz=results_qwen_math_base_cut0.3.npz \
        --checkpoint=DIR --responses=all_correct.jsonl --side=base --alpha=0.3

The relative error is the Frobenius norm of the difference of `all_scores` over that of the
reference. Last line: relative error E, tolerance T: agree (exit code 0) or disagree (1).
"""

from pathlib import Path
from typing import NoReturn

import numpy as np
from absl import flags

from converters.load import load_checkpoint
from eap_jax.sharding import make_mesh
from experiments.binary import run_main
from experiments.devices import idle_accelerator
from experiments.errors import InputError
from experiments.responses.published_format import check_vocabulary, read_rows
from experiments.scoring.score import score_texts
from experiments.scoring.selection import select, truncate
from experiments.store import read_results
from experiments.study.numerics import NUMERICS, Numerics, use_numerics, weight_dtype
from experiments.study.pairs import SIDES, Side
from experiments.study.rule import Rule

# float32 agrees to rounding; bfloat16 differs by the order of its sums.
TOLERANCES: dict[Numerics, float] = {"float32": 1e-5, "bfloat16": 0.1, "published": 0.1}


def relative_error(
    reference: Path,
    checkpoint: Path,
    responses: Path,
    side: Side,
    rule: Rule,
    numerics: Numerics,
    batch_tokens: int = 4096,
) -> float:
    """Relative Frobenius error of our `all_scores` against a reference file's.

    Raises:
      InputError, CheckpointError: a file does not fit, or the shapes differ.
    """
    expected_nWR = read_results(reference)
    use_numerics(numerics)
    loaded = load_checkpoint(checkpoint, dtype=weight_dtype(numerics))
    rows = read_rows(responses)
    check_vocabulary(rows, side, loaded.config.vocab_size, responses)
    selection = select(rows, rule)
    texts = [truncate(row, side, selection.cut) for row in selection.rows]
    shape = (len(texts), 1 + 2 * loaded.config.num_layers, 1 + 4 * loaded.config.num_layers)
    if expected_nWR.shape != shape:
        raise InputError(
            f"{reference}: all_scores: expected {shape} for this model and selection, "
            f"found {expected_nWR.shape}"
        )
    print(f"{len(texts)} samples, {selection.cut} answer tokens counted, numerics {numerics}")
    (found,) = score_texts(
        loaded, texts, numerics=numerics, batch_tokens=batch_tokens, mesh=make_mesh()
    )
    print(f"column-sum health {found.health:.1e}")
    error = np.linalg.norm(found.scores_nWR - expected_nWR) / np.linalg.norm(expected_nWR)
    return float(error)


def main(_) -> int:
    f = flags.FLAGS
    common = {n: getattr(f, n) for n in ("alpha", "beta", "gamma", "delta", "num_samples", "seed")}
    paths = (Path(f.reference_npz), Path(f.checkpoint), Path(f.responses))
    if note := idle_accelerator():
        print(note)
    error = relative_error(*paths, f.side, Rule(**common), f.numerics)
    tolerance = TOLERANCES[f.numerics] if f.tolerance is None else f.tolerance
    agree = error <= tolerance
    verdict = "agree" if agree else "disagree"
    print(f"relative error {error:.1e}, tolerance {tolerance:g}: {verdict}")
    return 0 if agree else 1


def define_flags() -> None:
    """The program's flags."""
    flags.DEFINE_string("reference_npz", None, "Results file to compare with.", required=True)
    flags.DEFINE_string("checkpoint", None, "The model that made it.", required=True)
    flags.DEFINE_string("responses", None, "The answers (all_correct.jsonl).", required=True)
    flags.DEFINE_enum("side", None, SIDES, "Which side of the pair.", required=True)
    flags.DEFINE_float("alpha", None, "Counted share of the mean answer length.", required=True)
    flags.DEFINE_float("beta", Rule.beta, "Shortest mean answer length, as a share of the mean.")
    flags.DEFINE_float("gamma", Rule.gamma, "Longest mean answer length, as a share of the mean.")
    flags.DEFINE_float(
        "delta", Rule.delta, "Largest difference of the two answer lengths, as a share."
    )
    flags.DEFINE_integer(
        "num_samples", Rule.num_samples, "Most questions that count.", lower_bound=1
    )
    flags.DEFINE_integer("seed", Rule.seed, "Seed of the sampling of questions.")
    flags.DEFINE_enum(
        "numerics", "float32", NUMERICS, "Precision; see experiments/study/numerics.py."
    )
    flags.DEFINE_float(
        "tolerance", None, "Largest relative error that agrees; default 1e-5 or 0.1."
    )


def run() -> NoReturn:
    """The console script eap-crosscheck."""
    run_main(main, define_flags)


if __name__ == "__main__":
    run()
