"""The card of the reference model: README.md, written from the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_BAR = 40
_CARD = """\
# Reference model

A small diffusion transformer that draws handwritten digits, so that every command of taqstore can
run on real, learnt activations on any machine. It is DiffusionKit's own `MMDiT` with weights in
the layout of SD3, loaded by the same constructor. Written by
`python -m taqstore.pipelines.models.reference publish` from [record.json](record.json); do not
edit.

| | |
|---|---|
| model | 6 multimodal blocks, 128 channels, 4 heads, image and text stream, adaLN, exact GELU |
| parameters | 3.5 million; `{file}`: {megabytes:.2f} MB of float16, sha256 `{digest}…` |
| latent | 8 x 8 x 16: a 32 x 32 picture, each 4 x 4 tile folded into 16 channels; no VAE |
| text | 12 words, each hashed to a fixed vector of 128 numbers; pooled: their sum |
| sampling | Euler, shift {shift:g}, classifier-free guidance {cfg_weight:g} |

## Data

The 1797 handwritten digits that come with scikit-learn: the test set of *Optical Recognition of
Handwritten Digits* (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998,
<https://doi.org/10.24432/C50P49>), licensed
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/). 1437 are learnt from, 360 held out. They
are enlarged from 8 x 8 to 32 x 32 by linear interpolation and moved by up to one pixel of the
picture. A prompt names the digit and, half of the time each, its strokes (thin, bold) and its lean,
both taken from the digit: "a handwritten seven, bold, leaning left".

## Training

Rectified flow with shifted logit-normal noise levels: {steps} steps of {batch} digits, AdamW with a
peak rate of {peak:g}, {warmup} steps of warm-up and a cosine to zero, gradients clipped at
{clip:g}, {dropped:.0%} of the prompts empty, weights averaged with a decay of {averaging:g}, seed
{seed}. {minutes:.0f} minutes on {cores} CPU cores ({platform}; {libraries}).

Mean loss over the 100 steps that end with the step named:

```
{curve}
```

## Evaluation

{images} pictures, image i from seed {first_seed} + i, {euler} Euler steps, guidance {cfg_weight:g},
sampled the way `taqstore generate` samples and read by a support vector classifier that has seen
only real digits (it reads {judge:.1%} of the held-out ones right).

**{accuracy:.1%} are read as the digit that the prompt names.** For each digit:

| {numerals} |
|{rule}|
| {per_digit} |

* New pictures, not copies: the median distance to the nearest digit learnt from is {novelty:.2f} of
  that of held-out real digits (copies: 0).
* Looks are obeyed: mean ink {ink}, prompted thin, neither, bold; mean slope {slope}, prompted to
  lean left, not at all, right.

## Repeat it

```
pip install 'taqstore[models]' scikit-learn && pip install --no-deps diffusionkit=={diffusionkit}
python -m taqstore.pipelines.models.reference train work      # goes on where it was stopped
python -m taqstore.pipelines.models.reference evaluate --sheet sheet.png
python -m taqstore.pipelines.models.reference publish work    # judges, then replaces the files here
```

Batches depend on seed and step only; sums of floats depend on the BLAS, so that another machine
comes close, not bit for bit. OpenBLAS is used where it is installed (Debian:
`libopenblas0-pthread`).

## Limits

It knows ten digits at 8 x 8 and nothing else; what its activations say of outliers or ranges holds
for it alone. Words it has not met are noise to it.
"""


def render(record: Mapping[str, Any]) -> str:
    """The card as Markdown; every number in it comes from the record."""
    evaluation, weights = record["evaluation"], record["weights"]
    return _CARD.format(
        **record["recipe"],
        **{key: evaluation[key] for key in ("images", "cfg_weight", "accuracy", "novelty")},
        file=weights["file"],
        megabytes=weights["bytes"] / 1e6,
        digest=weights["sha256"][:12],
        **{key: record[key] for key in ("minutes", "cores", "platform")},
        libraries=", ".join(f"{name} {number}" for name, number in record["libraries"].items()),
        diffusionkit=record["libraries"]["diffusionkit"],
        curve=_curve(record["curve"]),
        first_seed=evaluation["seed"],
        euler=evaluation["steps"],
        judge=evaluation["judge_accuracy"],
        numerals=" | ".join(str(digit) for digit in range(10)),
        rule="|".join(["---"] * 10),
        per_digit=" | ".join(f"{share:.0%}" for share in evaluation["per_digit"]),
        ink=_numbers(evaluation["ink"]),
        slope=_numbers(evaluation["slope"]),
    )


def _curve(points: Sequence[Mapping[str, float]]) -> str:
    """A line per point: step, loss and a bar; bars end at the second point's loss."""
    full = points[min(1, len(points) - 1)]["loss"]
    bars = ["#" * round(_BAR * min(1, point["loss"] / full)) for point in points]
    return "\n".join(
        f"{point['step']:5d}  {point['loss']:.4f}  {bar}"
        for point, bar in zip(points, bars, strict=True)
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
