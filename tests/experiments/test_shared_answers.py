"""The precision that holds the numbers of several checkpoints."""

from pathlib import Path

from experiments.shared_answers import widest_dtype
from experiments.study.pairs import PAIRS

START = Path(PAIRS["tiny_grpo"].base)
SNAPSHOT = Path(PAIRS["tiny_grpo"].rl) / "snapshots" / "00008"


def test_the_widest_dtype_holds_all_that_can_be_read(tmp_path):
    assert widest_dtype([SNAPSHOT, tmp_path]) == "bfloat16"
    assert widest_dtype([SNAPSHOT, START]) == "float32"
    assert widest_dtype([tmp_path]) is None
