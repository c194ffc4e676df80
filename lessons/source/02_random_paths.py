# %% [markdown]
# # 02 · Random paths
#
# *A speck of dust shivers in water. You write the equation of its path, simulate it with a step of
# any size, and learn why there is a square root in every noisy line of code of this course.*
#
# **You need** mean, variance and independence of random variables, Gaussians, a little torch.
#
# **You will be able to** test by regression whether a process needs more than its last value (and
# say what the test cannot see), simulate a stochastic differential equation, scale its noise right,
# and say which equations come to rest in a bell.
#
# **Time** two hours of reading; everything runs in about 15 seconds on two CPU cores.
#
# **The codes.** The course follows a series of lectures and tests what they say. (DS-10) names a
# slide, E-36 a slip on a slide, T-30 a mistake that students make.

# %% tags=["setup"]
import math
from functools import partial
from itertools import pairwise

import torch
from torch.distributions import Normal

from didiff import schedules
from didiff.notebook import museum, plots, widgets
from didiff.notebook.museum import Check
from didiff.sde import SDE, schedule_sde, wiener

torch.manual_seed(0)
plots.style()

# %% [markdown] tags=["DS-08", "DS-09"]
# ## 1. One draw is a whole path
#
# **Story.** A draw from a random variable is a number. A draw from a **stochastic process** is a
# *path*: a family of random variables, one for every time, drawn together. We write $X_k$ if time
# is counted in steps and $X_u$ if it flows. (The lecture calls the time $t$; our `t` will be a
# noise level, so time is $u$.)
#
# Values may be discrete or continuous, and so may time: four kinds, here one of each. The Wiener
# process is borrowed from the library; in section 3 we build it.


# %% tags=["formula", "DS-09"]
def walk(n, paths):
    """A coin for every step: the sum of n times +1 or -1. Whole numbers (paths, n)."""
    return (2 * torch.randint(0, 2, (paths, n)) - 1).cumsum(1)


# %% tags=["formula", "DS-09", "DS-10"]
def autoregression(coefficients, n):
    """One path (n,) of X_k = c_1 X_{k-1} + c_2 X_{k-2} + .. + N(0, 1), from zeros."""
    x = [0.0] * len(coefficients)
    for z in torch.randn(n, dtype=torch.float64).tolist():
        x.append(z + sum(c * x[-lag] for lag, c in enumerate(coefficients, 1)))
    return torch.tensor(x[len(coefficients) :], dtype=torch.float64)


# %% tags=["formula", "DS-09"]
def poisson(rate, times, paths):
    """How many events came until each of the times (N,), whole numbers (paths, N).

    From one event to the next it takes an exponential time of mean 1 / rate.
    """
    # ten standard deviations more events than one expects
    enough = int(rate * times.max() + 10 * (rate * times.max()).sqrt() + 10)
    waiting = torch.empty(paths, enough, dtype=times.dtype).exponential_(rate)
    # for each path: how many of its events, in order of time, are not later than each of the times
    return torch.searchsorted(waiting.cumsum(1), times.repeat(paths, 1), right=True)


# %% tags=["DS-08", "DS-09"]
k, u = range(1, 41), torch.linspace(0, 40, 1001, dtype=torch.float64)
chain = torch.stack([autoregression([0.8], 40) for _ in range(3)])
figure, axes = plots.panels(2, 2, size=(3.4, 2.1))
axes[0].plot(k, walk(40, 3).T, ".:", markersize=4, lw=0.4)  # the hairline only guides the eye
axes[1].plot(k, chain.T, ".:", markersize=4, lw=0.4)
axes[2].step(u, poisson(0.3, u, 3).T, "-", where="post", lw=1)
axes[3].plot(u, wiener(u, 3).T, "-", lw=0.6)
for ax, name in zip(axes, ["random walk", "AR(1)", "Poisson", "Wiener"], strict=True):
    ax.set(title=name, xlabel="step k" if ax in axes[:2] else "time u")
plots.show(
    figure,
    alt="Four panels with three paths each. Above, dots at whole times: the random walk on whole "
    "numbers, AR(1) anywhere. Below, lines: Poisson paths are rising staircases, Wiener paths "
    "unbroken and jagged.",
    caption="Left: discrete values, right: continuous. Above: discrete time, below: continuous.",
)

# %% [markdown]
# **Check.** Discrete values are whole numbers. In continuous time we may ask at *any* time, say at
# $u=\pi$: a Poisson count has mean and variance $\text{rate}\cdot u$, and a Wiener process, as we
# shall see, has variance $u$.
#
# **How near is near enough?** All tests here allow *four standard errors*, which luck exceeds once
# in 16,000 times. From $n$ independent draws of standard deviation $\sigma$ the standard error is
# $\sigma/\sqrt n$ for a mean and $1/\sqrt n$ for a correlation that is truly 0; if they are
# Gaussian, $\sqrt{2/n}$ for a variance and $1/\sqrt{2n}$ for a standard deviation (as a share of
# it), and $\sqrt{24/n}$ for the excess kurtosis of section 9.

# %% tags=["check", "DS-08", "DS-09"]
one_number, one_path = torch.randn(()), walk(40, paths=1)
print("a draw of N(0, 1):", tuple(one_number.shape), "  a draw of the walk:", tuple(one_path.shape))
assert one_number.ndim == 0
assert one_path.shape == (1, 40)
assert not one_path.is_floating_point()
assert chain.is_floating_point()

# %% tags=["check", "DS-09"]
paths, odd = 20_000, torch.tensor([0.0, math.pi], dtype=torch.float64)
events, heights = poisson(3.0, odd, paths)[:, 1], wiener(odd, paths)[:, 1]
print(f"Poisson of rate 3 at u = π: mean {events.double().mean():.2f}, 3π = {3 * math.pi:.2f}")
print(f"Wiener at u = π: variance {heights.var():.2f}, π = {math.pi:.2f}")
assert not events.is_floating_point()
assert abs(events.double().mean() - 3 * math.pi) < 4 * (3 * math.pi / paths) ** 0.5
assert abs(heights.var() / math.pi - 1) < 4 * (2 / paths) ** 0.5

# %% [markdown] tags=["DS-10"]
# ## 2. How much of the past does the present need?
#
# **Story.** To say where the walk goes next, you need to know where it is; how it got there does
# not matter. Such a process is called **Markov**:
#
# $$P(X_k\mid X_{k-1},X_{k-2},\dots)=P(X_k\mid X_{k-1}).$$
#
# How to find out from data? Predict $X_k$ from its last *two* values by least squares. If the
# process is Markov, and its best prediction from $X_{k-1}$ is a straight line, the older value gets
# the coefficient 0.


# %% tags=["formula", "DS-10"]
def lags(x, count):
    """All stretches of count + 1 neighbours of one long path x (N,): (N - count, count + 1)."""
    return x.unfold(0, count + 1, 1)  # a window of that size, moved on by 1


# %% tags=["formula", "DS-10"]
def regress(stretches):
    """Least squares of the last column on those before it: coefficients (lag 1 first), errors."""
    past, present = stretches[:, :-1].flip(1), stretches[:, -1]
    design = torch.cat([past, torch.ones_like(past[:, :1])], 1)  # the last one: a constant
    solution = torch.linalg.lstsq(design, present[:, None]).solution[:, 0]
    noise = (present - design @ solution).var()
    # the textbook's standard errors: the noise, over what the columns do not share
    error = (noise * torch.linalg.inv(design.T @ design).diagonal()).sqrt()
    return solution[:-1], error[:-1]


# %% tags=["check", "DS-10"]
n = 200_000
first = autoregression([0.8], n)  # X_k = 0.8 X_{k-1} + noise
second = autoregression([0.5, 0.3], n)  # X_k = 0.5 X_{k-1} + 0.3 X_{k-2} + noise
for name, path, truth in (("AR(1)", first, (0.8, 0)), ("AR(2)", second, (0.5, 0.3))):
    c, error = regress(lags(path, 2))
    print(f"{name}: lag 1 {c[0]:.3f}, lag 2 {c[1]:.3f}  (± {4 * error[1]:.3f})")
    assert ((c - torch.tensor(truth)).abs() < 4 * error).all()

