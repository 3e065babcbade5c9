# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Relaxation times, pixel by pixel
#
# A magnetic resonance scanner takes the same image at several echo times. In each pixel the signal decays,
#
# $$ s(t) = h \, e^{-t / T_2} + c , $$
#
# with a time $T_2$ that tells tissues apart. Here the image is made up: white and gray matter at 3 tesla, with
# $T_2$ of 69 and 99 ms (Stanisz and others, 2005, *T1, T2 relaxation and magnetization transfer in tissue at 3T*),
# a lesion of 150 ms, noise, a corner outside of the head, and some echoes that were lost. Each pixel is a fit of its
# own: one call does all.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor.tensor as pt
from scipy.stats import t as student

import optapi


rng = np.random.default_rng(0)
size, echoes, noise = 64, np.arange(10.0, 330.0, 20.0), 0.01
across, down = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
radius = np.hypot(across, down / 1.2)
head = radius < 0.8
white = radius + 0.12 * np.cos(7 * np.arctan2(down, across)) < 0.55
lesion = np.hypot(across - 0.25, down + 0.2) < 0.12
times = np.where(lesion, 150.0, np.where(white, 69.0, 99.0))
heights = np.where(lesion, 0.85, np.where(white, 0.7, 0.8))
signal = heights[..., None] * np.exp(-echoes / times[..., None]) + 0.05
signal = np.where(head[..., None], signal, 0.05) + noise * rng.normal(size=(size, size, len(echoes)))
signal[20:22, :, 9:] = np.nan  # two lines of the image whose last echoes were lost
signal.shape

# %% [markdown]
# ## The fits
#
# A row for each pixel of the head. Where nothing was measured the standard deviation is infinite. The rate
# $1 / T_2$ has bounds, and the offset is not negative.


# %%
def model(t, height, rate, offset):
    return height * pt.exp(-rate * t) + offset


pixels = signal[head]
sigma = np.where(np.isfinite(pixels), noise, np.inf)
fits = optapi.curve_fit(
    model,
    echoes,
    pixels,
    {"height": 1.0, "rate": 0.02, "offset": 0.1},
    sigma,
    many=True,
    bounds={"rate": (1 / 1000, 1 / 5), "offset": (0, None)},
)
print(len(pixels), "pixels:", fits.message)

# %% [markdown]
# ## The maps
#
# The estimates, their standard errors, and how well the model fits: the mean of the squares of what it leaves, in
# units of the noise, which should be about 1.


# %%
def image(values):
    """The values of the pixels of the head in their places."""
    shown = np.full(head.shape, np.nan)
    shown[head] = values
    return shown


errors = fits.standard_errors()
freedom = np.isfinite(pixels).sum(axis=1) - 3
maps = {
    "$T_2$, ms": (1 / fits.x["rate"], (40, 170)),
    "standard error of $T_2$, ms": (errors["rate"] / fits.x["rate"] ** 2, (0, 20)),
    "height": (fits.x["height"], (0.6, 0.9)),
    "misfit": (2 * fits.fun / freedom, (0, 3)),
}
figure, panels = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for axes, (title, (values, limits)) in zip(panels, maps.items(), strict=True):
    drawn = axes.imshow(image(values), vmin=limits[0], vmax=limits[1])
    axes.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, shrink=0.8)

# %% [markdown]
# The two lines with fewer echoes stand out in the errors, as does the lesion, whose signal lasts. Are they right? Of
# the intervals that should hold the true rate in 95 of 100 pixels:

# %%
free = (fits.x["offset"] > 0) & fits.success
width = student.ppf(0.975, freedom) * errors["rate"]
right = abs(fits.x["rate"] - 1 / times[head]) <= width
print(f"{100 * right[free].mean():.0f} % of {free.sum()} pixels")

# %% [markdown]
# ## A pixel that cannot be fitted
#
# It says so, and the others do not notice.

# %%
broken = pixels[:5].copy()
broken[3, 2] = np.nan
some = optapi.curve_fit(model, echoes, broken, {"height": 1.0, "rate": 0.02, "offset": 0.1}, many=True)
print(some.message)
print(some.x["rate"].round(3), some.standard_errors()["rate"].round(4))
