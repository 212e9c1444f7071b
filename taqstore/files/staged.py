"""Outputs that appear whole or not at all: a file, or a folder.

Everything is made in `.NAME.partial` beside the output NAME and renamed at the end. Such a folder
is locked by the process that makes it: what a killed one left behind is taken up by the next writer
of that output, which first puts an old output back that was already set aside. An output with a URL
is made in the folder of temporary files, and sent.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from taqstore.errors import TaqError, problem
from taqstore.files.remote import Place, RemotePath, sent_file, sent_folder
from taqstore.files.targets import check_target

# Entries of a `.NAME.partial`: its lock, what is being made, the old output, and that once it has
# been replaced (another name, so that half of a deleted output is never put back).
_LOCK, _NEW, _OLD, _DONE = "lock", "new", "old", "replaced"
# renameat2(2): paths as they are, and RENAME_EXCHANGE. renamex_np(2): RENAME_SWAP.
_AT_FDCWD, _EXCHANGE, _SWAP = -100, 2, 2
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


_log = logging.getLogger(__name__)


@contextmanager
def whole_file(out: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Hand out the path of a file to make; it becomes `out` at the end, flushed to disk.

    The path has the name of `out`, in a folder of its own. After an error, or a kill, `out` is as
    it was.

    Parameters
    ----------
    out
        The target; its folder is made where it is missing.
    force
        Replace a file that stands there. Folders are never replaced by a file.

    Raises
    ------
    TaqError
        The target exists and `force` is false, is no file, or has to do with a store; another
        process writes it; the disk refuses.
    """
    target = check_target(out)
    if isinstance(target, RemotePath):
        with sent_file(Place.of(target), force=force) as fresh:
            yield fresh
        return
    with _staged(target, force, _refuse_folder) as fresh:
        yield fresh
        _flush(fresh)


def check_file(out: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse a target before the work is done that `whole_file` would refuse after it."""
    target = check_target(out)
    if isinstance(target, RemotePath):
        Place.of(target).check_file(force=force)
        return
    _check_standing(target, force, _refuse_folder)


@contextmanager
def whole_folder(
    out: str | os.PathLike[str], *, content: Sequence[str], force: bool = False
) -> Iterator[Path]:
    """Hand out the path of a folder to make; it becomes `out` at the end.

    Parameters
    ----------
    out
        The target; the folder around it is made where it is missing.
    content
        Patterns of the files that such an output holds, relative to it. The first is the file by
        which it is known.
    force
        Replace an earlier output of the same kind: a folder that holds the first of `content`, and
        nothing else than `content`; or an empty folder.

    Raises
    ------
    TaqError
        As by `whole_file`; or the folder that stands there is not such an output.
    """
    target = check_target(out)
    if isinstance(target, RemotePath):
        with sent_folder(Place.of(target), content=content, force=force) as fresh:
            yield fresh
        return

    def refuse(standing: Path) -> None:
        _refuse_foreign(standing, content)

    with _staged(target, force, refuse) as fresh:
        yield fresh


@contextmanager
def _staged(out: Path, force: bool, refuse: Callable[[Path], None]) -> Iterator[Path]:
    try:
        _check_standing(out, force, refuse)
        out.parent.mkdir(parents=True, exist_ok=True)
        with _work_folder(out) as work:
            _check_standing(out, force, refuse)
            (work / _NEW).mkdir()
            fresh = work / _NEW / out.name
            yield fresh
            _check_standing(out, force, refuse)
            _put_in_place(fresh, out, work)
            _log.debug("wrote %s whole", out)
    except OSError as error:
        what = f"cannot write: {error.strerror or error}"
        raise TaqError(
            problem(what, where=str(error.filename or out), remedy="nothing was changed there")
        ) from error


def _check_standing(out: Path, force: bool, refuse: Callable[[Path], None]) -> None:
    if not os.path.lexists(out):
        return
    if not force:
        raise TaqError(
            problem(
                "the target exists",
                where=str(out),
                remedy="choose another path, or replace it with --force",
            )
        )
    if not out.is_symlink():  # a link is replaced, not followed
        refuse(out)


def _refuse_folder(standing: Path) -> None:
    if not standing.is_file():
        what = "not a file, so it is not replaced by one"
        raise TaqError(problem(what, where=str(standing), remedy="choose another path"))


def _refuse_foreign(standing: Path, content: Sequence[str]) -> None:
    if not standing.is_dir():
        what = "not a folder, so it is not replaced by one"
        raise TaqError(problem(what, where=str(standing), remedy="choose another path"))
    files = list(_files(standing))
    foreign = [f for f in files if not any(fnmatchcase(f, pattern) for pattern in content)]
    if foreign or (files and content[0] not in files):
        found = min(foreign, default=f"no {content[0]}")
        what = "not an earlier output of this kind, so it is not replaced"
        raise TaqError(
            problem(what, where=str(standing), found=found, remedy="choose another path")
        )


def _files(folder: Path) -> Iterator[str]:
    """All that is no folder in a folder, relative to it; what cannot be listed is an error."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*names, *links):
            yield Path(place, name).relative_to(folder).as_posix()


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """`.NAME.partial`, ours alone and empty; it is gone afterwards."""
    work = out.with_name(f".{out.name}.partial")
    work.mkdir(exist_ok=True)
    foreign = set(os.listdir(work)) - {_LOCK, _NEW, _OLD, _DONE}
    if foreign:
        what = "in the way of an output, and not left behind by one"
        raise TaqError(problem(what, where=str(work), found=min(foreign), remedy="move it away"))
    with _locked(work / _LOCK, out):
        try:
            _take_up(work, out)
            yield work
        finally:
            _take_up(work, out)
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _locked(path: Path, out: Path) -> Iterator[None]:
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        what, remedy = "another process is writing this output", "wait for it"
        raise TaqError(problem(what, where=str(out), remedy=remedy)) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def _take_up(work: Path, out: Path) -> None:
    """Undo what was cut short: an old output goes back to its place, the rest away."""
    if os.path.lexists(work / _OLD) and not os.path.lexists(out):
        (work / _OLD).rename(out)
    for path in (work / _NEW, work / _OLD, work / _DONE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _put_in_place(fresh: Path, out: Path, work: Path) -> None:
    """Rename `fresh` to `out`; a folder that stands there changes places with it.

    Where the system cannot do that, what stands is set aside first; a kill between the two renames
    leaves it there, and the next writer puts it back.
    """
    aside = fresh.is_dir() and os.path.lexists(out)
    if aside and _exchange(fresh, out):
        return
    if aside:
        out.rename(work / _OLD)
    fresh.replace(out)
    if aside:
        (work / _OLD).rename(work / _DONE)


def _exchange(first: Path, second: Path) -> bool:
    """Let both, which have to be there, change places; False where that cannot be done.

    Renaming a folder over another takes two renames and a moment without either. The kernel has one
    call for it, which Python has not.
    """
    here, there = os.fsencode(first), os.fsencode(second)
    system = ctypes.CDLL(None)
    if hasattr(system, "renameat2"):
        return bool(system.renameat2(_AT_FDCWD, here, _AT_FDCWD, there, _EXCHANGE) == 0)
    if hasattr(system, "renamex_np"):
        return bool(system.renamex_np(here, there, _SWAP) == 0)
    return False


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
