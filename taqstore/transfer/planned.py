"""What a pull would write, told by records and templates: nothing is read but these."""

from __future__ import annotations

from taqstore.layout.item_bytes import numbers_of, shard_bytes
from taqstore.layout.item_records import Item
from taqstore.run.plan import Plan
from taqstore.store.planned import PlannedGroup
from taqstore.together.parts import Part
from taqstore.together.shards import Shards


def count_group(plan: Plan, group: PlannedGroup, part: Part) -> None:
    """Count the items of a group that would be brought, their files and bytes.

    Of files that stay whole, bytes are those that records tell; of others, those that the template
    gives, in which compressed variables count as large as they are.
    """
    template, done = part.template, group.written()
    counts, missing = plan.group(template.path), part.mask & ~done
    counts.to_write += len(numbers_of(template, missing))
    counts.done += len(numbers_of(template, part.mask & done))
    shards = Shards(part)
    numbers = sorted(numbers_of(template, missing))
    if numbers:
        counts.files += group.documents + len(numbers)
    for number in numbers:
        _count_item(plan, shards, number)


def _count_item(plan: Plan, shards: Shards, number: Item) -> None:
    template = shards.part.template
    counts = plan.group(template.path)
    for name, coords in shards.of(number):
        array = template.array(name)
        size = stored = shards.stored(name, coords)
        if stored and not shards.stays_whole(name):
            size = shard_bytes(template, array, coords)
            if array.compress:
                plan.at_most.add(template.path)
        counts.bytes += size
        counts.files += bool(size)
        plan.amount += stored
