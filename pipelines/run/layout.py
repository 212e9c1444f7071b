"""Groups that are made and not filled yet: what `taqstore plan` says of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from taqstore.layout.item_bytes import item_bytes, numbers_of
from taqstore.run.plan import Plan
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import StoreWriter

from .space import free_bytes


def laid_out(
    writer: StoreWriter,
    groups: Mapping[str, GroupWriter],
    *,
    unit: str,
    amount: int,
    seen: Mapping[str, np.ndarray] | None = None,
) -> Plan:
    """Items and bytes that are to come in these groups; how well they compress is not known.

    Parameters
    ----------
    unit, amount
        As of `Plan`: what is left to do.
    seen
        Masks of the items that there will be, of groups that leave some out.
    """
    plan = Plan(free=free_bytes(writer.location), unit=unit, amount=amount, made=True)
    for path, group in groups.items():
        template, done = group.template, group.written()
        missing = ~done & (seen or {}).get(path, np.True_)
        counts, numbers = plan.group(path), numbers_of(template, missing)
        counts.to_write, counts.done = int(missing.sum()), int(done.sum())
        counts.bytes = sum(sum(item_bytes(template, n, {}).values()) for n in numbers)
        if numbers and any(array.compress for array in template.arrays):
            plan.at_most.add(path)
    return plan
