"""What each group of the format holds: its template and its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.kinds.block_samples import Batch as Batch
    from taqstore.kinds.block_samples import BlockSamples as BlockSamples
    from taqstore.kinds.block_samples import open_block as open_block
    from taqstore.kinds.minibatches import batch_order as batch_order
    from taqstore.kinds.minibatches import iter_batches as iter_batches
    from taqstore.kinds.quantized_linears import InputQuantizer as InputQuantizer
    from taqstore.kinds.quantized_linears import QuantizedLinear as QuantizedLinear
    from taqstore.kinds.quantized_linears import linear_names_of as linear_names_of
    from taqstore.kinds.quantized_linears import quantized_blocks as quantized_blocks
    from taqstore.kinds.quantized_linears import quantized_linear as quantized_linear
    from taqstore.kinds.quantized_linears import quantized_linears as quantized_linears
    from taqstore.kinds.second_moments import Moments2 as Moments2
    from taqstore.kinds.second_moments import diagonal_of as diagonal_of
    from taqstore.kinds.second_moments import moments_of as moments_of
    from taqstore.kinds.second_moments import second_moments_template as second_moments_template
    from taqstore.kinds.sensitivity import scores as scores
    from taqstore.kinds.sensitivity import sensitivities as sensitivities
    from taqstore.kinds.templates import activations_template as activations_template
    from taqstore.kinds.templates import blocks_template as blocks_template
    from taqstore.kinds.templates import channel_histograms_template as channel_histograms_template
    from taqstore.kinds.templates import latents_template as latents_template
    from taqstore.kinds.templates import (
        pooled_conditioning_template as pooled_conditioning_template,
    )
    from taqstore.kinds.weight_files import read_quant_config as read_quant_config
    from taqstore.kinds.weight_files import read_quantized as read_quantized
    from taqstore.kinds.weight_sets import weight_sets as weight_sets
    from taqstore.kinds.weights import reconstruction_template as reconstruction_template
    from taqstore.kinds.weights import time_group_of as time_group_of
    from taqstore.kinds.weights import weights_template as weights_template

lazy_face(
    __name__,
    {
        "Batch": "taqstore.kinds.block_samples",
        "BlockSamples": "taqstore.kinds.block_samples",
        "InputQuantizer": "taqstore.kinds.quantized_linears",
        "Moments2": "taqstore.kinds.second_moments",
        "QuantizedLinear": "taqstore.kinds.quantized_linears",
        "activations_template": "taqstore.kinds.templates",
        "batch_order": "taqstore.kinds.minibatches",
        "blocks_template": "taqstore.kinds.templates",
        "channel_histograms_template": "taqstore.kinds.templates",
        "diagonal_of": "taqstore.kinds.second_moments",
        "iter_batches": "taqstore.kinds.minibatches",
        "latents_template": "taqstore.kinds.templates",
        "moments_of": "taqstore.kinds.second_moments",
        "linear_names_of": "taqstore.kinds.quantized_linears",
        "open_block": "taqstore.kinds.block_samples",
        "pooled_conditioning_template": "taqstore.kinds.templates",
        "quantized_blocks": "taqstore.kinds.quantized_linears",
        "quantized_linear": "taqstore.kinds.quantized_linears",
        "quantized_linears": "taqstore.kinds.quantized_linears",
        "read_quant_config": "taqstore.kinds.weight_files",
        "read_quantized": "taqstore.kinds.weight_files",
        "reconstruction_template": "taqstore.kinds.weights",
        "second_moments_template": "taqstore.kinds.second_moments",
        "scores": "taqstore.kinds.sensitivity",
        "sensitivities": "taqstore.kinds.sensitivity",
        "time_group_of": "taqstore.kinds.weights",
        "weight_sets": "taqstore.kinds.weight_sets",
        "weights_template": "taqstore.kinds.weights",
    },
)
