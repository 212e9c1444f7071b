"""Where a store may lie: how its address begins, and what it takes to be there."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from taqstore.asked import nearest
from taqstore.errors import MisuseError, problem


@dataclass(frozen=True)
class Scheme:
    """A kind of place.

    Parameters
    ----------
    names
        What addresses begin with, before `://`.
    place
        What it is.
    example
        An address.
    needs
        Name of the package that reaches it; empty where none beyond taqstore's own does.
    writes
        Whether anybody may write there. What a place promises to writers is told by docs/places.md.
    """

    names: tuple[str, ...]
    place: str
    example: str
    needs: str = ""
    writes: bool = True


S3 = Scheme(
    ("s3", "s3a"), "S3, and what speaks its protocol", "s3://bucket/runs/run.zarr", "obstore"
)
GOOGLE = Scheme(("gs", "gcs"), "Google Cloud Storage", "gs://bucket/run.zarr", "obstore")
AZURE = Scheme(
    ("az", "azure", "abfs", "abfss", "adl"),
    "Azure Blob Storage",
    "az://container/run.zarr",
    "obstore",
)
FOLDER = Scheme(("file", "local"), "a folder of this machine", "file:///data/run.zarr")
MEMORY = Scheme(("memory",), "memory of this process", "memory://run.zarr")
WEB = Scheme(
    ("http", "https"),
    "a web server that lists its folders",
    "https://host/run.zarr",
    "aiohttp",
    writes=False,
)
HUB = Scheme(
    ("hf",),
    "the Hugging Face Hub",
    "hf://datasets/name/repository/run.zarr",
    "huggingface_hub",
    writes=False,
)

SCHEMES = (FOLDER, S3, GOOGLE, AZURE, MEMORY, WEB, HUB)
"""Places that are known by name. Others that fsspec knows admit one writer."""
BUCKETS = frozenset(name for row in (S3, GOOGLE, AZURE) for name in row.names)
"""Names of object stores."""
# Of fsspec, whose files are not changed: trying it would spoil an archive.
_ARCHIVES = ("zip", "tar", "libarchive", "github", "git", "reference")
EXTRA = "pip install 'taqstore[remote]'"
"""How what these need is installed."""


def is_read_only(url: str) -> bool:
    """Whether nobody may write there: a place that is only read, or a file system that is."""
    names = scheme_name(url).split("::")
    known = {name for row in SCHEMES if not row.writes for name in row.names}
    return not {*known, *_ARCHIVES}.isdisjoint(names)


def scheme_name(url: str) -> str:
    """What a URL begins with."""
    return url.partition("://")[0].lower()


def scheme_of(url: str) -> Scheme | None:
    """The kind of place of a URL; None where fsspec alone may know it.

    Raises
    ------
    MisuseError
        Nobody knows it, or the URL holds a password.
    """
    parts = urlsplit(url)
    if parts.password is not None or (parts.username and parts.scheme in ("http", "https")):
        what, remedy = "an address with a password", "give it as a storage option"
        where = f"{parts.scheme}://...@{parts.hostname}"
        raise MisuseError(problem(what, where=where, remedy=remedy))
    name = scheme_name(url)
    found = next((row for row in SCHEMES if name in row.names), None)
    if found is None:
        from fsspec.registry import known_implementations, registry

        # Chains (`zip::s3://`) are left to fsspec.
        if "::" not in name and name not in {*known_implementations, *registry}:
            known = [word for row in SCHEMES for word in row.names]
            near = nearest(name, known)
            remedy = f"did you mean {near}://?" if near else f"there is {', '.join(known)}"
            what = f"no kind of place is called {name!r}"
            raise MisuseError(problem(what, where=url, remedy=remedy))
    return found
