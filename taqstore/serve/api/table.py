"""The endpoints below `/api`: `ENDPOINTS` is the only list of them."""

from __future__ import annotations

from taqstore.serve.api import about, analyses, comparing, downloads, pictures, slices
from taqstore.serve.http.endpoint import Endpoint
from taqstore.serve.views import (
    apart,
    compare,
    gates,
    latents,
    layer,
    trajectory,
    weights,
)
from taqstore.serve.views import map as map_view
from taqstore.serve.views.plan import groups, measured, widths

_VIEWS = "taqstore.serve.views"

VIEWS: tuple[Endpoint, ...] = (
    Endpoint(
        "/stores/{store}/summary",
        "What a store has for the explorer.",
        f"{_VIEWS}.summary:summary",
    ),
    Endpoint(
        "/stores/{store}/map",
        "One number of every step and linear.",
        f"{_VIEWS}.map:quantity_map",
        options=map_view.OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/layer",
        "Histogram of one linear's input, and the range and price of every rule.",
        f"{_VIEWS}.layer:layer",
        options=layer.OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/price",
        "Error, SQNR and clipped share of any rule or bounds for one linear.",
        f"{_VIEWS}.layer:price",
        options=layer.PRICE_OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/trajectory",
        "Bounds of one linear over the steps, fits of these, groups of steps.",
        f"{_VIEWS}.trajectory:trajectory",
        options=trajectory.OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/channels",
        "Channels of one linear's input, the widest first.",
        f"{_VIEWS}.apart:channels",
        options=apart.CHANNEL_OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/images",
        "Extrema of one linear's input, of every image by itself.",
        f"{_VIEWS}.apart:images",
        options=apart.IMAGE_OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/compare",
        "One number of two stores, or of two subsets of images, and its ratio.",
        f"{_VIEWS}.compare:compare",
        options=compare.OPTIONS,
    ),
)

PLANS: tuple[Endpoint, ...] = (
    Endpoint(
        "/stores/{store}/plan/widths",
        "Best bit widths under a budget of average bits, beside one width for all.",
        f"{_VIEWS}.plan.widths:width_plan",
        options=widths.OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/plan/groups",
        "Groups of steps cut by hand, beside the best of as many.",
        f"{_VIEWS}.plan.groups:group_plan",
        options=groups.OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/plan/measured",
        "What a store holds of measured costs: sensitivities, trajectories of variants.",
        f"{_VIEWS}.plan.measured:stored",
    ),
    Endpoint(
        "/stores/{store}/plan/frontier",
        "The best format for every linear under a budget, by measured sensitivities.",
        f"{_VIEWS}.plan.measured:frontier_plan",
        options=measured.FRONTIER,
    ),
    Endpoint(
        "/stores/{store}/plan/policy",
        "Which first and last steps to protect, by what each step does.",
        f"{_VIEWS}.plan.measured:policy_plan",
        options=measured.POLICY,
    ),
)
"""What the explorer's plan is moved by."""

LOOKS: tuple[Endpoint, ...] = (
    Endpoint(
        "/stores/{store}/latents",
        "Images, steps and prompts of latents, and the map that shows them as colours.",
        f"{_VIEWS}.latents:sheet",
        options=latents.SHEET,
    ),
    Endpoint(
        "/stores/{store}/latents/strip",
        "All steps of one image side by side, a PNG.",
        f"{_VIEWS}.latents:strip",
        "file",
        options=latents.STRIP,
    ),
    Endpoint(
        "/stores/{store}/latents/picture",
        "One latent as colours, or the stored picture of an image, a PNG.",
        f"{_VIEWS}.latents:picture",
        "file",
        options=latents.ONE,
    ),
)
"""Latents and pictures."""

WEIGHT_SETS: tuple[Endpoint, ...] = (
    Endpoint(
        "/stores/{store}/weights",
        "Weight sets of a store.",
        f"{_VIEWS}.weights:sets",
    ),
    Endpoint(
        "/stores/{store}/weights/linears",
        "Linears of a weight set, and what is left of the error of rounding to nearest.",
        f"{_VIEWS}.weights:linears",
        options=(weights.SET,),
    ),
    Endpoint(
        "/stores/{store}/weights/changes",
        "Shares of integers that rounding changed, by linear and block.",
        f"{_VIEWS}.weights:changes",
        options=(weights.SET, weights.BLOCK, weights.OTHER),
    ),
    Endpoint(
        "/stores/{store}/weights/blocks",
        "Errors of blocks that AdaRound left, beside simpler roundings.",
        f"{_VIEWS}.weights:blocks",
        options=(weights.SET,),
    ),
    Endpoint(
        "/stores/{store}/gates",
        "Variants beside the model as it is, by step, and whether they pass.",
        f"{_VIEWS}.gates:gates",
        options=gates.OPTIONS,
    ),
)
"""Weight sets, and how variants are judged."""

LIBRARY: tuple[Endpoint, ...] = (
    *about.endpoints(),
    *slices.endpoints(),
    *analyses.endpoints(),
    *comparing.endpoints(),
    *downloads.endpoints(),
    *pictures.endpoints(),
)
"""What the command line can do, made from the tables that its commands are made from."""

ENDPOINTS: tuple[Endpoint, ...] = (*VIEWS, *PLANS, *LOOKS, *WEIGHT_SETS, *LIBRARY)
