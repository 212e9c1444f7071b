"""`taqstore.open_store`: one store, or several read as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

from taqstore.errors import MisuseError, problem
from taqstore.place.location import Address
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store.reader import Store
from taqstore.store.reader import open_store as open_one
from taqstore.together.checks import Duplicates

Openable: TypeAlias = "Store | Address"


@takes_storage_options
def open_store(
    address: Openable | Sequence[Openable],
    *,
    chunks: Literal["late", "auto"] | None = "late",
    checksum: bool | None = None,
    incomplete: bool = False,
    groups: Sequence[str] = (),
    renumber: bool = False,
    duplicates: Duplicates = "refuse",
    storage_options: StorageOptions | None = None,
) -> Store:
    """Open a store for reading, or several as one.

    Parameters
    ----------
    address
        A path or URL (`file://`, `memory://`, any scheme fsspec knows). A store that is open
        already is not opened again, but read in the way asked for here. Of a list of addresses, all
        stores are read as `taqstore merge` would make them one: the same groups, images and
        answers. Nothing is copied, and what `merge` would refuse is refused. A group that one of
        them lacks is left out, and `notes` of the store says so.
    chunks
        ``"late"``: selections are read on use, without dask; analyses, figures, reports and exports
        put what they are given behind dask themselves, in blocks of 8 to 32 MB. ``"auto"``:
        Datasets are dask-backed at once, in blocks of whole files. ``None``: no dask, in analyses
        neither; selections are read on use, as views of memory-mapped files where the store is
        local.
    checksum
        Compare each chunk's crc32c when it is first read. Default: yes, but for the views of
        ``None`` (`verify` checks everything at once).
    incomplete
        Also show items whose flag is not set; they read as NaN or zero.
    groups, renumber, duplicates
        Of several stores, as of `taqstore.upkeep.merge`: groups to read (default: all that the
        stores have in common), whether to number each store's images after those before it, and
        what to do with an image that an earlier store has too.
    storage_options
        How buckets and servers are reached, by name, as obstore or fsspec calls it. Default: what
        the environment says.

    Raises
    ------
    StoreError
        There is no store there, or it is of a newer format.
    MissingError, LayoutError, TaqError
        Of several stores, as of `taqstore.upkeep.merge`.
    MisuseError
        A list of no address, or what is said of several stores of one.

    >>> import taqstore
    >>> from taqstore.testing import make_store
    >>> first, second = (make_store(f"run{seed}.zarr", seed=seed) for seed in (0, 1))
    >>> taqstore.open_store([first, second], renumber=True)["activations/mlp.fc2"].sizes["batch"]
    10
    """
    if not isinstance(address, list | tuple):
        if groups or renumber or duplicates != "refuse":
            what = "groups, renumber and duplicates are of several stores"
            raise MisuseError(problem(what, remedy="give a list of them"))
        one = cast("Openable", address)
        return open_one(one, chunks=chunks, checksum=checksum, incomplete=incomplete)
    if not address:
        raise MisuseError(problem("no store is named", found="an empty list"))
    check = chunks is not None if checksum is None else checksum
    from taqstore.together.joined_store import JoinedStore

    return JoinedStore(
        [open_one(each) for each in address],
        way=(chunks, check, incomplete),
        groups=groups,
        renumber=renumber,
        duplicates=duplicates,
    )
