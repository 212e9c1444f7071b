"""The reference model: a small MMDiT trained on handwritten digits, for any machine.

DiffusionKit's class with weights in SD3's layout, so that everything built for SD3-Medium runs on
it unchanged. README.md is its card; `python -m taqstore.pipelines.models.reference` trains and
judges it.
"""

from .data import digit_prompts
from .encoder import encode_text, word_count
from .latent import decode
from .model import checkpoint_path, config, prompts_path

__all__ = [
    "checkpoint_path",
    "config",
    "decode",
    "digit_prompts",
    "encode_text",
    "prompts_path",
    "word_count",
]
