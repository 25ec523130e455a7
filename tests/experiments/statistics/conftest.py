"""Twelve questions scored by two models."""

import numpy as np
import pytest
from paired_scores import draw_scores


@pytest.fixture
def sides():
    return draw_scores(np.random.default_rng(0), 12)
