"""MLX and DiffusionKit, imported once and late, with what has drifted apart put right.

DiffusionKit 0.5.2 pins an MLX that has no Linux wheel, and its imports touch `argmaxtools` and
torch (1.6 GB) for five names. Installed without its dependencies it runs on current MLX; the names
are stood in for where, and only where, the real ones are missing.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from types import ModuleType
from typing import Any

from taqstore.errors import TaqError, problem

from ..machine.blas import load_blas, used_blas
from ..machine.place import memory_bytes

INSTALL = (
    "pip install 'taqstore[models]' and pip install --no-deps diffusionkit==0.5.2 "
    "(reading and analysing a store needs neither)"
)
LIBRARIES = ("mlx", "diffusionkit", "transformers", "huggingface_hub")
# MLX's streams are of the thread that makes them.
_STREAMS = threading.local()
# M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of malloc.h, in bytes.
_GLIBC_OPTIONS = {-1: 128 << 20, -2: 16 << 20, -3: 32 << 20}


@dataclass(frozen=True)
class Backend:
    """The modules a model needs: `mlx.core`, `mlx.utils`, `diffusionkit.mlx` and its `model_io`."""

    mx: Any
    utils: Any
    pipelines: Any
    model_io: Any


def _keep_freed_memory(mallopt: Any) -> None:
    """Let glibc keep up to 128 MB between forwards.

    It would hand back what the statistics of a forward free, and take it again page by page in the
    next: more than half of their time on a small model.
    """
    for parameter, size in _GLIBC_OPTIONS.items():
        mallopt(parameter, size)


@cache
def backend() -> Backend:
    """Import MLX and DiffusionKit.

    Raises
    ------
    TaqError
        One of them is not installed; the message says what to install.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if sys.platform == "linux":
        if which("g++") is None:
            # MLX compiles GELU with it on a CPU; uncompiled, the result is the same to the bit.
            os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
        with suppress(AttributeError):
            _keep_freed_memory(ctypes.CDLL(None).mallopt)
    load_blas()
    try:
        mx, utils = import_module("mlx.core"), import_module("mlx.utils")
        stand_in_for_missing()
        pipelines = import_module("diffusionkit.mlx")
        model_io = import_module("diffusionkit.mlx.model_io")
    except ImportError as error:
        what = "running a model needs MLX and DiffusionKit"
        raise TaqError(problem(what, found=str(error), remedy=INSTALL)) from error
    used_blas()
    _tell_memory_size(mx)
    return Backend(mx, utils, pipelines, model_io)


def stand_in_for_missing() -> tuple[str, ...]:
    """Put stand-ins where `argmaxtools` or torch is missing; names of the modules stood in for.

    Exactly what DiffusionKit imports and calls: a logger, two base classes of a report on Apple
    hardware (never made here), and bytes in gigabytes.
    """
    stood_in = []
    if _missing("argmaxtools"):
        stood_in += [
            _stand_in("argmaxtools"),
            _stand_in("argmaxtools.utils", get_logger=logging.getLogger),
            _stand_in(
                "argmaxtools.test_utils",
                AppleSiliconContextMixin=type("AppleSiliconContextMixin", (), {}),
                InferenceContextSpec=type("InferenceContextSpec", (), {}),
            ),
        ]
    if _missing("torch"):
        stood_in.append(_stand_in("diffusionkit.utils", bytes2gigabytes=lambda n: n / 1024**3))
    return tuple(stood_in)


def _missing(name: str) -> bool:
    # What is already imported, a stand-in included, may have no spec to be found by.
    return name not in sys.modules and find_spec(name) is None


def _stand_in(name: str, **attributes: Any) -> str:
    module = ModuleType(name, "Stand-in: the real module is not installed.")
    vars(module).update(attributes)
    sys.modules[name] = module
    return name


def beside() -> Any:
    """A stream for work that need not wait for a model: on a CPU a thread, else the default one.

    MLX does what one stream is given on one thread, and a pass leaves other cores idle between
    its products.
    """
    mx = backend().mx
    if mx.default_device().type != mx.DeviceType.cpu:
        return mx.default_stream(mx.default_device())
    if not hasattr(_STREAMS, "beside"):
        _STREAMS.beside = mx.new_stream(mx.default_device())
    return _STREAMS.beside


def _tell_memory_size(mx: Any) -> None:
    """Let DiffusionKit's T5 ask for the memory size where there is no Apple GPU to tell it."""
    if mx.metal.is_available():
        return
    size = memory_bytes()
    mx.metal.device_info = lambda: {"memory_size": size}
