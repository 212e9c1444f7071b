"""How large an answer may be; what is larger is refused before it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from taqstore.errors import problem
from taqstore.serve.http.problems import TooLargeError

if TYPE_CHECKING:
    import xarray as xr

MOST_ROWS = 250_000
"""Of all tables of an answer; 4 sites of 24 blocks at 28 steps have 10 000."""
MOST_READ = 1 << 30
"""Bytes of groups, in memory, that a copy of them as files may have."""
MOST_WRITTEN = 512 << 20
"""Bytes of a download."""
NARROW = "narrow it with site, layer or step, or use the command line"


def check_rows(results: Iterable[xr.Dataset]) -> None:
    """Refuse results whose tables would have more than `MOST_ROWS` rows, by a TooLargeError."""
    found = sum(rows for result in results for rows in _rows(result))
    if found > MOST_ROWS:
        what = f"tables of {found} rows are too large (at most {MOST_ROWS})"
        raise TooLargeError(problem(what, remedy=NARROW))


def _rows(result: xr.Dataset) -> Iterator[int]:
    """Of each table: variables of the same dimensions make one."""
    kinds = {frozenset(array.dims) for array in result.data_vars.values()}
    return (prod(result.sizes[dim] for dim in dims) for dims in kinds)


class Bounded(Mapping[str, "xr.Dataset"]):
    """Groups that may be read as long as all that are together stay below a bound.

    Raises
    ------
    TooLargeError
        When one is asked for that is too much.
    """

    def __init__(self, groups: Mapping[str, xr.Dataset], most: int = MOST_READ) -> None:
        self._groups, self._most = groups, most
        self._read: dict[str, int] = {}
        self.location = getattr(groups, "location", None)

    def __getitem__(self, path: str) -> xr.Dataset:
        found = self._groups[path]
        self._read[path] = found.nbytes
        total = sum(self._read.values())
        if total > self._most:
            what = f"{path}: groups of {total >> 20} MiB are too much to hand out"
            remedy = "export them on the command line, or read /zarr"
            raise TooLargeError(problem(what, found=f"{self._most >> 20} MiB", remedy=remedy))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)
