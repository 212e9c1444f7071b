"""The model that an export of weights completes: its tensors, whatever a set does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from taqstore.errors import LayoutError, MissingError, problem
from taqstore.files.safetensors import Later


@dataclass(frozen=True)
class Base:
    """Tensors of a model, by name.

    Parameters
    ----------
    tensors
        Under the names and in the layout of the format that is written; those that are read late
        are in memory one at a time.
    model
        What `--model` calls it; empty where it is not known.
    digest
        SHA-256 of the file they come from; empty where that is not known.
    """

    tensors: Mapping[str, np.ndarray | Later] = field(default_factory=dict)
    model: str = ""
    digest: str = ""

    @property
    def half_bytes(self) -> int:
        """Bytes of all tensors in float16: what sizes are compared with."""
        return sum(2 * prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def weights(self) -> int:
        """Weights of all tensors that are no vectors."""
        return sum(prod(t.shape) for t in self.tensors.values() if len(t.shape) > 1)

    def check_weight(self, name: str, shape: tuple[int, int], *, linear: str) -> tuple[int, ...]:
        """The shape that a weight of a linear has here, whose rows are `shape` as a matrix.

        Raises
        ------
        MissingError
            There is no such tensor.
        LayoutError
            It is of another shape.
        """
        if name not in self.tensors:
            what = f"the model has no {name}, which {linear} of the store is"
            raise MissingError(problem(what, remedy="give the checkpoint of its model with --base"))
        found = tuple(self.tensors[name].shape)
        if (found[0], prod(found[1:])) != shape:
            what = f"{linear} does not fit the model"
            raise LayoutError(problem(what, found=f"{shape} for {found}"))
        return found


def array_of(tensor: np.ndarray | Later) -> np.ndarray:
    """The values of a tensor, read now."""
    return tensor.make() if isinstance(tensor, Later) else tensor
