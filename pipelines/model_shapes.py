"""How large the residual streams of models are, told without loading one: a row for each.

Also of models that taqstore does not run: what their calibration would take is asked first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from taqstore.asked import word_of
from taqstore.names import Block, model_blocks

# Pixels of a latent along each side, and latents of a token.
_VAE, _PATCH = 8, 2
# Frames of a latent of a video model, after the first.
_FRAMES = 4


@dataclass(frozen=True)
class ModelShape:
    """One model.

    Parameters
    ----------
    name, doc
        As of `ModelRow`.
    width
        Channels of the residual stream.
    multimodal, unified
        Blocks of each kind.
    text
        Tokens of text beside those of the image; 0: text is read by cross-attention.
    pooled
        Channels of the pooled conditioning; 0: none.
    rows
        Of a forward: prompt and negative prompt, or one.
    dtype
        What its streams are computed in.
    size, frames
        Height and width in pixels, and frames, unless asked otherwise.
    """

    name: str
    doc: str
    width: int
    multimodal: int
    unified: int = 0
    text: int = 0
    pooled: int = 0
    rows: int = 2
    dtype: str = "float16"
    size: tuple[int, int] = (1024, 1024)
    frames: int = 1

    @property
    def blocks(self) -> Sequence[Block]:
        """Blocks in the order they run."""
        return model_blocks(self.multimodal, self.unified)

    def image_tokens(self, size: tuple[int, int], frames: int) -> int:
        """Tokens of the image or the video."""
        height, width = (n // (_VAE * _PATCH) for n in size)
        return height * width * ((frames - 1) // _FRAMES + 1)

    def boundaries(self, block: Block) -> Iterator[tuple[str, int]]:
        """Stream and boundary of all that a block is given and puts out."""
        for stream in block.streams:
            if stream != "txt" or self.text:
                yield stream, block.index
                if stream != "txt" or self.unified or block.index + 1 < self.multimodal:
                    yield stream, block.index + 1

    def shape(self, stream: str, image: int) -> tuple[int, int, int]:
        """Row, token and channel of a stream, of a model with so many image tokens."""
        tokens = {"img": image, "txt": self.text, "uni": image + self.text}
        return self.rows, tokens[stream], self.width


SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape("reference", "the model that comes with taqstore", 128, 6, text=12, pooled=128,
                   dtype="float32", size=(64, 64)),
        ModelShape("sd3-medium", "Stable Diffusion 3 Medium", 1536, 24, text=154, pooled=2048),
        ModelShape("flux-schnell", "FLUX.1 schnell", 3072, 19, 38, text=256, pooled=768, rows=1,
                   dtype="bfloat16"),
        ModelShape("flux-dev", "FLUX.1 dev; sizes alone, it is not run", 3072, 19, 38, text=512,
                   pooled=768, rows=1, dtype="bfloat16"),
        ModelShape("wan2.2-a14b", "Wan 2.2 A14B video; sizes alone, it is not run", 5120, 40,
                   dtype="bfloat16", size=(480, 832), frames=81),
    )
}  # fmt: skip


def find_shape(name: str) -> ModelShape:
    """The row called `name`.

    Raises
    ------
    MissingError
        There is none; the message lists those there are.
    """
    return SHAPES[word_of(name, SHAPES, "model")]
