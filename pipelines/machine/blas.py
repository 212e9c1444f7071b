"""The BLAS that MLX multiplies float32 matrices with on a CPU.

MLX's wheel for Linux carries the reference BLAS, which is ten times slower than OpenBLAS and more.
Functions of a library that is loaded first, for all to see, take the place of those that a later
one brings; so OpenBLAS is loaded before MLX is imported. The wheel `scipy-openblas32` calls its
functions `scipy_cblas_sgemm` and so on: a copy in memory has the three that MLX asks for renamed by
`patchelf`, in 60 ms; nothing is written to a disk, and nothing is left behind by a kill.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from taqstore.asked import word_of

WHEEL = "scipy-openblas32"
CHOICE = "TAQSTORE_BLAS"
"""Variable of the environment: `wheel`, `system` or `mlx` alone is tried, in place of all."""

REMEDY = "pip install 'taqstore[models]', or the system's OpenBLAS (Debian: libopenblas0)"
_SYMBOLS = tuple(f"cblas_{kind}gemm" for kind in "sdc")  # all that libmlx.so has of CBLAS
_SYSTEM = "libopenblas.so.0"
_COUNTS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
# Multiplications of a matrix product below which one thread makes it. Two threads took 11.6 ms for
# a forward of the reference model (2^21 of them) and one 9.4, beside other work 30 and 15; at 2^24
# two threads take 0.6 of the time of one.
_ALONE = 1 << 22
_PATIENCE = "OPENBLAS_THREAD_TIMEOUT"  # 2^n cycles, 4 to 30
_OWN = "the reference BLAS that it brings"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Blas:
    """What MLX multiplies with.

    Parameters
    ----------
    name
        Such as `OpenBLAS 0.3.34 of scipy-openblas32`.
    remedy
        What to install for a faster one; empty where there is nothing to gain.
    """

    name: str
    remedy: str = ""


@cache
def load_blas() -> Blas:
    """Load OpenBLAS, where there is one, so that MLX takes it; call it before MLX is imported.

    Raises
    ------
    MisuseError
        `TAQSTORE_BLAS` is no choice.
    """
    if sys.platform != "linux":
        return Blas("Accelerate" if sys.platform == "darwin" else "MLX's own")
    chosen = os.environ.get(CHOICE)
    if chosen:
        word_of(chosen, (*_WAYS, "mlx"), CHOICE)
    if _is_loaded():
        return Blas("one that was loaded before (LD_PRELOAD)")
    if "mlx.core" in sys.modules:
        return Blas(_OWN, "MLX was imported before it was asked for: import it later")
    ways = [load for name, load in _WAYS.items() if chosen in (None, "", name)]
    return next((blas for load in ways if (blas := load())), Blas(_OWN, REMEDY))


def used_blas() -> Blas:
    """What MLX multiplies with; says once, as a warning of the log, that it could be faster."""
    blas = load_blas()
    if blas.remedy and os.environ.get(CHOICE) != "mlx":
        _warn_once(
            f"MLX multiplies with {blas.name}, many times slower than OpenBLAS: {blas.remedy}"
        )
    return blas


@cache
def _warn_once(text: str) -> None:
    _log.warning(text)


def _is_loaded() -> bool:
    return all(hasattr(ctypes.CDLL(None), name) for name in _SYMBOLS)


def _of_the_wheel() -> Blas | None:
    spec, patchelf = find_spec(WHEEL.replace("-", "_")), _patchelf()
    libraries = [] if spec is None or spec.origin is None else _libraries(Path(spec.origin).parent)
    if len(libraries) != 1 or patchelf is None:
        return None
    try:
        _load_renamed(libraries[0], patchelf)
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("%s could not be loaded: %s", WHEEL, error)
        return None
    return Blas(f"OpenBLAS {version(WHEEL)} of {WHEEL}") if _is_loaded() else None


def _libraries(package: Path) -> list[Path]:
    return sorted((package / "lib").glob("libscipy_openblas*.so"))


def _patchelf() -> str | None:
    """The program beside this Python, where pip puts it whether or not it is on the PATH."""
    return which("patchelf", path=sysconfig.get_path("scripts")) or which("patchelf")


def _load_renamed(library: Path, patchelf: str) -> None:
    copy = os.memfd_create("openblas")
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as names:
            names.write("".join(f"scipy_{name} {name}\n" for name in _SYMBOLS))
            names.flush()
            # The folder of our own process: that of patchelf has other files under this number.
            written = f"/proc/{os.getpid()}/fd/{copy}"
            words = ["--rename-dynamic-symbols", names.name, "--output", written, str(library)]
            subprocess.run([patchelf, *words], check=True, capture_output=True, timeout=60)
        _open(f"/proc/self/fd/{copy}")
    finally:
        os.close(copy)


def _open(library: str) -> ctypes.CDLL:
    """Open a library for all to see; its threads sleep soon while they wait.

    By default they turn for 20 ms, and then, on a machine with other work, a forward of the
    reference model took 300 ms where it takes 30.
    """
    before = os.environ.get(_PATIENCE)
    os.environ[_PATIENCE] = before or "4"
    try:
        return ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    finally:
        if before is None:
            del os.environ[_PATIENCE]


def _of_the_system() -> Blas | None:
    with suppress(OSError):
        library = _open(_SYSTEM)
        config = library.openblas_get_config
        config.restype = ctypes.c_char_p
        return Blas(" ".join(config().decode("ascii", "replace").split()[:2]) + " of the system")
    return None


def share_products(size: int) -> None:
    """Let matrix products be made by one thread where they are small, by all elsewhere.

    It holds for the process, until the next call; nothing is changed where the environment says how
    many threads there are, or where it is another BLAS.

    Parameters
    ----------
    size
        Multiplications of the largest product that is usual.
    """
    if any(name in os.environ for name in _COUNTS) or (found := _threads()) is None:
        return
    put, every = found
    put(1 if is_alone(size) else every)


def is_alone(size: int) -> bool:
    """Whether a product of so many multiplications is made by one thread."""
    return size < _ALONE


@cache
def _threads() -> tuple[Callable[[int], None], int] | None:
    """How the number of OpenBLAS's threads is set, and the one it began with."""
    loaded = ctypes.CDLL(None)
    for prefix in ("scipy_openblas", "openblas"):
        with suppress(AttributeError):
            return (
                getattr(loaded, f"{prefix}_set_num_threads"),
                int(getattr(loaded, f"{prefix}_get_num_threads")()),
            )
    return None


_WAYS: dict[str, Callable[[], Blas | None]] = {"wheel": _of_the_wheel, "system": _of_the_system}
