"""What is chosen of a store, brought to another address and compared on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.transfer.choice import Choice as Choice
    from taqstore.transfer.pull import pull as pull

lazy_face(
    __name__,
    {
        "Choice": "taqstore.transfer.choice",
        "pull": "taqstore.transfer.pull",
    },
)
