"""Static scores are those of plain formulas, second moments by blocks included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.sensitivity.static_scores import Statistics, scores_of

from support.moment_store import moment, write_moments
from support.sensitive import rtn
from taqstore.kinds.second_moments import moments_of
from taqstore.kinds.sensitivity import STATIC
from taqstore.names import ACTIVATIONS
from taqstore.store.reader import open_store


@pytest.mark.parametrize("block_size", [None, 48])
def test_scores_of_a_target_of_several_linears(
    tmp_path: Path, model: LoadedModel, block_size: int | None
) -> None:
    store = open_store(write_moments(tmp_path / "m.zarr", model, sites=["attn.qkv", "mlp.fc2"],
                                     block_size=block_size))  # fmt: skip
    inputs = {(one.layer, one.site): one for one in model.inputs()}
    chosen = [inputs["mm0.img", "attn.qkv"], inputs["mm2.txt", "mlp.fc2"]]
    readers = [reader for one in chosen for reader in one.readers]
    quantized = [rtn(3)(reader.matrix()) for reader in readers]
    found = scores_of(zip(readers, quantized, strict=True), Statistics(store))
    sums = dict.fromkeys(STATIC, 0.0)
    kurtosis, count = 0.0, 0
    for reader, q in zip(readers, quantized, strict=True):
        read = reader.name.input
        w = reader.matrix().astype(np.float64)
        d, known = q.astype(np.float64) - w, moments_of(store, read.layer, read.site)
        assert known is not None
        h = known.full() / known.count
        if block_size is None:
            exact = moment(inputs[read.layer, read.site]) / known.count
            np.testing.assert_allclose(h, exact, rtol=1e-5, atol=1e-5 * abs(exact).max())
        for name, matrix, of in (
            ("weight_power", np.eye(len(h)), w), ("weight_error", np.eye(len(h)), d),
            ("imatrix_power", np.diag(np.diag(h)), w), ("imatrix_error", np.diag(np.diag(h)), d),
            ("output_power", h, w), ("moment_error", h, d),
        ):  # fmt: skip
            sums[name] += np.trace(of @ matrix @ of.T)
        sums["weight_absmax"] = max(sums["weight_absmax"], np.abs(w).max())
        kurtosis += w.size * ((w - w.mean()) ** 4).mean() / w.var() ** 2
        count += w.size
    sums["weight_kurtosis"] = kurtosis / count
    sums["weight_sqnr"] = 10 * np.log10(sums["weight_power"] / sums["weight_error"])
    assert {*found} == {*STATIC}
    for name in STATIC:
        np.testing.assert_allclose(found[name], sums[name], rtol=1e-9, err_msg=name)


def test_squares_of_observations_and_nothing(judged_store: Path, model: LoadedModel) -> None:
    store = open_store(judged_store)
    [reader] = next(
        i for i in model.inputs() if (i.layer, i.site) == ("mm1.img", "mlp.fc1")
    ).readers
    weight = reader.matrix()
    found = scores_of([(reader, weight * np.float32(1.5))], Statistics(store))
    seen = store[f"{ACTIVATIONS}/mlp.fc1"].sel(layer="mm1.img")
    squares = (seen["count"] * seen["mean"].astype(float) ** 2 + seen["m2"]).sum(("batch", "step"))
    mean = (squares / seen["count"].sum()).values
    wanted = ((weight.astype(float) / 2) ** 2 @ mean).sum()
    np.testing.assert_allclose(found["imatrix_error"], wanted, rtol=1e-9)
    assert np.isnan(found["moment_error"])
    assert np.isnan(found["output_power"])
