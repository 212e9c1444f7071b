"""Activation quantizers of linears, started from what a store observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.rules import RULES, Rule
from taqstore.analysis.shared.inputs import POST_GELU_SITE
from taqstore.asked import whole_number, word_of, words_of
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.names import ACTIVATIONS, SITES, LayerName
from taqstore.query.activation_start import activation_start
from taqstore.store.reader import Store

from ..models.rounding import InputStart

ActivationRule = Literal["baseline", "timed"]


@dataclass(frozen=True)
class ActivationPlan:
    """How activation quantizers are made.

    Parameters
    ----------
    rule
        `baseline`: one step for each linear. `timed`: one for each linear and group of steps.
    groups
        Groups of steps, 1 with `baseline`.
    clip
        Rule of the first step, as of `analysis.scales`; shifted sites use absmax.
    shifted
        Sites whose channels are shifted first.

    Raises
    ------
    MisuseError
        Groups and rule do not go together, or a rule or site that there is not.
    """

    rule: ActivationRule = "baseline"
    groups: int = 1
    clip: Rule = "absmax"
    shifted: tuple[str, ...] = (POST_GELU_SITE,)

    def __post_init__(self) -> None:
        word_of(self.rule, get_args(ActivationRule), "rule")
        whole_number(self.groups, "groups", least=1)
        if (self.groups > 1) != (self.rule == "timed"):
            remedy = "baseline has 1 group, timed at least 2"
            what = f"rule {self.rule} cannot have {self.groups} groups"
            raise MisuseError(problem(what, remedy=remedy))
        word_of(self.clip, RULES, "activation clip")
        shifted: object = self.shifted
        if isinstance(shifted, str):
            what = "shifted must be a tuple of sites"
            raise MisuseError(problem(what, found=repr(shifted)))
        words_of(self.shifted, SITES, "site")


@dataclass(frozen=True)
class SiteInputs:
    """Activation quantizers of one site.

    Parameters
    ----------
    sigma_lower
        ``(time_group,)``, see `weight_templates.time_group_of`.
    found
        What `activation_start` gave, in memory; None: not quantized.
    """

    sigma_lower: np.ndarray
    found: xr.Dataset | None = None

    @property
    def shifted(self) -> bool:
        """Whether channels are shifted."""
        return self.found is not None and "shift" in self.found

    def start(self, name: LayerName) -> InputStart:
        """Where the quantizer of this linear's input starts.

        Raises
        ------
        MissingError
            The layer was not observed.
        """
        assert self.found is not None
        if name.layer not in self.found["layer"].values:
            raise _not_collected(name.full)
        layer = self.found.sel(layer=name.layer)
        step = layer["step_size"].values
        if np.isnan(step).any():
            raise _not_collected(f"{name.full} at some steps")
        # A tensor that was zero throughout has no step; any will do.
        known = np.where(step > 0, step, 1.0)
        return InputStart(known, layer["shift"].values if self.shifted else None)


def read_inputs(store: Store, plan: ActivationPlan, *, bits: int) -> dict[str, SiteInputs]:
    """Activation quantizers of every site; with 0 bits, none.

    Raises
    ------
    MissingError
        A site was not observed.
    TaqError
        As of `activation_start`.
    """
    if not bits:
        return {site: SiteInputs(np.zeros(1, np.float32)) for site in SITES}
    return {site: _read_site(store, site, plan, bits) for site in SITES}


def _read_site(store: Store, site: str, plan: ActivationPlan, bits: int) -> SiteInputs:
    path = f"{ACTIVATIONS}/{site}"
    if path not in store or not store[path].sizes["batch"]:
        raise _not_collected(path, where=str(store.location))
    shifted = site in plan.shifted
    found = activation_start(
        store[path],
        bits=bits,
        groups=plan.groups,
        clip="absmax" if shifted else plan.clip,
        shifted=shifted,
    ).compute()
    return SiteInputs(found["sigma_lower"].values, found)


def _not_collected(what: str, where: str = "") -> MissingError:
    remedy = "taqstore collect observes them; --activation-bits 0 leaves activations as they are"
    return MissingError(problem(f"no activations of {what}", where=where, remedy=remedy))
