"""Results with names: score matrices as xarray, comparisons of metrics as pandas."""

import dataclasses

import numpy as np
import pandas as pd
import xarray as xr

from eap_jax.attribution import not_measurable
from eap_jax.graph import edge_mask, num_layers_of, reader_names, writer_names
from experiments.statistics import compare as statistics
from experiments.statistics.trend import trend


def label_matrices(
    name: str, values_nWR: np.ndarray, losses_n: np.ndarray, facts: dict[str, str]
) -> xr.Dataset:
    """Matrices of n texts under a name, with their writers, readers and losses.

    Args:
      name: of the matrices.
      values_nWR: [n, 1+2L, 4L+1].
      losses_n: [n], nats a token.
      facts: attributes of the whole; where these name an `estimator`, `measurable` (writer, reader)
        is false where there is no edge and where its score of 0 says nothing.
    """
    layers = num_layers_of(*values_nWR.shape[1:])
    found = {}
    if "estimator" in facts:
        measurable_WR = edge_mask(layers).copy()
        for place in not_measurable(facts["estimator"], layers):
            measurable_WR[place] = False
        found["measurable"] = (("writer", "reader"), measurable_WR)
    dims = ("sample", "writer", "reader")
    return xr.Dataset(
        {
            name: (dims, values_nWR),
            "loss": label_losses(losses_n),
            "edge": (dims[1:], edge_mask(layers)),
            **found,
        },
        coords={"writer": list(writer_names(layers)), "reader": list(reader_names(layers))},
        attrs=facts,
    )


def label_losses(losses_n: np.ndarray) -> xr.DataArray:
    """Losses of n texts, nats a token."""
    return xr.DataArray(
        losses_n,
        dims="sample",
        coords={"sample": np.arange(len(losses_n))},
        name="loss",
        attrs={"units": "nats a token"},
    )


def compare(base: xr.Dataset, rl: xr.Dataset) -> pd.DataFrame:
    """How the metrics of two models' scores differ on the same texts.

    Args:
      base, rl: two results of `Model.attribute` for the same texts in the same order.

    Returns:
      one row a metric: value of each side, difference and relative change with their 95 %
      bootstrap intervals over texts, signed-rank and sign tests, effect size, and `trend`, the
      direction on which interval and test agree (`experiments.statistics.trend`).

    Raises:
      ValueError: the two results are not of the same shape.
    """
    found = statistics.compare(base.score.values, rl.score.values)
    rows = {}
    for metric, comparison in found.items():
        fields = dataclasses.asdict(comparison) | {"trend": trend(comparison)}
        row = {}
        for name, value in fields.items():
            if name == "metric":
                continue
            if isinstance(value, tuple):
                stem = name.removesuffix("_interval")
                row |= {f"{stem}_low": value[0], f"{stem}_high": value[1]}
            else:
                row[name] = value
        rows[metric] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")