# %% [markdown] tags=["DS-10"]
# **Is it so?** The lecture puts the Markov property into words: the present depends *at most on the
# previous value* (DS-10). Predict: is $X_k$ of our AR(1) independent of $X_{k-2}$?
#
# To see what $X_{k-1}$ leaves to be said, subtract what it predicts: $0.8\,X_{k-1}$, for the future
# *and* for the past, as this process at rest looks the same backwards.

# %% tags=["check", "DS-10"]
before, between, now = lags(first, 2).T
pair = torch.stack([before, now])
left_over = pair - 0.8 * between
plain, given = torch.corrcoef(pair)[0, 1], torch.corrcoef(left_over)[0, 1]
print(f"correlation of X_k and X_k-2: {plain:.2f}; of what X_k-1 leaves of them: {given:.2f}")
assert abs(plain - 0.8**2) < 4 * 1.03 / n**0.5  # 1.03: Bartlett's formula (1946) for lag 2
assert abs(given) < 4 / n**0.5

# %% tags=["DS-10"]
figure, axes = plots.panels(2, size=(3.2, 3.0))
for ax, points, less in zip(axes, (pair, left_over), ("", r" - 0.8\,X_{k-1}"), strict=True):
    plots.scatter({"data": points.T[:1500]}, limit=6, ax=ax)
    ax.set(xlabel=f"$X_{{k-2}}{less}$", ylabel=f"$X_k{less}$")
plots.show(
    figure,
    alt="Two clouds of points. Left, X_k against X_k-2: an ellipse along the diagonal. Right, both "
    "after subtracting 0.8 times the value between: a round cloud.",
    caption="Dependent, yet independent given the value in between.",
)

# %% [markdown] tags=["DS-10"]
# **Put right.** The word that is missing is *conditionally*: **given** $X_{k-1}$, the older values
# add nothing. By itself $X_k$ does remember $X_{k-2}$, with correlation $0.8^2=0.64$; the memory
# passes *through* $X_{k-1}$.

# %% [markdown] tags=["DS-11"]
# **A poll.** Which of these are Markov? (a) flips of a coin, heads 1 and tails 0; (b) the highest
# flip so far: 1 once there have been heads; (c) the sum of the last two flips; (d) AR(2); (e)
# AR(2), if we call the *pair* $(X_k,X_{k-1})$ the state; (f) $X_k=0.9\,|X_{k-1}|+N(0,1)$. Vote
# before you run.

# %% tags=["check", "DS-11"]
flips = torch.randint(0, 2, (n,)).double()
highest = torch.randint(0, 2, (n, 3)).double().cummax(1).values  # of many games; cummax: so far
rows, stretches = [], {"(a) flips": (lags(flips, 2), True), "(b) highest so far": (highest, True)}
stretches["(c) sum of two flips"] = lags(flips[1:] + flips[:-1], 2), False
stretches["(d) AR(2)"] = lags(second, 2), False
stretches["(e) AR(2) as pairs"] = lags(second, 3), True  # beyond one step back lies X_{k-3}
for name, (data, is_markov) in stretches.items():
    c, error = regress(data)
    adds_nothing = bool(c[-1].abs() <= 4 * error[-1])
    oldest = c[-1].round(decimals=3) + 0  # + 0 turns -0 into 0
    rows.append([name, f"{oldest:.3f}", f"{4 * error[-1]:.3f}", "yes" if adds_nothing else "no"])
    assert adds_nothing == is_markov
header = ["process", "oldest coefficient", "four errors", "oldest value adds nothing?"]
plots.table(rows, header=header, caption="What the oldest value adds to a straight line")

# %% [markdown] tags=["DS-11"]
# And (f)? It needs $X_{k-1}$ alone. But the best prediction from it has a kink, and the regression
# knows straight lines only. Give it $|X_{k-1}|$ in place of $X_{k-1}$:


# %% tags=["formula", "DS-11"]
def kinked(n):
    """One path (n,) of X_k = 0.9 |X_{k-1}| + N(0, 1), from 0."""
    x = [0.0]
    for z in torch.randn(n, dtype=torch.float64).tolist():
        x.append(0.9 * abs(x[-1]) + z)
    return torch.tensor(x[1:], dtype=torch.float64)


# %% tags=["check", "DS-11"]
before, between, now = lags(kinked(n), 2).T
for name, column in (("X_k-1", between), ("|X_k-1|", between.abs())):
    c, error = regress(torch.stack([before, column, now], 1))
    print(f"beside {name:7} the oldest gets {c[1]:6.3f} (± {4 * error[1]:.3f})")
    assert (abs(c[1]) < 4 * error[1]) == (name == "|X_k-1|")

# %% [markdown] tags=["DS-11"]
# If the best prediction from $X_{k-1}$ is a straight line, as in (a) to (e), a coefficient other
# than 0 shows that the past helps. If it is a curve, even a Markov process can give one. And 0 is
# only a hint, because a regression sees straight lines only. (Besides, *Markov* depends on what we
# call the state: put enough into it, and everything is Markov.)
#
# For the coin we can do without: does the next flip come equally often after all four pasts?
# Pearson's $\chi^2$ says how likely chance alone makes counts as uneven as ours.

# %% tags=["check", "DS-11"]
a, b, c = torch.randint(0, 2, (3, 60_000))  # two flips, and the one after them
counts = torch.bincount(4 * a + 2 * b + c, minlength=8).reshape(4, 2).double()
print(f"share of heads after each past: {(counts[:, 1] / counts.sum(1)).numpy().round(3)}")
expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
chi2 = ((counts - expected) ** 2 / expected).sum()
# the tail of the chi-square law with (4 - 1) * (2 - 1) = 3 degrees of freedom
p = torch.special.gammaincc(torch.tensor(1.5).double(), chi2 / 2)
print(f"so uneven or more, by chance: {p:.0%} of the time")
assert p > 6e-5  # four standard errors, said as a probability

# %% [markdown] tags=["DS-15", "DS-17"]
# ## 3. The Wiener process
#
# **Story.** Let a walk take more and smaller steps. How large must they be, so that it neither dies
# out nor explodes? Variances of independent steps add up: for variance $u$ at time $u$ a step of
# length $du$ needs the *variance* $du$, hence a typical size of $\sqrt{du}$, which is much larger
# than $du$. The **Wiener process** starts at $W_0=0$, its increments over disjoint times are
# independent, its paths are unbroken, and
#
# $$W_{u+du}-W_u\sim N(0,\,du).$$
#
# Mind the second argument (DS-17): it is a variance. **Code.** (A `generator` is a source of random
# numbers: two with the same seed make the same noise. Without one, torch uses its own.)


# %% tags=["formula", "DS-15", "DS-17", "twin:didiff.sde.wiener"]
def wiener(times, paths, generator=None):
    """Wiener paths at the times (N,), 0 at the first of them. Returns (paths, N)."""
    z = torch.randn((paths, len(times) - 1), generator=generator, dtype=times.dtype)
    increments = times.diff().sqrt() * z
    return torch.cat([torch.zeros(paths, 1, dtype=times.dtype), increments.cumsum(1)], 1)


# %% tags=["check", "DS-15", "DS-17"]
paths, u = 40_000, torch.tensor([0.0, 0.1, 0.5, 1.0, 4.0], dtype=torch.float64)
w = wiener(u, paths)
for time, variance in zip(u[1:], w[:, 1:].var(0), strict=True):
    print(f"time {time:.1f}: variance {variance:.2f}")
    assert abs(variance / time - 1) < 4 * (2 / paths) ** 0.5

# %% tags=["check", "DS-15"]
most = w.diff().T.corrcoef().triu(1).abs().max()  # above the diagonal: every pair once
print(f"largest correlation of two disjoint increments: {most:.3f}, allowed {4 / paths**0.5:.3f}")
assert most < 4 / paths**0.5

# %% [markdown]
# **Play.** Look at the beginning of one path through a magnifying glass: time is stretched ten times
# for each unit of the slider, height only $\sqrt{10}$ times. Predict: where does the path begin to
# look smooth? (A `Stage` moves lines before a background; a callback *yields* frames, a picture with
# a line of words.)


