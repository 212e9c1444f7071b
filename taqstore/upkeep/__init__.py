"""Whole stores: what they hold, whether they are whole, two made one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.upkeep.info import describe_group as describe_group
    from taqstore.upkeep.info import describe_store as describe_store
    from taqstore.upkeep.merge import merge as merge
    from taqstore.upkeep.verify import Finding as Finding
    from taqstore.upkeep.verify import Report as Report
    from taqstore.upkeep.verify import verify_store as verify_store

lazy_face(
    __name__,
    {
        "Finding": "taqstore.upkeep.verify",
        "Report": "taqstore.upkeep.verify",
        "describe_group": "taqstore.upkeep.info",
        "describe_store": "taqstore.upkeep.info",
        "merge": "taqstore.upkeep.merge",
        "verify_store": "taqstore.upkeep.verify",
    },
)
