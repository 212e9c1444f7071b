"""A store asked: slices, reductions, analyses site by site, two stores compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.query.activation_start import activation_start as activation_start
    from taqstore.query.analyze import analyze as analyze
    from taqstore.query.analyze import site_tables as site_tables
    from taqstore.query.analyze import write_results as write_results
    from taqstore.query.diff import diff as diff
    from taqstore.query.diff import movers as movers
    from taqstore.query.reduction import reduce as reduce
    from taqstore.query.select import select as select

lazy_face(
    __name__,
    {
        "activation_start": "taqstore.query.activation_start",
        "analyze": "taqstore.query.analyze",
        "diff": "taqstore.query.diff",
        "movers": "taqstore.query.diff",
        "reduce": "taqstore.query.reduction",
        "select": "taqstore.query.select",
        "site_tables": "taqstore.query.analyze",
        "write_results": "taqstore.query.analyze",
    },
)