# %% tags=["play"]
def magnifier(u, path):
    """A slider's callback: the first 10^-zoom of a path (N,) over times u (N,), in 400 steps."""
    figure, (ax,) = plots.panels()
    ax.set(xlim=(0, 1), ylim=(-3, 3), xlabel="share of the time shown", ylabel="W / √(time shown)")
    stage = plots.Stage(figure, role="data")

    def frames(zoom):
        end = 10**-zoom
        shown = torch.searchsorted(u, torch.linspace(0, end, 401, dtype=torch.float64))
        line = torch.stack([u[shown] / end, path[shown] / end**0.5], 1)
        words = f"time shown {end:.2g}, height shown ± {3 * end**0.5:.2g}; 400 steps, each of them "
        yield widgets.Frame(stage.draw(paths=line[:, None]), words + f"± {(end / 400) ** 0.5:.2g}")

    return frames


# %% tags=["play"]
zooms = [0.5 * k for k in range(9)]
u = torch.cat([torch.linspace(0, 10**-zoom, 401, dtype=torch.float64) for zoom in zooms]).unique()
path = wiener(u, 1, torch.Generator().manual_seed(4))[0]
zoom = {"zoom": widgets.slider("zoom, powers of ten", 0.0, 4.0, value=0.0, step=0.5)}
magnified = widgets.Explorer(magnifier(u, path), zoom)
magnified.show(
    alt="A jagged line. At every zoom, up to ten thousand, it looks equally rough.",
    still_over="zoom",
)

# %% tags=["check"]
for power in (4.0, 0.0):
    magnified["zoom"].value = power
    magnified.wait()
    print(magnified.readout)
    shown = torch.searchsorted(u, torch.linspace(0, 10**-power, 401, dtype=torch.float64))
    variation = (path[shown].diff() ** 2).sum() * 10**power  # 1, says section 4
    assert abs(variation.log()) < 4 * (2 / 400) ** 0.5  # sums of squares stray further upwards

# %% [markdown] tags=["DS-16"]
# **Who?** Robert Brown saw specks from pollen dance in water in 1827, Albert Einstein explained it
# in 1905 by the blows of molecules, and Norbert Wiener (1894-1964) proved in 1923 that such paths
# exist. (The slides spell him in two ways; this is the right one.) Einstein even gave the number: a
# ball of radius $r$ in water of viscosity $\eta$ moves like $\sqrt{2D}\,W$ with
# $D=k_BT/(6\pi\eta r)$.

# %% tags=["DS-16"]
thermal_energy = 1.381e-23 * 293  # Boltzmann's constant in J/K times 20 °C in K
D = thermal_energy / (6 * math.pi * 1.0e-3 * 0.5e-6)  # η of water in Pa s; r of half a micrometre
for seconds in (1, 60, 3600):
    print(f"after {seconds:4} s: {1e6 * (2 * D * seconds) ** 0.5:5.1f} micrometres, give or take")

# %% [markdown] tags=["DS-15"]
# ## 4. Rough, but not too rough
#
# **Story.** How long is a path? Cut $[0,1]$ into $n$ pieces and add up the steps' sizes (*total*
# variation), or their squares (*quadratic* variation):
#
# $$\mathrm{TV}_n=\sum_{k=1}^n|\Delta_k|,\qquad \mathrm{QV}_n=\sum_{k=1}^n\Delta_k^2,\qquad
# \Delta_k=W_{k/n}-W_{(k-1)/n}.$$
#
# For a smooth curve TV settles and QV goes to 0. Predict both for a Wiener path: a typical
# $|\Delta|$ is $n^{-1/2}$, and there are $n$ of them.


