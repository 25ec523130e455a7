"""Made-up scores of two models on the same questions, and the metrics as tests compute them."""

import numpy as np

from eap_jax import metrics
from eap_jax.graph import edge_mask
from experiments.statistics.metrics import METRIC_BY_KEY, FreeChoices

# The paper's metrics by key, in its order.
FORMULAS = {
    "activation_intensity": metrics.intensity,
    "information_complexity": metrics.complexity,
    "distribution_kurtosis": metrics.kurtosis,
    "sample_diversity": metrics.diversity,
    "output_edge_entropy": metrics.output_entropy,
}


def draw_scores(draw, samples, num_layers=2, spread=0.6):
    """(base, rl) [n, W, R] from one population: heavy-tailed entries, questions of unlike scale,
    each question more or less like the typical one, both sides of a question alike."""
    mask = edge_mask(num_layers)
    fixed = np.random.default_rng(7)
    typical = fixed.normal(size=mask.shape) * np.exp(fixed.normal(size=mask.shape)) * mask
    later = typical * (0.8 + 0.5 * fixed.normal(size=mask.shape))
    scale = np.exp(spread * draw.normal(size=(samples, 1, 1)))
    unlike = draw.beta(2, 2, size=(samples, 1, 1))
    noise, news = draw.standard_t(4, size=(2, samples, *mask.shape))
    base = scale * (typical * (1 - unlike) + np.abs(typical) * unlike * noise)
    rl = scale * (later * (1 - unlike) + np.abs(later) * unlike * (0.6 * noise + 0.8 * news))
    return base, rl


def measure(key, scores, upper=None):
    """A metric's value with histograms that end at `upper`."""
    return METRIC_BY_KEY[key].value(scores, FreeChoices(upper=upper, output_upper=upper))


def largest(key, scores):
    """Where the histogram of a metric ends that is given no range."""
    return np.abs(scores[:, :, -1] if key == "output_edge_entropy" else scores).max()
