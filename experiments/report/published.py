"""Figures of the paper (arXiv 2509.21044) that are known, to stand beside measured ones."""

from experiments.statistics.metrics import TABLE_METRICS

# Table 1: (pair, dataset, alpha) -> column's heading -> (base, rl).
_TABLE_1: dict[tuple[str, str, float], dict[str, tuple[float, float]]] = {
    ("deepseek_math", "math", 0.1): {
        "Act.Intens.": (1.10e-3, 1.31e-3),
        "Info.Complex.": (1.72e-1, 2.47e-1),
        "Dist.Kurt.": (357, 223),
    },
    ("mistral", "math", 0.3): {
        "Act.Intens.": (4.49e-4, 4.92e-4),
        "Info.Complex.": (4.13e-2, 2.86e-1),
        "Dist.Kurt.": (335, 265),
    },
    ("distilled_qwen", "gsm8k", 0.1): {
        "Act.Intens.": (6.71e-4, 7.72e-4),
        "Info.Complex.": (1.60e-1, 2.64e-1),
        "Dist.Kurt.": (766, 560),
    },
    ("qwen25", "college_math", 0.3): {
        "Act.Intens.": (4.76e-4, 4.69e-4),
        "Info.Complex.": (1.23e-1, 9.95e-2),
        "Dist.Kurt.": (751, 651),
    },
}

# Table 4: (pair, dataset) -> share of right answers (base, rl).
ACCURACIES: dict[tuple[str, str], tuple[float, float]] = {
    ("deepseek_math", "math"): (0.462, 0.526),
    ("mistral", "math"): (0.291, 0.326),
    ("distilled_qwen", "math"): (0.884, 0.954),
    ("qwen25", "math"): (0.757, 0.826),
}


def cell_values(pair: str, dataset: str, alpha: float) -> dict[str, tuple[float, float]]:
    """Published (base, rl) of a cell by metric key, empty where the paper shows no such cell."""
    columns = _TABLE_1.get((pair, dataset, alpha), {})
    return {m.key: columns[m.short] for m in TABLE_METRICS if m.short in columns}
