# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A store in a notebook
#
# From prompts to figures with xarray. The reference model is in the package, so this runs anywhere
# with the extra `models`, in about a minute. Open it with
# [jupytext](https://jupytext.readthedocs.io), or run it as a script.

# %% [markdown]
# ## A store to look at
#
# Four images of eight steps, then the statistics of every linear's input, in the working folder.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate

import taqstore
from taqstore.run import Mode

Path("prompts.txt").write_text("a handwritten seven\na handwritten two\n", encoding="utf-8")
again = Mode(resume=True)  # run twice, the cell keeps what is there
generate("notebook.zarr", Request("reference", Path("prompts.txt"), 4, steps=8), mode=again)
collect("notebook.zarr", mode=again)

store = taqstore.open_store("notebook.zarr")
store

# %% [markdown]
# A group is a lazy Dataset: nothing was read but labels. `store["` and the tab key complete keys.

# %%
fc2 = store["activations/mlp.fc2"]
fc2

# %% [markdown]
# ## What the model saw
#
# The largest value of each layer's input over the noise level, from noise on the left to the image
# on the right. `store.name` makes a label of any spelling of a layer.

# %%
layers = [store.name(text) for text in ("mm_00_img", "blocks.2.text.mlp.fc2", "mm4.img")]
widest = fc2["tensor_max"].max("batch")
widest.sel(layer=layers).plot.line(x="sigma")
plt.gca().invert_xaxis()
plt.title("largest value after GELU")

# %% [markdown]
# All layers and steps at once, and the channels of one layer. A few of them are far wider than the
# rest: these make quantization hard.

# %%
widest.plot(x="step", y="layer", cmap="viridis")
plt.title("largest value after GELU")

# %%
channels = fc2["max"].sel(layer=layers[0]).max(["batch", "step"])
channels.sortby(channels, ascending=False).plot.step()
plt.title(f"largest value of each channel of {layers[0]}")

# %% [markdown]
# ## What quantizing it would cost
#
# Analyses are functions Dataset to Dataset. Signal to quantization noise at 4 bits, with the range
# of all values and with the one of least error:

# %%
sqnr = {
    clip: taqstore.analysis.error(fc2, bits=4, clip=clip)["sqnr"].sel(layer=layers[0])
    for clip in ("absmax", "mse")
}
for clip, values in sqnr.items():
    values.plot.line(x="sigma", label=clip)
plt.gca().invert_xaxis()
plt.title(f"4 bits, {layers[0]}")
plt.legend()

# %% [markdown]
# Over all sites `taqstore.query.analyze` asks one after the other; the answers are one table.

# %%
found = taqstore.query.analyze("temporal", store, bits=4)
table = taqstore.query.site_tables(found)[0]
table

# %% [markdown]
# ## Away from here
#
# Any part of a group is written by xarray, and the figures of `taqstore plot` are a call each.

# %%
fc2[["tensor_min", "tensor_max"]].to_zarr("ranges.zarr", consolidated=False, mode="w")
taqstore.plot.render("range", fc2, "plots", layers=layers, site="mlp.fc2")
