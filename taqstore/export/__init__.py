"""Documents and files in the formats of other tools; `formats` is the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.export.formats import FORMATS as FORMATS
    from taqstore.export.formats import Format as Format
    from taqstore.export.formats import export as export

lazy_face(
    __name__,
    {
        "FORMATS": "taqstore.export.formats",
        "Format": "taqstore.export.formats",
        "export": "taqstore.export.formats",
    },
)
