"""The endpoints below `/api`: `ENDPOINTS` is the only list of them."""

from __future__ import annotations

from taqstore.serve.api import about, analyses, downloads, pictures, slices
from taqstore.serve.http.endpoint import Endpoint
from taqstore.serve.views import map as map_view
from taqstore.serve.views import plan_groups, plan_measured, plan_widths

_VIEWS = "taqstore.serve.views"

VIEWS: tuple[Endpoint, ...] = (
    Endpoint(
        "/stores/{store}/map",
        "One number of every step and linear.",
        f"{_VIEWS}.map:quantity_map",
        options=map_view.OPTIONS,
    ),
)

PLANS: tuple[Endpoint, ...] = (
    Endpoint(
        "/stores/{store}/plan/widths",
        "Best bit widths under a budget of average bits, beside one width for all.",
        f"{_VIEWS}.plan_widths:width_plan",
        options=plan_widths.OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/plan/groups",
        "Groups of steps cut by hand, beside the best of as many.",
        f"{_VIEWS}.plan_groups:group_plan",
        options=plan_groups.OPTIONS,
    ),
    Endpoint(
        "/stores/{store}/plan/measured",
        "What a store holds of measured costs: sensitivities, trajectories of variants.",
        f"{_VIEWS}.plan_measured:stored",
    ),
    Endpoint(
        "/stores/{store}/plan/frontier",
        "The best format for every linear under a budget, by measured sensitivities.",
        f"{_VIEWS}.plan_measured:frontier_plan",
        options=plan_measured.FRONTIER,
    ),
    Endpoint(
        "/stores/{store}/plan/policy",
        "Which first and last steps to protect, by what each step does.",
        f"{_VIEWS}.plan_measured:policy_plan",
        options=plan_measured.POLICY,
    ),
)
"""What the explorer's plan is moved by."""

LIBRARY: tuple[Endpoint, ...] = (
    *about.endpoints(),
    *slices.endpoints(),
    *analyses.endpoints(),
    *downloads.endpoints(),
    *pictures.endpoints(),
)
"""What the command line can do, made from the tables that its commands are made from."""

ENDPOINTS: tuple[Endpoint, ...] = (*VIEWS, *PLANS, *LIBRARY)
