"""`images/IIII.png` of a run folder: the pictures of its images, where it kept them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from taqstore.errors import SourceError
from taqstore.files.png import picture_shape, read_picture
from taqstore.files.refusal import problem
from taqstore.kinds.templates import pictures_template
from taqstore.layout.template import Template
from taqstore.names import PICTURES

from .json_fields import majority
from .plan import Problem, Put, Unit

FOLDER = "images"
_NAME = re.compile(r"\d{4,9}\.png")


@dataclass(frozen=True)
class PicturePart:
    """Part that reads one picture."""

    path: Path
    position: int
    shape: tuple[int, ...]

    def __call__(self, put: Put) -> list[Problem]:
        """Write it; SourceError if it is damaged or not of the run's size."""
        pixels = read_picture(self.path)
        if pixels.shape != self.shape:
            what = f"not {self.shape}, as most pictures of the run are"
            raise SourceError(problem(what, where=str(self.path), found=str(pixels.shape)))
        put(PICTURES, "picture", (self.position, 0, 0, 0), pixels[None])
        return []


@dataclass(frozen=True)
class Pictures:
    """What a plan has of pictures: its group, a unit for each, what is wrong with others."""

    templates: tuple[Template, ...] = ()
    units: tuple[Unit, ...] = ()
    problems: tuple[Problem, ...] = ()
    strays: tuple[str, ...] = ()


def pictures(folder: Path, images: Sequence[int]) -> Pictures:
    """Pictures of the images of a run folder; one that cannot be read is refused alone."""
    strays = _strays(folder / FOLDER, images)
    shapes: dict[int, tuple[int, int, int]] = {}
    found: list[Problem] = []
    for position, image in enumerate(images):
        path = picture_path(folder, image)
        if not path.is_file():
            continue
        try:
            shapes[position] = picture_shape(path)
        except SourceError as error:
            found.append(Problem(str(error), PICTURES, (position,)))
    if not shapes:
        # No group is made that a problem could name an item of.
        return Pictures(problems=tuple(Problem(e.text) for e in found), strays=strays)
    shape = majority(shapes.values())
    units = tuple(
        Unit(
            label=f"picture {images[position]}",
            items={PICTURES: ((position,),)},
            nbytes=picture_path(folder, images[position]).stat().st_size,
            parts=(PicturePart(picture_path(folder, images[position]), position, shape),),
        )
        for position in shapes
    )
    template = pictures_template(images=images, shape=shape, attrs={})
    return Pictures((template,), units, tuple(found), strays)


def picture_path(folder: Path, image: int) -> Path:
    """Where the picture of an image is."""
    return folder / FOLDER / f"{image:04d}.png"


def _strays(folder: Path, images: Sequence[int]) -> tuple[str, ...]:
    """Names of pictures of images that the run does not have."""
    own = {f"{image:04d}.png" for image in images}
    names = sorted(path.name for path in folder.glob("*.png")) if folder.is_dir() else []
    return tuple(name for name in names if name not in own and _NAME.fullmatch(name))
