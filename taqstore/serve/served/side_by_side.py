"""Groups asked on several cores: NumPy and the decoders let others work while they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from taqstore.run.dealing import cores

_Answer = TypeVar("_Answer")
# Each takes some memory besides its answer.
_MOST = 4


def side_by_side(ask: Callable[[str], _Answer], paths: Sequence[str]) -> Callable[[str], _Answer]:
    """Ask of every path, some at a time; what `ask` gave or raised is given or raised by path.

    Parameters
    ----------
    ask
        May come from several threads, and asks nothing of this function itself.
    paths
        What of; each once.
    """
    if len(paths) < 2 or cores() == 1:
        return ask
    with ThreadPoolExecutor(min(_MOST, cores(), len(paths)), "taqstore-sites") as pool:
        coming = {path: pool.submit(ask, path) for path in paths}
    return lambda path: coming[path].result()