# %% tags=["formula", "DS-15"]
def variations(path, pieces):
    """Total variation, quadratic variation and largest step of a path (N + 1,) seen in pieces."""
    steps = path[:: (len(path) - 1) // pieces].diff()
    return steps.abs().sum().item(), (steps**2).sum().item(), steps.abs().max().item()


# %% tags=["DS-15"]
cuts = [100, 1000, 10_000, 100_000]
u = torch.linspace(0, 1, cuts[-1] + 1, dtype=torch.float64)
w, wave = wiener(u, 1)[0], torch.sin(2 * math.pi * u)
ours, smooth = ([variations(path, n) for n in cuts] for path in (w, wave))
rows = [[n, *(f"{value:.3g}" for value in row)] for n, row in zip(cuts, ours, strict=True)]
plots.table(
    rows, header=["pieces", "TV", "QV", "largest step"], caption="One Wiener path, cut finer"
)

# %% tags=["DS-15"]
figure, axes = plots.panels(2, size=(3.4, 2.7))
for column, (ax, name) in enumerate(zip(axes, ("total", "quadratic"), strict=True)):
    curves = {"Wiener path": ours, "sine": smooth}
    points = {label: (cuts, [row[column] for row in rows]) for label, rows in curves.items()}
    plots.lines(points, xlabel="pieces n", ylabel=f"{name} variation", log=True, ax=ax)
plots.show(
    figure,
    alt="Two panels over the number of pieces, log scales. Total variation: the Wiener path's "
    "rises without end, the sine's is flat at 4. Quadratic: the Wiener path's is flat at 1, the "
    "sine's falls.",
    caption="What is finite for one is infinite or nothing for the other.",
)

# %% [markdown]
# **Check.** $\mathrm{QV}_n$ has mean 1 and standard deviation $\sqrt{2/n}$; $\mathrm{TV}_n$ has
# mean $\sqrt{2n/\pi}$ and standard deviation $\sqrt{1-2/\pi}=0.60$. The largest of $n$ steps is
# about $\sqrt{2\,du\ln n}$ and goes to 0: no jumps.

# %% tags=["check", "DS-15"]
for n, (total, quadratic, largest) in zip(cuts, ours, strict=True):
    assert abs(quadratic - 1) < 4 * (2 / n) ** 0.5
    assert abs(total - (2 * n / math.pi) ** 0.5) < 4 * (1 - 2 / math.pi) ** 0.5
    assert largest < (2 / n * math.log(n / 6e-5)) ** 0.5  # luck: once in 16,000 again
print(f"n = {n}: QV {quadratic:.3f} (1), TV {total:.0f} ({(2 * n / math.pi) ** 0.5:.0f}), ", end="")
print(f"largest step {largest:.4f} ({(2 / n * math.log(n)) ** 0.5:.4f})")

# %% [markdown]
# This suggests (and one can prove) that a Wiener path is infinitely long. Nor has it a slope:
# $\Delta/du$ grows like $1/\sqrt{du}$. But the sum of squares is *not random* in the limit: it is
# the time. Hence the rule of thumb $dW^2=du$.

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Replace the Gaussian steps by coins, $\pm\sqrt{du}$. What becomes of the variance
# of $W_1$, of QV and of the fourth moment $\mathbb E\,W_1^4$ (3 for a Gaussian), for $n=4$ and for
# $n=1000$?
#
# <details><summary>Answer</summary>
#
# The variance is 1 and QV is *exactly* 1, for every $n$. The fourth moment is $3-2/n$: 2.5 and
# 2.998. Take any *one* distribution with mean 0 and variance 1, multiply its draws by $\sqrt{du}$,
# add many independent ones: the sum tends to a Gaussian, by the central limit theorem (and the
# whole path to a Wiener path, by Donsker's).
# </details>

# %% [markdown] tags=["DS-18", "E-36"]
# ## 5. Which standard deviation?
#
# **Is it so?** Beside the formula $dW\sim N(0,du)$ the lecture notes that the *standard deviation
# of $dW$ equals the time step* (DS-18). Predict what paths of 10, 100 and 1000 such steps look
# like.

# %% tags=["DS-18", "E-36", "T-30"]
figure, axes = plots.panels(3, 2, size=(2.4, 1.7))
cases = [(power, n) for power in (0.5, 1.0) for n in (10, 100, 1000)]
for ax, (power, n) in zip(axes, cases, strict=True):
    steps = (1 / n) ** power * torch.randn(n, 8)
    walks = torch.cat([torch.zeros(1, 8), steps.cumsum(0)])
    role, label = ("data", "std √du") if power == 0.5 else ("model", "std du")
    u = torch.linspace(0, 1, n + 1)
    plots.paths(u, walks, role=role, xlabel=f"u, {n} steps", ylabel=label, ax=ax)
    ax.set(ylim=(-2.6, 2.6))
plots.show(
    figure,
    alt="Six panels, eight paths each, for 10, 100, 1000 steps. Above, with the root, all three "
    "fans are equally wide. Below, with std du, the fan shrinks to a line.",
    caption="Above: standard deviation √du. Below: du.",
)


# %% [markdown] tags=["DS-18", "E-36"]
# **Check.** With steps of standard deviation $du^{\,p}$, the end has variance
# $n\,du^{2p}=n^{1-2p}$. Only $p=\tfrac12$ lets it stand still.


# %% tags=["formula", "DS-18"]
def end_variance(std, n, paths=10_000):
    """Sample variance at time 1 of paths with n independent steps of standard deviation std."""
    return sum(std * torch.randn(paths) for _ in range(n)).double().var().item()


# %% tags=["check", "DS-18", "E-36", "T-30"]
counts = [10, 100, 1000]
for power, label in ((0.5, "std √du"), (1.0, "std du"), (0.25, "std du^¼")):
    variances = [end_variance((1 / n) ** power, n) for n in counts]
    expected = [n ** (1 - 2 * power) for n in counts]
    print(f"{label:8}", *(f"{v:8.3f} ({e:.4g})" for v, e in zip(variances, expected, strict=True)))
    off = torch.tensor(variances) / torch.tensor(expected) - 1
    assert (off.abs() < 4 * (2 / 10_000) ** 0.5).all()

# %% [markdown] tags=["DS-18", "E-36"]
# **Put right.** The *variance* of $dW$ equals the time step. With any power but the root, the
# result depends on how finely *you* chose to compute.

# %% [markdown] tags=["DS-12", "DS-14", "DS-19"]
# ## 6. A push and a shiver
#
# **Story.** Now let something push as well. A **stochastic differential equation** (SDE) has a
# *drift* $a$, the ordinary part, and a *diffusion* $\sigma$ that multiplies the shiver:
#
# $$dX=a(X,u)\,du+\sigma(u)\,dW .$$
#
# To simulate it, take it literally: $X\leftarrow X+a\,du+\sigma\,\sqrt{du}\;z$ with $z\sim N(0,1)$.
# That is the method of Euler and Maruyama. In the library an `SDE` is the pair of functions
# `drift(x, u)` and `diffusion(u)`. (The lecture lets $\sigma$ depend on $X$ too: see section 8.)


# %% tags=["formula", "DS-12", "DS-19", "twin:didiff.sde.simulate"]
def simulate(sde, x, times, generator=None):
    """Euler-Maruyama: x + drift * du + diffusion * sqrt(du) * z. Yields x (B, *d) at every time."""
    yield x
    for now, then in pairwise(times):
        du = then - now
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + sde.drift(x, now) * du + sde.diffusion(now) * du.sqrt() * z
        yield x


# %% [markdown]
# The most important example bears the names of Ornstein and Uhlenbeck (OU): a spring that pulls
# back to 0, or to some $\mu$, with strength $\theta$, and constant noise.


# %% tags=["formula", "DS-12"]
def pull(theta, sigma, mu=0.0):
    """Ornstein-Uhlenbeck: dX = -theta (X - mu) du + sigma dW."""
    return SDE(lambda x, u: -theta * (x - mu), lambda u: sigma)


# %% tags=["formula", "DS-12"]
def many(equation, start, end, steps, paths):
    """Paths (steps + 1, paths) of an equation that all begin at `start`, and their times."""
    times = torch.linspace(0, end, steps + 1, dtype=torch.float64)
    x = torch.full((paths,), start, dtype=torch.float64)
    return times, torch.stack([*simulate(equation, x, times)])


# %% [markdown] tags=["DS-14"]
# **Check: without noise** ($\sigma=0$) an ordinary equation remains, with the solution
# $x_0e^{-\theta u}$. Euler's error must halve with the step.

# %% tags=["check", "DS-14"]
errors = []
for steps in (100, 200, 400):
    _, x = many(pull(1.0, 0.0), start=1.0, end=1.0, steps=steps, paths=1)
    errors.append(abs(x[-1].item() - math.exp(-1)))
    print(f"{steps} steps: {x[-1].item():.5f}, exact {math.exp(-1):.5f}, error {errors[-1]:.5f}")
for coarse, fine in pairwise(errors):
    assert abs(coarse / fine - 2) < 0.02  # the next order is smaller by a factor du = 1/100

# %% [markdown] tags=["DS-12"]
# **Check: with noise** the spring and the shiver come to a balance. One step multiplies $X$ by
# $c=1-\theta\,du$ and adds noise of variance $\sigma^2du$. At rest the variance $V$ stays as it is,
# $V=c^2V+\sigma^2du$, so
#
# $$V=\frac{\sigma^2du}{1-c^2}=\frac{\sigma^2}{2\theta-\theta^2du}\;\longrightarrow\;
# \frac{\sigma^2}{2\theta}\quad(du\to0).$$

# %% tags=["check", "DS-12"]
paths, du = 10_000, 0.02
_, x = many(pull(1.0, 2.0), start=3.0, end=8.0, steps=round(8 / du), paths=paths)
print(f"variance at time 8: {x[-1].var():.2f}; σ²/2θ = 2.00; with this du {4 / (2 - du):.2f}")
assert abs(x[-1].var() * (2 - du) / 4 - 1) < 4 * (2 / paths) ** 0.5
assert abs(x[-1].mean() - 3 * math.exp(-8)) < 4 * (2 / paths) ** 0.5  # the variance is 2

# %% [markdown] tags=["DS-19"]
# Mean and variance of the *simulated* chain need no sampling, then. Those of the true process are
# known as well: $\mathbb E X_u=e^{-\theta u}x_0$ and $\operatorname{Var}X_u=\sigma^2(1-e^{-2\theta
# u})/2\theta$. (`expm1(a)` is $e^a-1$ without rounding errors.)


# %% tags=["formula", "DS-19"]
def chain_moments(theta, sigma, start, du, steps):
    """Mean and variance after `steps` steps of Euler-Maruyama for a pull theta, exactly."""
    c, mean, variance = 1 - theta * du, start, 0.0
    for _ in range(steps):
        mean, variance = c * mean, c**2 * variance + sigma**2 * du
    return mean, variance


# %% tags=["formula", "DS-19"]
def true_moments(theta, sigma, start, u):
    """Mean and variance of the Ornstein-Uhlenbeck process itself at time u."""
    grown = -math.expm1(-2 * theta * u) / (2 * theta) if theta else u
    return start * math.exp(-theta * u), sigma**2 * grown


# %% tags=["check", "DS-19"]
counts, errors = [10, 20, 40, 80, 160], []
for steps in counts:
    pairs = zip(chain_moments(1, 2, 3, 1 / steps, steps), true_moments(1, 2, 3, 1), strict=True)
    errors.append([abs(ours - true) for ours, true in pairs])
for name, error in zip(("mean", "variance"), zip(*errors, strict=True), strict=True):
    ratios = [coarse / fine for coarse, fine in pairwise(error)]
    print(f"error of the {name:8}, over that with half the step:", *(f"{r:.3f}" for r in ratios))
    assert all(abs(r - 2) < 2 / steps for r, steps in zip(ratios, counts, strict=False))

# %% tags=["DS-19"]
of_mean, of_variance = zip(*errors, strict=True)
curves = {"error of the mean": of_mean, "error of the variance": of_variance}
curves["1 / steps, to compare"] = [1 / steps for steps in counts]
curves = {label: (counts, error) for label, error in curves.items()}
plots.show(
    plots.lines(curves, xlabel="steps to time 1", ylabel="error", log=True),
    alt="Error of mean and variance against the number of steps, log scales: two straight lines, "
    "parallel to a third, one over the number of steps.",
    caption="Twice the steps, half the error, in the mean and in the variance.",
)

# %% [markdown] tags=["DS-22"]
# **Play.** Is the *average* of the noisy paths the path without noise? Predict for the spring,
# $a=-x$, and for a landscape with two valleys, at $\pm1$: $a=x-x^3$.

# %% tags=["play", "DS-22"]
valleys = SDE(lambda x, u: x - x**3, lambda u: 1.0)
still = SDE(valleys.drift, lambda u: 0.0)
worlds = {"spring": (pull(1.0, 1.0), pull(1.0, 0.0)), "two valleys": (valleys, still)}
figure, axes = plots.panels(2, size=(3.6, 2.7))
gaps = {}
for ax, (name, (noisy, quiet)) in zip(axes, worlds.items(), strict=True):
    times, x = many(noisy, start=0.5, end=5.0, steps=250, paths=4000)
    _, alone = many(quiet, start=0.5, end=5.0, steps=250, paths=1)
    plots.paths(times[::5], x[::5, :6], xlabel=f"time u ({name})", ax=ax)
    # the colours of the course, without the markers
    ax.plot(times, alone, label="without noise", **{**plots.ROLE["exact"], "marker": None})
    ax.plot(times, x.mean(1), label="mean of 4000", **{**plots.ROLE["model"], "marker": None})
    ax.set(ylim=(-3.2, 2.6))  # room for the legend
    ax.legend(loc="lower right")
    gaps[name] = (x.mean(1) - alone[:, 0])[-1].abs(), 4 * x[-1].std() / 4000**0.5
plots.show(
    figure,
    alt="Blue paths around two curves. For the spring, the mean of the paths covers the dashed "
    "noiseless curve. For two valleys the noiseless curve climbs to 1, the mean sinks towards 0.",
    caption="With a linear drift the mean always follows the noiseless path; with a bent one, in "
    "general, it does not.",
)

# %% tags=["check", "DS-22"]
for name, (gap, allowed) in gaps.items():
    print(f"{name:11}: mean and noiseless path end {gap:.2f} apart, allowed {allowed:.2f}")
assert gaps["spring"][0] < gaps["spring"][1]
assert gaps["two valleys"][0] > gaps["two valleys"][1]

# %% [markdown] tags=["exercise"]
# **Exercise 2.** You have a recording, 10,000 values over 2 units of time, of a process with
# unknown drift and constant $\sigma$. How do you find $\sigma$ from it?
#
# <details><summary>Answer</summary>
#
# Add up the squares of the steps and divide by the time: QV is $\sigma^2u$. The drift's share of a
# square, $a^2du^2$, and the cross term $2a\,du\,\sigma\,dW$, which has a random sign, both add up
# to no more than the order $du$. The standard error of $\sigma^2$ is $\sigma^2\sqrt{2/10000}$, 1.4
# percent.
# </details>

# %% [markdown] tags=["DS-20", "DS-21", "E-37"]
# ## 7. Where does the σ go?
#
# **Is it so?** The lecture discretises as we did, $X_{u+du}-X_u\approx a\,du+\sigma U$ with $U\sim
# N(0,du)$. Then it draws $\sigma$ into the noise: $\approx a\,du+U'$ with $U'\sim N(0,\sigma\,du)$
# (DS-20). The caption under that formula on the slide calls $U'$ a normal variable whose standard
# deviation is *proportional to the diffusion* (DS-21). Both cannot be right. Is one of them? Three
# readings, and their standard deviations of a step:
#
# * $\sigma U$, the first line: $\sigma\sqrt{du}$;
# * $\sigma\,du$ is the *variance* of $U'$: $\sqrt{\sigma\,du}$;
# * $\sigma\,du$ is the *standard deviation* of $U'$.
#
# Take $\sigma=2$, no drift, and predict the variance at time 1 for each.

# %% tags=["DS-20", "E-37", "T-30"]
readings = {  # the standard deviation of one step, and the variance at time 1 that it leads to
    "exact (σU)": (lambda sigma, du: sigma * du**0.5, lambda sigma, du: sigma**2),
    "variance σ du": (lambda sigma, du: (sigma * du) ** 0.5, lambda sigma, du: sigma),
    "std σ du": (lambda sigma, du: sigma * du, lambda sigma, du: sigma**2 * du),
}

# %% tags=["check", "DS-20", "E-37", "T-30"]
sigma, counts, curves = 2.0, [10, 100, 1000], {}
for name, (std, theory) in readings.items():
    variances = [end_variance(std(sigma, 1 / n), n) for n in counts]
    off = [v / theory(sigma, 1 / n) - 1 for v, n in zip(variances, counts, strict=True)]
    assert max(map(abs, off)) < 4 * (2 / 10_000) ** 0.5
    curves[name] = (counts, variances)
    print(f"{name:13}", *(f"{v:7.3f}" for v in variances))

# %% tags=["DS-20", "E-37"]
plots.show(
    plots.lines(curves, xlabel="steps n", ylabel="variance at time 1, σ = 2", log=True),
    alt="Variance against the number of steps, log scales. σU stays at 4; the reading as variance "
    "σ du stays at 2, flat but wrong; the reading as standard deviation falls towards 0.",
    caption="A result that does not depend on the step need not be right.",
)

# %% [markdown] tags=["DS-21"]
# Now the caption: how does the spread of *one* step grow with $\sigma$ and with $du$? In a log-log
# plot a proportionality has slope 1.


# %% tags=["formula", "DS-21"]
def spread(sigma, du, paths):
    """Standard deviation of one simulated step from 0, without drift."""
    # the star swallows all but the last point of the path
    *_, x = simulate(pull(0.0, sigma), torch.zeros(paths), torch.tensor([0.0, du]))
    return x.std().item()


# %% tags=["formula", "DS-21"]
def log_slope(sizes, spreads):
    """Slope of log spread against log size by least squares, and its error per unit of noise."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (sizes, spreads))
    x = x - x.mean()
    return ((x @ y) / (x @ x)).item(), (1 / (x @ x)).sqrt().item()


# %% tags=["check", "DS-21", "E-37"]
paths, sizes = 20_000, [0.25, 0.5, 1.0, 2.0, 4.0]
for name, spreads, expected in (
    ("σ", [spread(s, 0.01, paths) for s in sizes], 1.0),
    ("du", [spread(1.0, s, paths) for s in sizes], 0.5),
):
    slope, error = log_slope(sizes, spreads)
    print(f"slope of the standard deviation in {name:2}: {slope:.2f}   expected {expected}")
    assert abs(slope - expected) < 4 * error / (2 * paths) ** 0.5  # of log std: ± 1/√(2n)

# %% [markdown] tags=["DS-20", "DS-21", "E-37"]
# **Put right.** $U'\sim N(0,\sigma^2du)$, with standard deviation $\sigma\sqrt{du}$. The caption is
# right about $\sigma$ (and so contradicts the formula above it); of $du$ it would be wrong. *A
# factor that is drawn into a variance is squared.*

# %% [markdown] tags=["DS-13"]
# ## 8. Three equations
#
# **Story.** Drift and diffusion may change with value and time (DS-13). Three choices return
# throughout this course. **OU** is the spring. **VP**, *variance preserving*, is OU with resting
# variance 1, on a clock that runs at the speed $\beta(u)$. **VE**, *variance exploding*, has no
# spring, only noise, which by time $u$ has the variance $s(u)^2$.
#
# $$\text{VP:}\ \ dX=-\tfrac12\beta(u)X\,du+\sqrt{\beta(u)}\,dW\qquad
# \text{VE:}\ \ dX=\sqrt{\tfrac{d}{du}s(u)^2}\;dW$$
#
# We take $\beta$ from 0.1 to 20 and $s(u)=80u$, as in Song et al. (2021) and Karras et al. (2022)
# respectively. From a fixed start $x_0$ mean and standard deviation are known: VP multiplies $x_0$
# by $m=e^{-\frac12\int\beta}$ and adds variance $1-m^2$; VE adds $s^2$.


# %% tags=["formula", "DS-13"]
def beta(u):
    return 0.1 + 19.9 * u


def shrinkage(u):
    """exp(-1/2 integral of beta from 0 to u)."""
    return torch.exp(-(0.1 * u + 19.9 * u**2 / 2) / 2)


# %% tags=["formula", "DS-13"]
equations = {  # and their last time
    "OU": (pull(1.0, 1.0), 3),
    "VP": (SDE(lambda x, u: -beta(u) / 2 * x, lambda u: beta(u).sqrt()), 1),
    "VE": (SDE(lambda x, u: 0 * x, lambda u: 80 * (2 * u).sqrt()), 1),
}
exact = {  # what multiplies the start, and the standard deviation of what is added
    "OU": lambda u: ((-u).exp(), ((1 - (-2 * u).exp()) / 2).sqrt()),
    "VP": lambda u: (shrinkage(u), (1 - shrinkage(u) ** 2).sqrt()),
    "VE": lambda u: (torch.ones_like(u), 80 * u),
}

# %% tags=["check", "DS-13"]
paths, (figure, axes) = 5000, plots.panels(3, size=(2.9, 2.6))
for ax, (name, (equation, end)) in zip(axes, equations.items(), strict=True):
    times, x = many(equation, start=1.0, end=end, steps=500, paths=paths)
    mean, std = exact[name](times)
    plots.paths(times[::10], x[::10, :6], xlabel=f"time u ({name})", ax=ax)
    look = {**plots.ROLE["exact"], "marker": None, "lw": 1}  # dashed and thin
    ax.plot(times, torch.stack([mean - 2 * std, mean + 2 * std], 1), **look)
    allowed = 4 * std[-1] / paths**0.5 + 5 / 500  # 5 du: Euler's error
    print(f"{name}: std {x[-1].std():.2f} ({std[-1]:.2f}), ", end="")
    print(f"mean {x[-1].mean():.2f} ({mean[-1]:.2f} ± {allowed:.2f})")
    assert abs(x[-1].mean() - mean[-1]) < allowed
    assert abs(x[-1].std() / std[-1] - 1) < 4 / (2 * paths) ** 0.5 + 5 / 500
plots.show(
    figure,
    alt="Six paths from 1 in each of three panels, between dashed curves two standard "
    "deviations around the mean. OU and VP settle in a band around 0, VP's from -2 to 2; the VE "
    "paths fan out to 100 and beyond.",
    caption="Dashed: the exact mean ± 2 standard deviations. Mind the scale on the right.",
)

# %% [markdown] tags=["DS-13"]
# The library's `schedule_sde` differentiates a *schedule* of noise levels and finds its equation;
# here, our VE.

# %% tags=["check", "DS-13"]
found, u = schedule_sde(schedules.exploding(80.0)), torch.tensor(0.3, dtype=torch.float64)
by_hand = equations["VE"][0].diffusion(u)
print(f"diffusion at u = 0.3: derived {found.diffusion(u):.6f}, by hand {by_hand:.6f}")
assert abs(found.diffusion(u) - by_hand) < 1e-10

# %% [markdown] tags=["DS-13"]
# **And if σ depends on the value?** The lecture allows $\sigma(X,u)$. Then the formula hides a
# decision. Take $dX=X\,dW$: is $X$ to be read at the *beginning* of the step (Itô; this is what
# Euler-Maruyama does) or in its *middle* (Stratonovich)? For ordinary equations nobody would
# notice. Predict the mean at time 1, from 1.


# %% tags=["formula", "DS-13"]
def multiplicative(steps, paths, ahead):
    """dX = X dW on [0, 1] from 1, by steps of x_read * dw. Returns (paths,).

    ahead: where in the step X is read, 0 at its beginning, 0.5 in its middle. What it is there we
    estimate by going that share of a first step: x_read = x + ahead * (x * dw).
    """
    x = torch.ones(paths, dtype=torch.float64)
    for _ in range(steps):
        dw = steps**-0.5 * torch.randn_like(x)
        x = x + (x + ahead * x * dw) * dw
    return x


# %% [markdown] tags=["DS-13"]
# As $\mathbb E\,dW=0$ and $\mathbb E\,dW^2=du$, one step multiplies the mean by
# $1+\mathtt{ahead}\,du$; all of them by nearly $e^{\mathtt{ahead}}$.

# %% tags=["check", "DS-13"]
for name, ahead in (("beginning", 0.0), ("middle", 0.5)):
    x, expected = multiplicative(200, 40_000, ahead), (1 + ahead / 200) ** 200
    print(f"read at the {name:9}: mean {x.mean():.2f}, expected {expected:.2f}", end="")
    print(f", in the limit {math.exp(ahead):.2f}")
    assert abs(x.mean() - expected) < 4 * x.std() / len(x) ** 0.5

# %% [markdown] tags=["DS-13"]
# A late look is not forgiven where $dW^2=du$. In this course $\sigma$ depends on time alone (so
# does the library's `SDE`), and the two readings agree.

# %% [markdown] tags=["exercise"]
# **Exercise 3.** Choose the noise of a spring of strength $\theta$ such that it rests at unit
# variance. What do you get for $\theta=\tfrac12\beta$?
#
# <details><summary>Answer</summary>
#
# $\sigma^2/2\theta=1$ means $\sigma=\sqrt{2\theta}$, and that is $\sqrt\beta$ for
# $\theta=\frac12\beta$: VP, always in balance at variance 1. Hence the name: data of variance 1
# keep it.
# </details>

# %% [markdown] tags=["DS-26", "E-39"]
# ## 9. What comes to rest in a bell?
#
# **Is it so?** Why does noising end in $N(0,I)$? The lecture's intuition: a drift that *shrinks*,
# $|a|<1$, plus noise leads to an isotropic Gaussian (DS-26). Six drifts, all with $\sigma=1$, from
# 3 to time 20. Which give a Gaussian, which come to *rest*, and which have $|a|<1$, in whatever
# sense you like?

# %% tags=["DS-26", "E-39"]
drifts = {  # and the pull θ of a linear one; a constant drift has none
    "-x": (lambda x, u: -x, 1.0),
    "-5x": (lambda x, u: -5 * x, 5.0),
    "+x/2": (lambda x, u: x / 2, -0.5),
    "1/2": (lambda x, u: 0.5 + 0 * x, 0.0),
    "0": (lambda x, u: 0 * x, 0.0),
    "x - x³": (lambda x, u: x - x**3, None),
}
halfway, ends, paths, du = {}, {}, 4000, 0.02
for name, (drift, _) in drifts.items():
    _, x = many(SDE(drift, lambda u: 1.0), start=3.0, end=20.0, steps=1000, paths=paths)
    halfway[name], ends[name] = x[500], x[-1]


# %% tags=["formula", "DS-26"]
def excess_kurtosis(x):
    """Mean of z^4 - 3, z = x in standard units: 0 for a Gaussian, -1.2 for a flat law. x (N,)."""
    z = (x - x.mean()) / x.std()
    return (z**4).mean() - 3


# %% tags=["check", "DS-26", "E-39"]
rows, allowed = [], 4 * (24 / paths) ** 0.5
for name, (_, theta) in drifts.items():
    early, x, shown = halfway[name], ends[name], "-"
    for sample in (early, x):
        assert (abs(excess_kurtosis(sample)) < allowed) == (name != "x - x³")
    if theta is not None:
        mean, variance = chain_moments(theta, 1, 3, du, 1000)
        mean, shown = mean + (10 if name == "1/2" else 0), f"{variance:.3g}"  # 10: a push of ½
        assert abs(x.mean() - mean) < 4 * (variance / paths) ** 0.5
        assert abs(x.var() / variance - 1) < 4 * (2 / paths) ** 0.5
    numbers = [f"{value:.3g}" for value in (x.mean(), early.var(), x.var())]
    rows.append([name, *numbers, shown, f"{excess_kurtosis(x).round(decimals=1) + 0:.1f}"])
header = ["drift", "mean", "variance at 10", "at 20", "expected", "excess kurtosis"]
plots.table(rows, header=header, caption="From 3, with σ = 1")

# %% tags=["check", "DS-26"]
_, x = many(equations["VE"][0], start=3.0, end=1.0, steps=500, paths=paths)
print(f"VE at its end: excess kurtosis {excess_kurtosis(x[-1]):.2f}, allowed ± {allowed:.2f}")
assert abs(excess_kurtosis(x[-1])) < allowed

# %% [markdown] tags=["DS-26", "E-39"]
# A bell is cheap: from a fixed start, noise that does not depend on the place and *any* linear
# drift make one at every time, as a sum of independent Gaussians. So do $+x/2$, ½, 0 and VE. What
# is rare is *rest*: with $+x/2$ the variance explodes, with ½ and 0 it doubles from time 10 to 20,
# and all three remember their start. The pull of 5 is *above* 1 and does well. And $x-x^3$ rests in
# something with two humps. If the drift is the slope down a landscape of height $h$, here
# $h=x^4/4-x^2/2$, the density at rest is
#
# $$p_\infty(x)\;\propto\;e^{-2h(x)/\sigma^2},\qquad a=-h',$$
#
# a Gaussian if the landscape is a parabola, opening upwards, and for no other shape.

# %% tags=["check", "DS-26", "E-39"]
x = torch.linspace(-4, 4, 801, dtype=torch.float64)
weight = torch.exp(x**2 - x**4 / 2)  # e^(-2h), and sums times 0.01 for integrals
humps = weight / (weight.sum() * 0.01)
for power in (2, 4):
    expected, sample = (humps * x**power).sum() * 0.01, ends["x - x³"] ** power
    print(f"E[x^{power}]: simulated {sample.mean():.2f}, by quadrature {expected:.2f}")
    assert abs(sample.mean() - expected) < 4 * sample.std() / paths**0.5 + 5 * du  # Euler's share
kurtosis = (humps * x**4).sum() * 0.01 / ((humps * x**2).sum() * 0.01) ** 2 - 3
print(f"excess kurtosis by quadrature {kurtosis:.2f}")

# %% tags=["DS-26", "E-39"]
figure, axes = plots.panels(3, size=(2.9, 2.5))
curves = {"-x": Normal(0, 0.5**0.5).log_prob(x).exp(), "x - x³": humps}
curves["1/2"] = Normal(13, 20**0.5).log_prob(x * 10).exp()
for ax, (name, curve) in zip(axes, curves.items(), strict=True):
    wide = x * (10 if name == "1/2" else 1)
    label = f"x (drift {name})"
    plots.densities(wide, {"exact": curve}, samples={"simulated": ends[name]}, xlabel=label, ax=ax)
    ax.set(ylim=(0, 1.35 * curve.max().item()))  # room for the legend
plots.show(
    figure,
    alt="Three histograms under dashed exact densities. Drift -x: one bell around 0. Drift x - x³: "
    "two humps at -1 and 1. Drift one half, on an axis ten times as long: a bell around 13.",
    caption="A bell at rest; something else at rest; a bell, not at rest. Mind the scales.",
)

# %% [markdown] tags=["DS-26", "E-39"]
# **Put right.** To come to rest in a bell and forget its start, a process whose noise does not
# depend on the place needs a drift that is *linear* and pulls *inwards*, $a=-\theta(x-\mu)$ with
# any $\theta>0$. It rests at $N(\mu,\sigma^2/2\theta)$, which is isotropic exactly if
# $\sigma^2/2\theta$ is the same in every direction. Two directions with the pulls 1 and 4, and two
# choices of noise:

# %% tags=["check", "DS-26", "E-39"]
pulls, mu = [1.0, 4.0], torch.tensor([1.0, -1.0], dtype=torch.float64)
times, start = torch.linspace(0, 8, 801, dtype=torch.float64), torch.full((5000, 2), 3.0).double()
for sigmas in ([2.0, 2.0], [2.0, 4.0]):
    world = pull(torch.tensor(pulls).double(), torch.tensor(sigmas).double(), mu)
    *_, x = simulate(world, start, times)
    for axis, (theta, sigma) in enumerate(zip(pulls, sigmas, strict=True)):
        off, wanted = chain_moments(theta, sigma, 3 - mu[axis], 0.01, 800)
        mean, variance = x[:, axis].mean(), x[:, axis].var()
        print(f"θ {theta:.0f}, σ {sigma:.0f}: mean {mean:5.2f} ({mu[axis]:.0f}), ", end="")
        print(f"variance {variance:.2f} ({sigma**2 / 2 / theta:.1f}; this du {wanted:.2f})")
        assert abs(mean - mu[axis] - off) < 4 * (wanted / len(x)) ** 0.5
        assert abs(variance / wanted - 1) < 4 * (2 / len(x)) ** 0.5

# %% [markdown] tags=["DS-26", "E-39"]
# So where does "$|\cdot|<1$" come from? From *discrete* time: a chain $X\leftarrow cX+\text{noise}$
# forgets its start if $|c|<1$. That is a condition on the factor of the chain (above
# $c=1-\theta\,du$, in lesson 03 $c=\sqrt{1-p}$), not on the drift.
#
# **Play.** Everything together: a pull, a noise, and a step that you choose. Find (a) a step that
# gets the variance wrong but looks right, (b) the step at which a pull of 4 loses control, (c) a
# pull for which even the exact process does not settle.
#
# <details><summary>Answer</summary>
#
# (a) For example $du=0.4$ at $\theta=2$: 0.42 instead of 0.25. (b) $du=0.5$, where $c=-1$: the
# paths change sides and spread. (c) $\theta\le0$: at 0 the variance grows like time, below 0
# exponentially.
# </details>


# %% tags=["play", "DS-26"]
def frames(du, theta, sigma, fan, x):
    """Paths from 3 to about time 4; where 4000 of them end, against the exact density there."""
    steps, start = round(4 / du), torch.full((4000,), 3.0, dtype=torch.float64)
    times = du * torch.arange(steps + 1, dtype=torch.float64)
    seeded = torch.Generator().manual_seed(7)
    walks = torch.stack([*simulate(pull(theta, sigma), start, times, seeded)])
    mean, variance = true_moments(theta, sigma, 3.0, steps * du)
    bell = Normal(mean, variance**0.5).log_prob(x).exp()
    _, chain = chain_moments(theta, sigma, 3.0, du, steps)
    yield widgets.Frame(
        fan.draw(times, walks, bell),
        f"{steps} steps, c = {1 - theta * du:.2f}. Variance {walks[-1].var():.3g}; "
        f"theory for this step {chain:.3g}; exact {variance:.3g}",
    )


# %% tags=["play", "DS-26"]
x = torch.linspace(-5, 5, 241, dtype=torch.float64)
controls = {
    "du": widgets.slider("step size du", 0.05, 1.0, value=0.1, step=0.05),
    "theta": widgets.slider("pull θ", -0.5, 5.0, value=2.0, step=0.25),
    "sigma": widgets.slider("diffusion σ", 0.2, 2.0, value=1.0, step=0.1),
}
explorer = widgets.Explorer(partial(frames, fan=plots.Fan(x, last=4.4), x=x), controls, width=540)
explorer.show(
    alt="Forty jagged paths that start at 3; beside them, on its side, a histogram of where 4000 "
    "paths end, with the exact bell dashed. With small steps both agree; with larger ones the "
    "histogram is too wide, and at a step of 1 they jump between about 3 and -3 and spread.",
    still_over="du",
    values=[0.1, 0.4, 0.7, 1.0],
)

# %% tags=["check", "DS-26"]
readouts = {}
for du in (0.05, 0.4, 0.1):
    explorer["du"].value = du
    explorer.wait()
    readouts[du] = explorer.readout
    print(explorer.readout)
measured, theory, exact = (float(part.split()[-1]) for part in readouts[0.4].split(";"))
assert abs(measured / theory - 1) < 4 * (2 / 4000) ** 0.5 + 0.01  # 0.01: three digits are printed
assert abs(theory - 1 / (4 - 2**2 * 0.4)) < 0.001  # σ² / (2θ - θ² du)
assert theory > 1.5 * exact

# %% [markdown] tags=["exercise"]
# **Exercise 4.** For the pull $\theta=5$: below which step does the chain forget its start? And
# from which step on is its resting variance at least 10 percent too large?
#
# <details><summary>Answer</summary>
#
# $|1-5\,du|<1$ means $du<0.4$. The chain rests at
# $\frac{\sigma^2}{2\theta}\big/(1-\tfrac{\theta\,du}2)$, 10 percent too large when
# $\theta\,du/2=1/11$: $du=0.036$. To be right takes ten times the steps that it takes to be stable.
# </details>

# %% [markdown]
# ## 10. Bug museum
#
# Three mistakes that run without complaint. Each is hung beside the right version and measured in
# the same way: by what an eye sees in the samples, and by checks that look more closely. ✗ marks
# what is off.

# %% [markdown] tags=["T-30"]
# **The scale that fits by chance (T-30).** Somebody writes `sigma * du * z`, sees too little noise,
# and turns $\sigma$ up from 1 to 10 until the histogram fits. Somebody else reads $N(0,\sigma\,du)$
# on the slide and writes `(sigma * du) ** 0.5`. Here are 4000 ends each, with $\sigma=1$ and 100
# steps. Cover the titles: which panel is right?


# %% tags=["T-30"]
def spread_of_ends(std, sigma, n, paths=4000):
    """Variance at time 1, over sigma², of n steps with the standard deviation std(sigma, du)."""
    return end_variance(std(sigma, 1 / n), n, paths) / sigma**2


def histogram(exhibit, ax):
    x, n = torch.linspace(-4, 4, 161, dtype=torch.float64), 100
    ends = (exhibit.version(1, 1 / n) * torch.randn(n, 4000)).sum(0)
    bell = Normal(0.0, 1.0).log_prob(x).exp()
    plots.densities(x, {"exact": bell}, samples={"model": ends}, ax=ax)


# %% tags=["check", "T-30"]
by_chance = 4 * (2 / 4000) ** 0.5
exhibits = museum.inspect(
    {
        "right: σ √du": lambda sigma, du: sigma * du**0.5,
        "T-30: 10 σ du": lambda sigma, du: 10 * sigma * du,
        "T-30: √(σ du)": lambda sigma, du: (sigma * du) ** 0.5,
    },
    eye={"σ 1, 100 steps": Check(lambda std: spread_of_ends(std, 1, 100), 1, by_chance)},
    units={
        "σ 1, 1000 steps": Check(lambda std: spread_of_ends(std, 1, 1000), 1, by_chance),
        "σ 2, 100 steps": Check(lambda std: spread_of_ends(std, 2, 100), 1, by_chance),
    },
)
assert not any(exhibit.visible for exhibit in exhibits)

# %% tags=["T-30"]
museum.show(
    exhibits,
    caption="Variance at time 1, divided by σ²",
    draw=histogram,
    alt="Three histograms under the same dashed exact bell. All three fill it; they look alike.",
)

# %% [markdown] tags=["T-30"]
# Nobody can see it: at $du=1/100$ the first mistake says the same as the truth, $10\,du=\sqrt{du}$,
# and at $\sigma=1$ the second does, at every step. *Check: change the step, and the variance must
# not care; and have one test with a σ other than 1.*

# %% [markdown] tags=["T-07"]
# **The generator in the loop (T-07).** For reproducible results somebody seeds *inside* the loop.
# Every step then gets the same noise $z$. Predict where the paths of a spring come to rest.


# %% tags=["T-07"]
def reseeded(equation, x, times):
    """simulate, with its generator made anew in every step."""
    yield x
    for now, then in pairwise(times):
        *_, x = simulate(equation, x, torch.stack([now, then]), torch.Generator().manual_seed(0))
        yield x


# %% tags=["T-07"]
times, start = torch.linspace(0, 5, 501, dtype=torch.float64), torch.full((2000,), 3.0).double()
walks = {"right": simulate, "T-07: seeded in the loop": reseeded}
walks = {name: torch.stack([*walk(pull(1.0, 1.0), start, times)]) for name, walk in walks.items()}


def noise_of(walk):
    """What the noise has contributed to each step: the step without the pull, 0.01 X."""
    return walk.diff(dim=0) + 0.01 * walk[:-1]


def correlation(steps):
    """Of each step with the next; the mean is 0."""
    return (steps[1:] * steps[:-1]).mean() / (steps**2).mean()


# %% tags=["check", "T-07"]
rest, size = 0.5**0.5, 2000 * 499
exhibits = museum.inspect(
    walks,
    eye={"std of the ends": Check(lambda w: w[-1].std(), rest, 4 * rest / 4000**0.5 + 0.01)},
    units={
        "QV / time": Check(
            lambda w: (noise_of(w) ** 2).sum(0).mean() / 5, 1, 4 * (2 / 2000) ** 0.5
        ),
        "step and next": Check(lambda w: correlation(noise_of(w)), 0, 4 / size**0.5),
    },
)


# %% tags=["T-07"]
def over_time(exhibit, ax):
    role = "model" if exhibit.caught else "data"
    plots.paths(times[::10], exhibit.version[::10, :8], role=role, xlabel="time u", ax=ax)
    ax.set_ylim(-22, 22)


museum.show(
    exhibits,
    caption="A spring from 3 to time 5. QV: the size of single steps; step and next: correlation",
    draw=over_time,
    alt="Left, jagged paths in a narrow band around 0. Right, on the same axes, perfectly smooth "
    "curves that fan out from 3 and level off, most of them far away.",
)

# %% [markdown] tags=["T-07"]
# Noise that never changes is a wind: each path comes to rest where the pull balances it,
# $\theta x=\sigma z/\sqrt{du}$, with standard deviation 10 instead of 0.71. Yet QV is as it should
# be. *Check: the noise of one step must not know that of the next.*

# %% [markdown] tags=["T-24"]
# **The silent broadcast (T-24).** The noise has one *row* per step, and its scale `du.sqrt()` the
# shape (steps,). But torch lines shapes up from the right and scales the *columns*, the paths. With
# as many paths as steps it does not complain, and with equal steps no harm is done. Here they grow,
# as in many grids of samplers.

# %% tags=["check", "T-24"]
u = torch.linspace(0, 1, 513, dtype=torch.float64) ** 3  # short steps first
z, du = torch.randn(512, 512, dtype=torch.float64), u.diff()
exhibits = museum.inspect(
    {
        "right: a scale for each step": (du.sqrt()[:, None] * z).cumsum(0),
        "T-24: a scale for each path": (du.sqrt() * z).cumsum(0),
    },
    eye={"kurtosis at 1": Check(lambda w: excess_kurtosis(w[-1]), 0, 4 * (24 / 512) ** 0.5)},
    units={
        "variance at 1": Check(lambda w: w[-1].var(), 1, 4 * (2 / 512) ** 0.5),
        "8 × that at 1/8": Check(lambda w: 8 * w[255].var(), 1, 4 * (2 / 512) ** 0.5),
    },
)

# %% tags=["T-24"]
museum.show(
    exhibits,
    caption="512 paths of 512 growing steps. Half of them have passed at an eighth of the time",
    draw=lambda exhibit, ax: plots.paths(
        u[1::8],
        exhibit.version[::8, ::32],
        role="model" if exhibit.caught else "data",
        xlabel="time u",
        ax=ax,
    ),
    alt="Two fans of paths. Left, they spread evenly over time. Right, they shoot apart at the "
    "start, some far out and some hardly at all.",
)

# %% [markdown]
# At time 1 the *average* variance is right in both, as all $du$ add up to 1; but each path has got a
# scale of its own, and some are far out. *Check: as many paths as steps, unequal steps, and look
# half-way.*
#
# ## Answers, checked

# %% tags=["solution", "check"]
faces = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4).sum(1)  # all 16 games of 4 coins
assert (faces**2).mean() == 1  # exercise 1
assert (faces**4).mean() == 3 - 2 / 4
recording = many(SDE(lambda x, u: 3 - x, lambda u: 1.7), 0.0, 2.0, 10_000, 1)[1]
variance = (recording.diff(dim=0) ** 2).sum() / 2
assert abs(variance / 1.7**2 - 1) < 4 * (2 / 10_000) ** 0.5  # exercise 2
assert math.isclose(true_moments(3.0, 6**0.5, 0.0, 50.0)[1], 1)  # exercise 3: θ = 3, β = 6
assert abs(1 - 5 * 0.4) == 1  # exercise 4
assert math.isclose(1 / (1 - 5 * (2 / 55) / 2), 1.1)
print("all four hold")

# %% [markdown]
# ## What we learned
#
# * A process is Markov if, *given* the present, the past adds nothing. A regression by straight
#   lines can hint at that, no more.
# * $dW$ has the *variance* $du$. Hence the $\sqrt{du}$ in every simulation; a Wiener path is
#   infinitely long, and its quadratic variation is the time.
# * Euler-Maruyama: $X+a\,du+\sigma\sqrt{du}\,z$. The error of the mean and of the variance halves
#   with the step. Test the noise with *two* steps and a $\sigma$ other than 1.
# * From a fixed start any linear drift gives a bell, if the noise is the same everywhere. Only a
#   pull *inwards* rests, at $N(\mu,\sigma^2/2\theta)$. "Below 1" concerns the factor of a chain.
#
# ## References
#
# * Einstein 1905, *On the movement of small particles suspended in liquids*, sections 3 to 5;
#   Wiener 1923, *Differential space*.
# * Uhlenbeck & Ornstein 1930, *On the theory of the Brownian motion*, section II.
# * Maruyama 1955, *Continuous Markov processes and stochastic equations*.
# * Higham 2001, *An algorithmic introduction to numerical simulation of stochastic differential
#   equations*, sections 2, 4, 5 and 7.
# * Song et al. 2021, *Score-based generative modeling through stochastic differential equations*,
#   section 3.4, eq. 9 and 11.
# * Karras et al. 2022, *Elucidating the design space of diffusion-based generative models*,
#   table 1.
#
# **Where next:** lesson 03 walks the VP process in steps, on pictures, and finds that a thousand
# steps are one.
