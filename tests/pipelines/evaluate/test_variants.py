"""Names of variants, and digits that are judged."""

from __future__ import annotations

import numpy as np
import pytest
from taqstore.pipelines.evaluate.variants import Variant

from support.live_capture import needs_models
from taqstore.errors import TaqError


@pytest.mark.parametrize(
    "name",
    [
        "float",
        "rtn",
        "clipped/a8-static",
        "adaround/a4-learned",
        "rtn/config",
        "float/a16-grouped-mse-shift",
    ],
)
def test_names_of_variants(name: str) -> None:
    assert Variant.parse(name).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8", "variant 'int8' is not known"),
        ("rtn/a8", "variant 'rtn/a8' is not known"),
        ("rtn/a8-learned", "learned steps go with adaround"),
        ("adaround/a8-learned-shift", "learned steps go with adaround"),
        ("rtn/a1-static", "inputs have 2 to 16 bits"),
    ],
)
def test_names_that_are_no_variants(name: str, message: str) -> None:
    with pytest.raises(TaqError, match=message):
        Variant.parse(name)


@needs_models
def test_digits_of_final_latents_are_judged() -> None:
    """Real digits as latents are read as the judge reads their pictures."""
    pytest.importorskip("sklearn")
    from taqstore.pipelines.models.reference.accuracy import prompted_share
    from taqstore.pipelines.models.reference.data import describe, real_digits
    from taqstore.pipelines.models.reference.judge import judge
    from taqstore.pipelines.models.reference.latent import encode, enlarge

    _, unseen = real_digits()
    pictures = enlarge(unseen.ink[:60])
    prompts = [describe(int(label)) for label in unseen.label[:60]]
    right = judge().read(pictures) == unseen.label[:60]
    latents = encode(pictures)
    assert prompted_share(latents, prompts) == right.mean() > 0.9
    assert prompted_share(latents[:3], ["a cat", prompts[1], "one or two"]) == right[1]
    assert np.isnan(prompted_share(latents[:1], ["a cat"]))
