# %% [markdown]
# # 07 · Samplers
#
# *One canvas of noise, one denoiser, and several ways to walk from the first to a picture. You write
# four of them, measure how fast each closes in on the truth, and choose the number of steps yourself.*
#
# **You need** noise levels (lesson 03), a reverse step (04), and why a denoiser knows the score (06).
#
# **You will be able to** write DDPM, DDIM, Heun and DPM-Solver++(2M) from memory, say what each costs, choose
# a grid and a number of steps by measurement, and catch six famous bugs.
#
# **Time** an hour and a half to read; about 25 seconds of computing on two CPU cores.
#
# **The codes.** The course follows a series of lectures and tests what they say. (L22-31) names a slide, DS-53
# one of another deck, E-28 a slip on a slide, T-05 a classic mistake of students.

# %% tags=["setup"]
import math
from itertools import pairwise

import torch

from didiff import data, guidance, mixtures, samplers
from didiff.notebook import museum, plots
from didiff.notebook.museum import Check
from didiff.notebook.widgets import Explorer, Frame, choice, slider
from didiff.process import NoiseLevel, Prediction, add_noise, from_x0
from didiff.samplers import initial_noise, last, look, probability_flow
from didiff.schedules import DDPMSchedule, grid, karras_levels, log_snr_grid, trigonometric
from didiff.training import metrics

torch.manual_seed(0)
torch.set_num_threads(1)  # our tensors are small: a second thread costs more than it gives
plots.style()

# %% [markdown]
# In the whole lesson the denoiser is *exact*: a mixture of Gaussians, for which $\mathbb E[x_0\mid x_t]$
# is a formula. So every error that we shall see is the sampler's own, never the network's.

# %%
schedule = DDPMSchedule()  # T = 1000, linear betas: the table of lesson 03
bump = mixtures.gaussian(mean=1.0, std=0.5)  # N(1, 0.5²) on the line
world = mixtures.three_modes()  # three bumps in the plane, std 0.3


def seeded(seed):
    return torch.Generator().manual_seed(seed)


noise = initial_noise((1000, 2), schedule.at(1000), seeded(0), torch.float64)

# %% [markdown]
# ## 1. The move that all samplers share
#
# **Story.** We hold a noisy point $x_t$ at level $t$ and ask the denoiser how it was made. It answers
# with a pair: $\hat x_0$, its mean guess at the picture, and $\hat\epsilon$, the noise that then explains
# $x_t$. A sampler mixes that pair again, at a *slightly* cleaner level $s$, and asks anew:
#
# $$x_t=\text{signal}_t\,\hat x_0+\text{noise}_t\,\hat\epsilon\quad\longrightarrow\quad
# x_s=\text{signal}_s\,\hat x_0+\text{noise}_s\,\hat\epsilon .$$
#
# In the lectures' letters $\text{signal}_s=\sqrt{\bar\alpha_s}$ and $\text{noise}_s=\sqrt{1-\bar\alpha_s}$.
# Two words: `look` asks the denoiser about one point and returns a `State(x, t, x0, eps)`; a *walk* is
# a generator that yields one state after the other. At noise 0 nothing is left to explain: `look` returns
# $\hat x_0=x$, $\hat\epsilon=0$ unasked. So $S$ steps cost $S$ calls.
#
# A level has three names, all 0 at the data: its number $k\le T=1000$ in the table, `schedule.at(k)`; the
# fraction $u=k/T$, `schedule(u)`, in which `grid` walks; and the clock $\frac2\pi\arctan\sigma$, the same
# on every schedule. In this lesson $\sigma=\text{noise}/\text{signal}$, and nothing else.
#
# **Predict.** The lecture's picture is "estimate the noise and remove it" (DS-59). Why not remove all of
# it at once, in one call? What will the standard deviation of the guesses $\hat x_0$ be at level $k=700$,
# if that of the data is $d=0.5$? (For a Gaussian the best guess is a straight line in $x_t$, of slope $K=\operatorname{cov}(x_0,x_t)/\operatorname{var}(x_t)=\text{signal}\,d^2/(\text{signal}^2d^2+\text{noise}^2)$.)


# %%
def one_shot(mixture, t, n):
    x0, _ = mixture.sample(n, generator=seeded(1))
    eps = torch.randn(x0.shape, generator=seeded(2), dtype=x0.dtype)
    return mixture(add_noise(x0, eps, t), t).x0


# %% tags=["DS-59", "check"]
for k in (300, 700):
    t, n, d = schedule.at(k), 20_000, 0.5
    spread = (t.signal**2 * d**2 + t.noise**2).sqrt()  # the standard deviation of x_t
    theory = t.signal * d**2 / spread**2 * spread  # slope K times that
    measured = one_shot(bump, t, n).std()
    print(f"level {k}: std of the one-shot guess {measured:.3f}, theory {theory:.3f}, data 0.500")
    assert abs(measured - theory) < 4 * theory / (2 * n) ** 0.5

# %% [markdown]
# The guess is the *average* of all pictures that could have led here: a blur. Hence many small moves: each
# trusts the blur a little, then looks again. Samplers differ in what they do with $\hat\epsilon$.
#
# ## 2. Ancestral sampling: DDPM
#
# **Story.** Lesson 04 found the reverse step $q(x_s\mid x_t,x_0)$: a Gaussian. Ancestral sampling draws
# from it, with $\hat x_0$ in place of $x_0$. Written as our move, it forgets a share $\rho$ of
# $\hat\epsilon$ (none if $s=t$, all if $s$ is the data) and draws new noise instead:
#
# $$x_s=\text{signal}_s\,\hat x_0+\text{noise}_s\sqrt{1-\rho^2}\,\hat\epsilon+w\,\rho\,z,\qquad
# \rho^2=1-\frac{\sigma_s^2}{\sigma_t^2},\qquad z\sim\mathcal N(0,I).$$
#
# The width $w$ is $\text{noise}_s$ for the lectures' $\tilde\beta$ (`"posterior"`), or $\text{noise}_t$
# for their $\beta$, which leaves *more* than $\text{noise}_s$ in $x_s$: too much for a known $x_0$, welcome
# for a guessed one (exercise 1). Both are from Ho et al. 2020, section 3.2.


# %% tags=["twin:didiff.samplers.ddpm"]
def ddpm(denoiser, x, levels, variance="posterior", generator=None):
    for t, s in pairwise(levels):  # we stand at t, and go to s
        state = look(denoiser, x, t)
        yield state
        rho = (1 - (s.sigma / t.sigma) ** 2).sqrt()
        x = add_noise(state.x0, (1 - rho**2).sqrt() * state.eps, s)
        if s.noise > 0:  # the last step returns the mean
            width = {"posterior": s.noise, "beta": t.noise}[variance]
            x = x + width * rho * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    yield look(denoiser, x, s)


# %% [markdown]
# **Check.** The lecture's Algorithm 2 writes the same step in $\alpha_t$, $\beta_t$ and $\bar\alpha_t$:
# $x_{t-1}=\big(x_t-\beta_t\hat\epsilon/\sqrt{1-\bar\alpha_t}\big)/\sqrt{\alpha_t}+\sqrt{v_t}\,z$ with
# the variance $v_t=\tilde\beta_t$ or $\beta_t$. Same number?

# %% tags=["check", "formula"]
k, x = 300, torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
beta, now, before = schedule.beta[k - 1], schedule.alpha_bar[k], schedule.alpha_bar[k - 1]
mean = (x - beta * bump(x, schedule.at(k)).eps / (1 - now).sqrt()) / (1 - beta).sqrt()
z = torch.randn(x.shape, generator=seeded(3), dtype=x.dtype)
for variance, value in {"posterior": beta * (1 - before) / (1 - now), "beta": beta}.items():
    ours = last(ddpm(bump, x, [schedule.at(k), schedule.at(k - 1)], variance, seeded(3)))
    gap = (ours - (mean + value.sqrt() * z)).abs().max()
    print(f"{variance:9}  v_t = {value:.6f}   largest difference {gap:.10f}")
    assert gap < 1e-10

# %% [markdown]
# **The two ends (DS-54).** The walk starts at $x_T\sim\mathcal N(0,I)$, and the algorithm says $z=0$ in
# the last step. Is that switch necessary? It depends on the variance:

# %% tags=["DS-54", "check"]
tilde = schedule.beta * (1 - schedule.alpha_bar[:-1]) / (1 - schedule.alpha_bar[1:])
end = [schedule.at(1), schedule.at(0)]
z = [torch.randn(x.shape, generator=seeded(seed)) for seed in (1, 2)]
for variance, value in {"posterior": tilde[0], "beta": schedule.beta[0]}.items():
    one, two = (last(ddpm(bump, x, end, variance, seeded(seed))) for seed in (1, 2))
    apart = (value.sqrt() * (z[0] - z[1])).abs().max()  # what two draws would make of one mean
    print(f"{variance:9}  v_1 = {value:.0e}: without the switch two seeds differ by {apart:.3f}")
    assert torch.equal(one, two)  # with it, never
    assert (apart == 0) == (variance == "posterior")

# %% [markdown]
# With $\tilde\beta_1=0$ the switch is redundant; with $\beta_1=10^{-4}$ it is essential (T-06 in
# the bug museum shows when).
#
# **A thousand forwards (L22-31).** One network call a step: let a counter say so. The answer must be
# $\mathcal N(1,0.5^2)$, to four standard errors.


# %%
def counted(denoiser):
    def ask(x, t):
        ask.calls += 1
        return denoiser(x, t)

    ask.calls = 0
    return ask


# %% tags=["L22-31", "check"]
n = 10_000
for variance in ("posterior", "beta"):
    ask, start = counted(bump), torch.randn(n, 1, generator=seeded(4), dtype=torch.float64)
    end = last(ddpm(ask, start, grid(schedule, 1000), variance, seeded(5)))
    print(f"{variance:9}  {ask.calls} calls  mean {end.mean():.2f} (1)  std {end.std():.2f} (0.5)")
    assert abs(end.mean() - 1) < 4 * 0.5 / n**0.5
    assert abs(end.std() - 0.5) < 4 * 0.5 / (2 * n) ** 0.5

# %% [markdown] tags=["L19-27", "E-28"]
# **The lecture writes** that a loop "removes a bit of noise, 20 to 50 times" (L19-27). If each step only
# took something away, $x_t$ would shrink as the noise goes. Is it so? *Predict first*: for handwritten
# digits of 64 pixels, what is $\lVert x_t\rVert/\sqrt{64}$ when half the noise is gone?

# %%
images, _ = data.digits("train")
images = images.double()
ideal = mixtures.Mixture(images)  # the exact denoiser of these 898 digits
canvas = torch.randn(100, 1, 8, 8, generator=seeded(6), dtype=torch.float64)

# %% tags=["L19-27", "E-28", "check"]
square, rows = (images**2).mean(), []  # of a pixel
walk = list(ddpm(ideal, canvas, grid(schedule, 50), generator=seeded(7)))
for k, state in zip(range(1000, -1, -200), walk[::10], strict=True):
    lengths = (state.x**2).flatten(1).mean(1)
    mixed = state.t.signal**2 * square + state.t.noise**2
    share = state.t.noise**2 / mixed
    rows.append([k, *(f"{v:.2f}" for v in (lengths.mean().sqrt(), mixed.sqrt(), share))])
    assert abs(lengths.mean() - mixed) < 4 * lengths.std() / 100**0.5
head = ("level k", "length", "of the mixture", "share of the noise in its square")
plots.table(rows, header=head, caption="DDPM on digits, 50 steps")
assert square.sqrt() > 0.8  # while the share goes from 1 to 0

# %% [markdown]
# The length falls by 16 %, while the noise's share falls from 100 % to 0: a step also **adds** picture. It
# rescales and recombines, $\text{signal}_s\hat x_0+\text{noise}_s\hat\epsilon$ (erratum E-28).
#
# ## 3. DDIM: keep the noise that you guessed
#
# **Story.** DDPM redraws a share $\rho$ of $\hat\epsilon$ at every step. Suppose we redraw only
# $\eta\rho$, with $\eta$ between 1 (DDPM) and 0 (nothing: the walk is a deterministic map):
#
# $$x_s=\text{signal}_s\,\hat x_0+\text{noise}_s\Big(\sqrt{1-\eta^2\rho^2}\;\hat\epsilon+\eta\rho\,z\Big).$$
#
# (The $\sigma$ of Song et al. 2021a, equation 16, is another: what we call $\text{noise}_s\,\eta\rho$.)


# %% tags=["twin:didiff.samplers.ddim"]
def ddim(denoiser, x, levels, eta=0.0, generator=None):
    for t, s in pairwise(levels):
        state = look(denoiser, x, t)
        yield state
        eps = state.eps
        if eta:  # a walk upwards (section 4) has no real rho: nobody must ask for it
            new = eta * (1 - (s.sigma / t.sigma) ** 2).sqrt()
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            eps = (1 - new**2).sqrt() * eps + new * z
        x = add_noise(state.x0, eps, s)
    yield look(denoiser, x, s)


# %% [markdown] tags=["L22-32", "E-63"]
# **The lecture writes** that DDIM re-reads the *reverse* process as non-Markovian (L22-32). Is it so?
# The generative chain goes from $x_t$ to $x_s$ and looks at nothing else: Markov. The other direction,
# $q(x_t\mid x_s,x_0)$, is Markov if $x_0$ says nothing about $x_t$ that $x_s$ does not. *Predict*: for which
# $\eta$ is that so?
#
# **Check.** With the true $x_0$ we make $x_t$ by the forward process, $x_s$ by the step above, and fit
# $x_t\approx a\,x_s+b\,x_0$. A Markov process must have $b=0$.


# %%
def family(x0, t, s, eta):
    """x_t of the forward process, then x_s of the eta-family, made with the true x0."""

    def oracle(x, level):  # a denoiser that cheats: it knows x0
        return from_x0(x, level, x0)

    xt = add_noise(x0, torch.randn(x0.shape, generator=seeded(8), dtype=x0.dtype), t)
    return xt, last(ddim(oracle, xt, [t, s], eta, seeded(9)))


# %% tags=["L22-32", "E-63", "check"]
n, t, s = 100_000, schedule.at(600), schedule.at(400)
x0, _ = bump.sample(n, generator=seeded(10))
for eta in (0.0, 0.5, 1.0):
    xt, xs = family(x0, t, s, eta)
    made = (xs - s.signal * x0).std()
    b = torch.linalg.lstsq(torch.cat([xs, x0], 1), xt).solution[1].item()
    print(f"eta {eta}: noise in x_s {made:.3f} (schedule {s.noise:.3f}),  b = {b:+.2f}")
    assert abs(made - s.noise) < 4 * s.noise / (2 * n) ** 0.5
    assert (abs(b) < 4 * t.noise / (0.5 * n**0.5)) == (eta == 1)

# %% [markdown]
# Every $\eta$ leaves the same noise in $x_s$: the *marginals* $q(x_s\mid x_0)$ are those of the schedule,
# and the training loss sees nothing else. So one trained network serves the whole family. But $b=0$ only for $\eta=1$: it is the **forward** (inference) family that is non-Markovian
# (erratum E-63). And at $\eta=1$ it is DDPM:

# %% tags=["L22-32", "L22-36", "L19-26", "check"]
levels = grid(schedule, 50)
by_eta = last(ddim(world, noise, levels, eta=1.0, generator=seeded(1)))
by_ddpm = last(ddpm(world, noise, levels, generator=seeded(1)))
print(f"eta = 1 against DDPM, same seed:        {(by_eta - by_ddpm).abs().max():.10f}")
assert torch.allclose(by_eta, by_ddpm, rtol=0, atol=1e-10)

# %% tags=["L22-36", "L19-26", "check"]
assert torch.equal(last(ddim(world, noise, levels)), last(ddim(world, noise, levels)))
other = last(ddpm(world, noise, levels, generator=seeded(2)))
moved = (other - by_ddpm).norm(dim=1).mean()
unrelated = (by_ddpm.roll(1, 0) - by_ddpm).norm(dim=1).mean()
print(f"DDPM, same canvas, other fresh noise:   {moved:.2f} apart (unrelated: {unrelated:.2f})")
assert moved > 0.9 * unrelated

# %% [markdown]
# So "the seed is the canvas" (L19-26) is true for deterministic samplers. A stochastic one needs all later
# noises too: here, with $x_T$ alone fixed, the ends are as far apart as strangers.
#
# **Play.** Forty walks from the same forty starting points, over the exact density of two bumps. Move
# $\eta$: the threads that never cross turn into jagged ones that do, and the *distribution* at the right
# edge stays. Then run the cell and go down to five steps: which end of the slider suffers more? The
# readout is the Wasserstein distance between 2000 ends and as many exact samples. Below its **floor**, the
# largest of twenty distances of exact against exact, nobody can tell.


# %%
def river(mixture, height=2.6):
    """The exact density at every clock: where signal² + noise² = 1, the same on all schedules."""
    clock, x = torch.linspace(0, 1, 101), torch.linspace(-height, height, 121).double()
    columns = [mixture.log_prob(x[:, None], trigonometric(u)).exp() for u in clock.double()]
    density = torch.stack(columns, 1)
    look = {"labels": ("clock: 1 is noise, 0 is data", "x", ""), "cmap": "Greys"}
    (ax,) = plots.panels(size=(3.5, 2.5))[1]
    figure = plots.heatmap(clock, x, density / density.amax(0), **look, ax=ax)
    figure.axes[0].collections[0].set_clim(0, 1.8)  # pale enough for threads to show
    figure.axes[0].invert_xaxis()
    return figure


# %%
def threads(mixture, start, truth, floor, schedule, shown=40):
    stage = plots.Stage(river(mixture))

    def frames(eta, steps):
        states = list(ddim(mixture, start, grid(schedule, steps), eta, seeded(11)))
        clock = torch.stack([s.t.clock for s in states])[:, None].expand(-1, shown)
        x = torch.stack([s.x[:shown, 0] for s in states])
        apart = carried(states[-1].x, truth)
        picture = stage.draw(paths=torch.stack([clock, x], 2))
        yield Frame(picture, f"network calls: {steps}, distance W₁ {apart:.3f} (floor {floor:.3f})")

    return frames


# %%
def carried(a, b):
    return metrics.wasserstein_1d(a[:, 0], b[:, 0])


def floor_of(distance, mixture, real):
    """The largest of twenty distances from exact samples to the exact samples `real`."""
    draws = (mixture.sample(len(real), generator=seeded(100 + k))[0] for k in range(20))
    return max(abs(distance(draw, real)) for draw in draws)


# %%
pair = mixtures.bimodal()
start = torch.randn(2000, 1, generator=seeded(12), dtype=torch.float64)
truth, _ = pair.sample(2000, generator=seeded(13))

# %% tags=["play", "L22-36"]
play_eta = Explorer(
    threads(pair, start, truth, floor_of(carried, pair, truth), schedule),
    {
        "eta": slider("share of fresh noise η", 0.0, 1.0, value=0.0, step=0.1),
        "steps": slider("number of steps", 1, 50, value=30),
    },
    width=420,
)
play_eta.show(
    alt="forty paths from noise on the left to two bumps on the right, over the exact density: "
    "smooth threads that never cross at η = 0, jagged ones at η = 1",
    still_over="eta",
)

# %% tags=["check"]
far = {}
for eta in (0.0, 1.0):
    play_eta["eta"].value, play_eta["steps"].value = eta, 5
    play_eta.wait()
    far[eta] = play_eta.readout
    print(f"η = {eta}: {far[eta]}")
    assert far[eta].startswith("network calls: 5,")
assert far[0.0] != far[1.0]
play_eta["eta"].value, play_eta["steps"].value = 0.0, 30  # back to where it stood

# %% [markdown] tags=["exercise"]
# **Exercise 1.** With five steps $\eta=1$ suffers more than $\eta=0$. Is fresh noise to blame? *Predict*:
# the standard deviation of five-step samples of $\mathcal N(1,0.5^2)$ by DDIM, and by DDPM with the variance
# $\tilde\beta$ and with $\beta$. Then run the cell below.
#
# <details><summary>Answer</summary>
#
# It is the *width*. $\tilde\beta$ is the variance for a **known** $x_0$: each long step is too narrow. With
# $\beta$ the loss is smaller (5 steps) or reversed (from 20 on). What fresh noise is good for cannot be
# seen here: it forgets old errors, including those of an imperfect network; our exact one makes none.
# </details>


# %%
def exact_std(denoiser, levels, width):
    """The standard deviation of samples of a Gaussian: each step is affine, so variances add up."""
    variance, ends = torch.ones(()).double(), torch.tensor([[0.0], [1.0]]).double()
    for t, s in pairwise(levels):
        x0, eps = (guess[1] - guess[0] for guess in denoiser(ends, t))  # slopes
        rho = (1 - (s.sigma / t.sigma) ** 2).sqrt() * (width(t, s) > 0)
        slope = s.signal * x0 + s.noise * (1 - rho**2).sqrt() * eps
        variance = slope**2 * variance + (s.noise > 0) * (width(t, s) * rho) ** 2
    return variance.sqrt().item()


# %% tags=["solution", "check"]
WIDTHS = {
    "DDIM": lambda t, s: 0 * s.noise,
    "DDPM, β̃": lambda t, s: s.noise,
    "DDPM, β": lambda t, s: t.noise,
}
rows = []
for count in (5, 10, 20, 100, 1000):
    stds = [exact_std(bump, grid(schedule, count), width) for width in WIDTHS.values()]
    rows.append([count, *stds])
    assert stds[1] < stds[0] < stds[2]  # beta tilde is always the narrowest here
    assert (stds[2] < 0.5) == (count < 20)
plots.table(rows, header=["steps", *WIDTHS], caption="std of the samples (0.5), exact")

# %% [markdown]
# ## 4. An ordinary differential equation in disguise
#
# **Story.** Take $\eta=0$, and the coordinate $y=x/\text{signal}$. Section 1 now says
# $y_t=\hat x_0+\sigma_t\hat\epsilon$, and its move $y_s=\hat x_0+\sigma_s\hat\epsilon$. Subtract:
# $y_s-y_t=(\sigma_s-\sigma_t)\,\hat\epsilon$. DDIM is *Euler's method* for
#
# $$\frac{\mathrm dy}{\mathrm d\sigma}=\hat\epsilon(y,\sigma),$$
#
# the **probability-flow ODE**. Why does it end in data? Points that start with the distribution of $x_T$
# and follow it have the distribution of $x_t$ at every $t$ (Song et al. 2021b, section 4.3). So sampling is
# solving an ODE, or, with fresh noise, an SDE (L19-52), and everything known about solvers applies.

# %% tags=["L19-52", "check", "formula"]
walk = list(ddim(world, noise, grid(schedule, 20, end=0.02)))
y = noise / walk[0].t.signal
for now, then in pairwise(walk):
    y = y + (then.t.sigma - now.t.sigma) * world(y * now.t.signal, now.t).eps
gap = (walk[-1].x / walk[-1].t.signal - y).abs().max()
print(f"Euler in (y, sigma) against DDIM, 20 steps: largest difference {gap:.10f}")
assert gap < 1e-10

# %% [markdown] tags=["L22-34", "L22-35", "E-65"]
# **The lecture writes** that DDIM skips 95 % of the steps, 50 instead of 1000, twenty times fewer calls
# (L22-35: right), *at no cost in quality* (L22-34). Is it so? A method has **order** $p$ if its error falls
# like $S^{-p}$ with the number $S$ of steps; Euler's is 1. **Predict** the standard deviation of DDIM's
# samples of $\mathcal N(1,0.5^2)$ after 10, 50 and 1000 steps. (For a Gaussian each step is affine, so two
# points tell the whole map.)


# %%
def final_std(denoiser, levels):
    """The standard deviation that DDIM makes of N(0, 1), if every step is affine."""
    ends = last(ddim(denoiser, torch.tensor([[0.0], [1.0]]).double(), levels))
    return (ends[1] - ends[0]).item()


# %% tags=["L22-34", "L22-35", "E-65", "check"]
counts = (5, 10, 20, 50, 100, 1000)
lost = {count: 0.5 - final_std(bump, grid(schedule, count)) for count in counts}
rows = [(count, 0.5 - gap, gap, count * gap) for count, gap in lost.items()]
head = ("steps", "std (0.5)", "lost", "lost × steps")
plots.table(rows, header=head, caption="DDIM on a Gaussian, exact")
assert all(abs(count * lost[count] - 1.5) < 0.1 for count in (50, 100, 1000))

# %% [markdown]
# The last column levels off near 1.5: the loss is about $1.5/S$. Fifty steps lose 6 % of the spread, a
# thousand 0.3 %: often a good bargain, never free (erratum E-65). The paper's own FID on CIFAR-10 (lower is
# better): 4.67 for 50 steps, 4.04 for 1000, 3.17 for DDPM's 1000 with $\beta$ (Song et al. 2021a, table 1).
#
# **There and back (L22-36).** An ODE can be walked upwards too: give `ddim` the levels in rising order and
# it *encodes* data as noise; walk down, and the data should return. How nearly?

# %% tags=["L22-36", "check"]
points, _ = world.sample(500, generator=seeded(14))
trip = {}
for count in (20, 40, 80, 160):
    levels = grid(schedule, count)
    code = last(ddim(world, points, levels[::-1]))
    trip[count] = (last(ddim(world, code, levels)) - points).square().mean().sqrt().item()
    print(f"{count:4} steps: root mean square {trip[count]:.3f}, std of the code {code.std():.2f}")
assert all(1.5 < trip[count] / trip[2 * count] < 2.5 for count in (20, 40, 80))

# %% [markdown] tags=["exercise"]
# First order again. Editing pictures (lesson 15) stands on this.
#
# **Exercise 2.** How many DDIM steps bring the standard deviation of the Gaussian within 1 % of the truth?
# Compute first, then search with `final_std`. If the two answers differ: why?
#
# <details><summary>Answer</summary>
#
# $1.5/S=0.005$ at $S=300$. Measured, 297 are enough: $1.5/S$ is only the leading term, and at 300 steps
# the last column of the table is still climbing (1.48).
# </details>

# %% tags=["solution", "check"]
fewer, enough = (0.5 - final_std(bump, grid(schedule, steps)) for steps in (296, 297))
product = 300 * (0.5 - final_std(bump, grid(schedule, 300)))
print(f"lost with 296 steps {fewer:.5f}, with 297 {enough:.5f}, allowed 0.00500")
print(f"lost × steps at 300: {product:.2f}")
assert enough < 0.005 < fewer

# %% [markdown]
# ## 5. Second order: look ahead, or look back
#
# **Story.** Euler believes the slope at the *start* of a step. **Heun's method** tries the step, asks again
# where it landed, and moves by the mean of both answers: $2S-1$ calls, as the last step asks once.
# Which slopes? Ours are those of $x$ itself, $\mathrm dx=\hat x_0\,\mathrm d\,\text{signal}+\hat\epsilon\,\mathrm d\,\text{noise}$
# (the same ODE). Where signal is 1 this is algorithm 1 of Karras et al. 2022, who average
# $\mathrm dy/\mathrm d\sigma$. On other schedules it is *another* second-order method.
#
# **DPM-Solver++(2M)** (Lu et al. 2022b) saves the second call: it *remembers*. With $\lambda=-\log\sigma$
# the ODE integrates to $x_s/\text{noise}_s=x_t/\text{noise}_t+\int_{\lambda_t}^{\lambda_s}e^{\lambda}\hat x_0\,\mathrm d\lambda$,
# where only $\hat x_0$ is unknown. Held still, it gives DDIM. Better: extrapolate it to the middle of the
# step. With the answer $\hat x_0'$ before, a step of length $h=\lambda_s-\lambda_t$ and the last one $h'$,
# its rate of change is $(\hat x_0-\hat x_0')/h'$, and the middle is $h/2$ away:
#
# $$\hat x_0^{\text{2M}}=\hat x_0+\frac{h}{2h'}\,\big(\hat x_0-\hat x_0'\big).$$
#
# Then $\hat\epsilon$ is recomputed, so that the pair still explains $x_t$, and the usual move follows: one
# call a step. The last step to the data has $h=\infty$: plain DDIM.


# %% tags=["twin:didiff.samplers.heun"]
def heun(denoiser, x, levels):
    for t, s in pairwise(levels):
        here = look(denoiser, x, t)
        yield here
        there = look(denoiser, add_noise(here.x0, here.eps, s), s) if s.noise > 0 else here
        x0, eps = (here.x0 + there.x0) / 2, (here.eps + there.eps) / 2
        x = x + add_noise(x0, eps, s) - add_noise(x0, eps, t)
    yield look(denoiser, x, s)


# %% tags=["twin:didiff.samplers.dpm_solver_2m"]
def dpm_solver_2m(denoiser, x, levels):
    before = None
    for t, s in pairwise(levels):
        state = look(denoiser, x, t)
        yield state
        guess = Prediction(state.x0, state.eps)
        if before is not None and s.noise > 0:  # else h is infinite: plain DDIM
            ratio = (t.sigma / s.sigma).log() / (before.t.sigma / t.sigma).log()
            guess = from_x0(x, t, state.x0 + ratio / 2 * (state.x0 - before.x0))
        x, before = add_noise(*guess, s), state
    yield look(denoiser, x, s)


# %% [markdown]
# **Check.** All start from the same noise and walk to the same level; the truth is the ODE's own solution,
# by the library's `probability_flow` (Ralston's third-order method, along the clock) with 200 steps. Who
# checks *that*? For a Gaussian the solution is a formula: $x_t$ keeps its place in units of the standard
# deviation.


# %%
def open_grid(schedule, steps):
    """Uniform in log-SNR, from the noise to u = 0.02; without the last jump to the data."""
    return log_snr_grid(schedule, steps + 1, end=0.02)[:-1]


def path_error(sampler, denoiser, x, levels, end):
    return (last(sampler(denoiser, x, levels)) - end).norm(dim=1).median().item()


# %% tags=["check", "formula"]
fine = open_grid(schedule, 200)
x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
spread = [(t.signal**2 * 0.5**2 + t.noise**2).sqrt() for t in (fine[0], fine[-1])]
exact = fine[-1].signal + spread[1] / spread[0] * (x - fine[0].signal)  # the mean is 1 * signal
gap = (last(probability_flow(bump, x, fine)) - exact).abs().max()
print(f"the reference against the formula: {gap:.0e}")
assert gap < 1e-6

# %%
METHODS = {"DDIM": (ddim, 1), "Heun": (heun, 2), "DPM-Solver++(2M)": (dpm_solver_2m, 2)}
few = noise[:200]
truth = last(probability_flow(world, few, fine))

# %% tags=["L22-46", "check"]
counts, errors = [10, 20, 40, 80, 160], {}
for name, (method, order) in METHODS.items():
    walks = [open_grid(schedule, count) for count in counts]
    errors[name] = torch.tensor([path_error(method, world, few, w, truth) for w in walks])
    slope = (errors[name][2] / errors[name][4]).log2() / 2  # from 40 steps to 160
    print(f"{name:17} measured order {slope:.2f}, theory {order}")
    assert abs(slope - order) < 0.15

# %% tags=["L22-46"]
figure = plots.lines(
    {name: (counts, errors[name]) for name in METHODS},
    xlabel="number of steps", ylabel="median distance to the exact end", log=True, orders=(1, 2),
)  # fmt: skip
figure.axes[0].minorticks_off()
figure.axes[0].set_xticks(counts, counts)
plots.show(
    figure,
    alt="on logarithmic axes DDIM falls along a line of slope one, Heun and DPM-Solver++(2M) along "
    "lines of slope two, far below it",
    caption="Same noise, same grid (uniform in log-SNR). Heun pays two calls a step.",
)

# %% [markdown]
# And the other Heun, with the slopes of $y$? On our schedule it is three to five times less accurate:


# %%
def heun_in_y(denoiser, x, levels):
    y = x / levels[0].signal
    for t, s in pairwise(levels):
        here = there = denoiser(t.signal * y, t).eps
        if s.noise > 0:
            there = denoiser(s.signal * (y + (s.sigma - t.sigma) * here), s).eps
        y = y + (s.sigma - t.sigma) * (here + there) / 2
    return y * s.signal


# %% tags=["check"]
exploding = karras_levels(20, 0.02, 80.0)  # signal 1
gap = last(heun(world, 80 * few, exploding)) - heun_in_y(world, 80 * few, exploding)
print(f"signal 1: the two Heuns differ by {gap.abs().max():.10f}")
assert gap.abs().max() < 1e-10
for count, ours in zip(counts, errors["Heun"], strict=True):
    theirs = (heun_in_y(world, few, open_grid(schedule, count)) - truth).norm(dim=1).median()
    print(f"our schedule, {count:3} steps: {theirs / ours:.1f} times our error")
    assert 2 < theirs / ours < 8  # other canvases move it by 0.6 at 10 steps, 0.3 at 160

# %% [markdown] tags=["exercise"]
# **Exercise 3.** Per *step* Heun beats 2M. Who wins per *call*? Read the answer off the figure, then look
# at `errors["Heun"][2]` and `errors["DPM-Solver++(2M)"][3]`.
#
# <details><summary>Answer</summary>
#
# On this grid, without the last jump, 2M: half the steps cost Heun a factor four in error, about 0.0011
# with 80 calls against 0.0006. Here memory is cheaper than a second look.
# </details>
#
# ## 6. Where to stop on the way
#
# **Story.** A grid is a list of levels. Three are common: uniform in $u$ (L22-34), uniform in the logarithm
# of the signal-to-noise ratio, and that of Karras et al. 2022, equation 5,
#
# $$\sigma_i=\Big(\sigma_{\max}^{1/7}+\tfrac{i}{S-1}\big(\sigma_{\min}^{1/7}-\sigma_{\max}^{1/7}\big)\Big)^{7},$$
#
# which lies between uniform in $\sigma$ (with 1 for 7) and uniform in $\log\sigma$ (with $\infty$). Karras'
# levels have signal 1; dividing by $\sqrt{1+\sigma^2}$ puts the same $\sigma$ on our schedule. Before the jump
# to the data the last two grids stop where $\sigma$ is a tenth of the data's standard deviation: $k=6$. The
# uniform grid has no choice: $u=1/S$.


# %%
def log_snr(schedule, steps, k=6):
    return log_snr_grid(schedule, steps, end=k / schedule.T)


def karras(schedule, steps, k=6):
    low, high = schedule.at(k).sigma.item(), schedule.at(schedule.T).sigma.item()
    sigmas = [t.noise for t in karras_levels(steps, low, high)]
    return [NoiseLevel(1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()) for s in sigmas]


GRIDS = {"uniform in u": grid, "uniform in log-SNR": log_snr, "Karras": karras}
for name, make in GRIDS.items():
    print(f"{name:18} 20 steps, last stop σ = {make(schedule, 20)[-2].sigma:.3f}")

# %%
stops = {
    name: (torch.stack([t.sigma for t in make(schedule, 12)[:-1]]), torch.full((12,), 0.0 - row))
    for row, (name, make) in enumerate(GRIDS.items())
}

# %%
figure = plots.lines(stops, xlabel="noise-to-signal ratio σ (the walk goes left)", ylabel="")
figure.axes[0].set(xscale="log", yticks=[], ylim=(-2.5, 1.6))
plots.show(
    figure,
    alt="three rows of twelve stops on a logarithmic axis of sigma: the uniform grid ends near "
    "0.3, the others at 0.03; log-SNR is even; Karras is denser at large sigma, sparser near data",
    caption="Twelve steps each; the last stop, the data at σ = 0, is off the axis.",
)

# %% tags=["check"]
end = last(probability_flow(world, few, grid(schedule, 200)))  # down to noise 0
rows = []
for name, (method, _) in METHODS.items():
    walks = [make(schedule, 20) for make in GRIDS.values()]
    rows.append([name, *[path_error(method, world, few, walk, end) for walk in walks]])
plots.table(rows, header=["20 steps", *GRIDS], caption="median distance to the exact end")
best = [min(range(3), key=row[1:].__getitem__) for row in rows]
assert best == [0, 1, 1]  # the column that wins, for each method

# %% [markdown]
# Grid and solver belong together. Euler likes uniform steps in $u$ here. The second-order methods need
# log-SNR: on the uniform grid the last jump, from $\sigma\approx0.17$ to 0, is first-order whatever the
# solver. Karras' grid, tuned on images, spends stops at large $\sigma$, where in our world little happens.
#
# ## 7. The menu: quality for calls
#
# **Story.** Which sampler is *best*? Count calls, not steps, and measure the distance to the truth: the
# energy distance $2\,\mathbb E\lVert X-Y\rVert-\mathbb E\lVert X-X'\rVert-\mathbb E\lVert Y-Y'\rVert$ between
# 1000 samples and 1000 exact ones ($X'$, $Y'$: independent copies). It is zero only for equal
# distributions (an unbiased estimate may fall a little below); its floor is made as before: the largest of
# twenty, exact against exact.


# %%
def ancestral(denoiser, x, levels):
    return ddpm(denoiser, x, levels, generator=seeded(15))


# %%
def quality(sampler, denoiser, x, levels, real):
    ask = counted(denoiser)
    end = last(sampler(ask, x, levels))
    return ask.calls, metrics.energy_distance(end, real)


# %%
real, _ = world.sample(1000, generator=seeded(16))
floor = floor_of(metrics.energy_distance, world, real)

# %% tags=["L22-46", "check"]
PAIRED = {
    "DDPM": (ancestral, grid), "DDIM": (ddim, grid),
    "Heun": (heun, log_snr), "DPM-Solver++(2M)": (dpm_solver_2m, log_snr),
}  # fmt: skip
menu = {}
for name, (sampler, make) in PAIRED.items():
    walks = [make(schedule, count) for count in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)]
    menu[name] = [quality(sampler, world, noise, walk, real) for walk in walks]

# %% tags=["L22-46"]
curves = {}
for name, row in menu.items():
    curves[name] = [calls for calls, _ in row], [max(e, floor) for _, e in row]
    reached = next(calls for calls, e in row if e < floor)
    print(f"{name:17} first at the floor ({floor:.3f}) with {reached} calls")

# %% tags=["L22-46"]
curves["exact, against exact (floor)"] = ([2, 95], [floor, floor])
figure = plots.lines(curves, xlabel="network calls", ylabel="energy distance", log=True)
plots.show(
    figure,
    alt="energy distance against network calls on logarithmic axes: DPM-Solver++(2M) starts worst, "
    "with two calls; all fall to the floor, DPM-Solver++(2M) first, DDPM last",
    caption="Each on the grid that suits it. Values below the floor are drawn on it.",
)

# %% [markdown] tags=["L22-46", "L22-47", "E-75"]
# (With two calls 2M is worst: its grid leaps from pure noise to $\sigma=0.03$.)
#
# **The lecture's menu** gives ranges: DDPM 1000, DDIM 50 to 100, DPM-Solver++ 20 to 30, and for two methods
# of lesson 16, flow matching 8 to 20, consistency 1 to 4 (L22-46); "each generation about ten times
# cheaper" (L22-47). Other slides say 20 to 50 and 4 to 10 (erratum E-75). Which is right? *Predict*: how
# many **calls** bring the median path within a tenth of the data's standard deviation, and if the bumps
# are three times narrower (and with them the tolerance)?


# %%
def ladder(make, schedule, *stop):
    """Grids of 5, 6, 7, 8, 9, 10, 12, .. 218 steps."""
    return [make(schedule, round(5 * 1.15**k), *stop) for k in range(28)]


def calls_needed(sampler, mixture, x, walks, end):
    """The calls of the first walk that ends within a tenth of a std of the exact end."""
    for levels in walks:
        ask = counted(mixture)
        if path_error(sampler, ask, x, levels, end) < 0.1 * mixture.std[0]:
            return ask.calls


# %% tags=["L22-46", "E-75", "check"]
narrow, needed = mixtures.Mixture(world.means, 0.1), {name: [] for name in METHODS}
for mixture, k in ((world, 6), (narrow, 1)):  # the last stop: a tenth of std 0.3, of std 0.1
    end = last(probability_flow(mixture, few, log_snr(schedule, 300, k)))
    assert abs(schedule.at(k).sigma / mixture.std[0] - 0.1) < 0.001
    for name, calls in needed.items():
        sampler, make = PAIRED[name]
        walks = ladder(grid, schedule) if make is grid else ladder(make, schedule, k)
        calls.append(calls_needed(sampler, mixture, few, walks, end))
for name, (wide, thin) in needed.items():
    print(f"{name:17} {wide:4} calls for std 0.3, {thin:4} for std 0.1")
    assert thin > wide

# %% tags=["L22-47", "check"]
for counts in ([1000, 50, 4, 1], [1000, 100, 20, 1]):  # the lecture's; others in its ranges
    factors = [before / after for before, after in pairwise(counts)]
    uneven = max(factors) / min(factors)
    print(f"{counts}: {factors}, product {math.prod(factors):g}, largest/smallest {uneven:g}")
    assert math.prod(factors) == 1000
    assert uneven >= 4

# %% [markdown] tags=["L22-37", "E-66", "E-64"]
# A range is a property of sampler, grid, data *and* tolerance: the orders are robust, the columns are not.
# As for "ten times": whatever stands in the middle, the factors' product is 1000, and so their geometric
# mean 10. All it says is: from 1000 to 1 in three jumps.
#
# Two more sentences to handle with care. *"DDIM and DPM-Solver++ are the default everywhere"* (L22-37): a
# default belongs to a model's repository, PNDM to Stable Diffusion 1.5, Euler to SDXL (source: their
# `scheduler_config.json`, 2024; erratum E-66). And *"a new backbone is a way to speed up without
# retraining"*: a transformer must be trained from scratch and takes as many steps (erratum E-64).
#
# **Play.** Same noise, same uniform grid (not the best for all), four samplers; the contours are the exact
# density, the lines the walks of a few points. With how many steps would you call each of them good?
# (Other samplers than DDIM: run the cell.)


# %%
def clouds(mixture, noise, real, schedule, floor, shown=12):
    (ax,) = plots.panels(size=(3.2, 2.9))[1]
    density = plots.contours(lambda x: mixture.log_prob(x, schedule.at(0)).exp(), 2.6, ax=ax)
    stage = plots.Stage(density)

    def frames(sampler, steps):
        ask, states = counted(mixture), []
        for k, state in enumerate(sampler(ask, noise, grid(schedule, steps))):
            states.append(state)
            if steps > 10 and k == steps // 2:  # a long walk: show what it is aiming at
                yield Frame(stage.draw(state.x0), f"x̂₀ after {k} of {steps} steps")
        apart = metrics.energy_distance(state.x, real)
        paths = torch.stack([s.x[:shown] for s in states])
        readout = f"network calls: {ask.calls}, energy distance: {apart:.3f} (floor {floor:.3f})"
        yield Frame(stage.draw(state.x, paths), readout)

    return frames


# %% tags=["play", "L22-46"]
SAMPLERS = {"DDPM": ancestral, "DDIM": ddim, "Heun": heun, "DPM-Solver++(2M)": dpm_solver_2m}
play_steps = Explorer(
    clouds(world, noise[:600], real, schedule, floor),
    {
        "sampler": choice("sampler", SAMPLERS, value=ddim),
        "steps": slider("number of steps", 1, 50, value=8),
    },
    width=400,
)
play_steps.show(
    alt="six hundred DDIM samples over the contours of three bumps, and the paths of twelve: with "
    "one step all at the common mean, with five strewn between the bumps, with fifty on them",
    still_over="steps", values=[1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 50],
)  # fmt: skip

# %% tags=["check"]
far = play_steps.readout
play_steps["sampler"].value, play_steps["steps"].value = heun, 30
play_steps.wait()
print(far, "->", play_steps.readout, sep="\n")
assert play_steps.readout.startswith("network calls: 59,")
play_steps["sampler"].value, play_steps["steps"].value = ddim, 8

# %% [markdown] tags=["DS-53", "E-44"]
# ## 8. A member, or a newcomer?
#
# **The lecture writes** that the purpose of sampling is to yield plausible *members of the training set*
# (DS-53). Is it so? *Predict*: what does a perfect sampler make of `ideal`, the exact denoiser of 898 stored
# digits? We measure each sample's distance to the nearest of them, and to the nearest of the other half.


# %%
def nearest(x, library):
    distance, which = torch.cdist(x.flatten(1), library.flatten(1)).min(1)
    return distance.median().item(), library[which]


# %% tags=["DS-53", "E-44", "check"]
held_out, _ = data.digits("test")
digits = last(ddim(ideal, canvas, grid(schedule, 50)))
(to_train, copies), (to_test, _) = nearest(digits, images), nearest(digits, held_out.double())
(between, _) = nearest(held_out.double(), images)
print(f"samples to training digits {to_train:.2f}, to others {to_test:.2f}")
print(f"an honest newcomer to training digits {between:.2f}")
assert to_train < 1e-6 < 1 < between

# %%
t = schedule.at(700)
noisy = add_noise(digits, torch.randn(digits.shape, generator=seeded(17)).double(), t)
gallery = torch.cat([noisy[:12], ideal(noisy, t).x0[:12], digits[:12], copies[:12]])

# %% tags=["DS-53", "DS-59"]
rows = ("noised to k = 700", "one-shot guess", "50-step sample", "nearest stored")
plots.show(
    plots.images(gallery, 12, rows=rows),
    alt="four rows of twelve digits: noise, blurred averages, sharp digits, and the same digits "
    "again from the training set",
    caption="The samples (third row) are copies of stored digits (fourth).",
)

# %% [markdown]
# The samples *are* the training set, and that is a failure: **memorisation**. The purpose is to draw from
# the *population* behind it (erratum E-44). A network can get there because it cannot be `ideal`: it
# smooths. Our `world`, a density and not a list, is a population, and its samples are newcomers:

# %% tags=["DS-53", "check"]
memory, _ = world.sample(200, generator=seeded(18))
others, _ = world.sample(200, generator=seeded(19))
for name, denoiser in {"memory": mixtures.Mixture(memory), "population": world}.items():
    made = last(dpm_solver_2m(denoiser, noise[:200], log_snr_grid(schedule, 30)))
    seen, unseen = nearest(made, memory)[0], nearest(made, others)[0]
    print(f"denoiser of the {name:10}: to the seen {seen:.3f}, to the unseen {unseen:.3f}")
    assert (seen < 0.1 * unseen) == (name == "memory")

# %% [markdown] tags=["T-05", "T-06", "T-07"]
# ## 9. Bug museum
#
# Six famous mistakes. Four wreck the picture; two can leave it *looking right*, and only a unit check sees
# them. The first three live in Algorithm 2, written as in the lecture, with two places to go wrong: the
# standard deviation `width`, and the noise `draw`.
#
# - **Variance as standard deviation** (T-05): $z$ is multiplied by $\tilde\beta$ instead of its root.
# - **Noise in the last step** (T-06), which should return the mean.
# - **The same $z$ again** (T-07): who creates the generator inside the loop adds the *same* $z$ in every
#   step. Equal pushes add up like $n$, independent ones like $\sqrt n$.
#
# *Predict*: which two show in the samples, and in what direction?


# %%
def algorithm_2(mixture, schedule, x, width, draw):
    for k in range(schedule.T, 0, -1):
        beta, now, before = schedule.beta[k - 1], schedule.alpha_bar[k], schedule.alpha_bar[k - 1]
        mean = (x - beta / (1 - now).sqrt() * mixture(x, schedule.at(k)).eps) / (1 - beta).sqrt()
        x = mean + width(beta, beta * (1 - before) / (1 - now)) * draw(x)
    return x


# %%
def fresh(generator):
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def one_step(schedule, width, draw, k, x):
    """The noise that one step from level k adds, in units of sqrt(beta), and if it repeats."""
    beta = schedule.beta[k - 1]
    tilde = beta * (1 - schedule.alpha_bar[k - 1]) / (1 - schedule.alpha_bar[k])
    one, two = (width(beta, tilde) * draw(x) for _ in range(2))
    return (one.std() / beta.sqrt()).item(), torch.equal(one, two)


# %% tags=["T-05", "T-06", "T-07"]
BUGS = {
    "right": (lambda beta, tilde: tilde.sqrt(), fresh(seeded(20))),
    "T-05: variance as std": (lambda beta, tilde: tilde, fresh(seeded(20))),
    "T-06: noise at t = 1": (lambda beta, tilde: beta.sqrt(), fresh(seeded(20))),
    "T-07: same z again": (lambda beta, tilde: tilde.sqrt(), lambda x: fresh(seeded(20))(x)),
}
n = 2000
start = torch.randn(n, 1, generator=seeded(21), dtype=torch.float64)
ends = {name: algorithm_2(bump, schedule, start, *bug)[:, 0] for name, bug in BUGS.items()}

# %% tags=["T-05", "T-06", "T-07", "check"]
many = torch.zeros(100_000, 1, dtype=torch.float64)
narrowest = (tilde[499] / schedule.beta[499]).sqrt().item()  # at step 500 either variance will do
slack = 1 - narrowest + 4 / (2 * len(many)) ** 0.5
exhibits = museum.inspect(
    {name: (ends[name], *bug) for name, bug in BUGS.items()},
    eye={"std": Check(lambda v: v[0].std(), wanted=0.5, slack=4 * 0.5 / (2 * n) ** 0.5)},
    units={
        "step 500": Check(lambda v: one_step(schedule, *v[1:], 500, many)[0], 1, slack),
        "step 1": Check(lambda v: one_step(schedule, *v[1:], 1, many)[0], wanted=0),
        "z repeats": Check(lambda v: one_step(schedule, *v[1:], 500, many)[1], wanted=0),
    },
)
assert [one.visible for one in exhibits] == [False, True, False, True]


# %%
def outline(end, ax, low=-1.0, high=3.0, bins=40):
    """The histogram of the samples, those outside included in its scale, over N(1, 0.5^2)."""
    width = (high - low) / bins
    x = torch.linspace(low + width / 2, high - width / 2, bins, dtype=torch.float64)
    exact = torch.distributions.Normal(1.0, 0.5).log_prob(x).exp()
    made = torch.histc(end, bins, low, high) / len(end) / width
    plots.densities(x, {"exact": exact, "model": made}, ax=ax)
    ax.set(ylim=(0, 1.2))


# %% tags=["T-05", "T-06", "T-07"]
museum.show(
    exhibits,
    caption="Ends of 1000 steps; below, the noise that single steps add, in units of √β",
    draw=lambda one, ax: outline(one.version[0], ax),
    alt="four outlines of samples over the true bell: right, a needle at 1, right again, and a "
    "line so flat that it lies on the axis",
)

# %% [markdown]
# On this table $\sqrt{\beta_1}=0.01$ is too little to see. On a coarse one it is not:

# %% tags=["T-06", "check"]
ladder = grid(schedule, 10)[::-1]  # the same schedule as a table of ten steps
coarse = DDPMSchedule(10, torch.stack([1 - t.alpha_bar / s.alpha_bar for s, t in pairwise(ladder)]))
bad = algorithm_2(bump, coarse, start, *BUGS["T-06: noise at t = 1"]).std()
good = last(ddpm(bump, start, ladder[::-1], "beta", seeded(20))).std()
print(f"ten steps with noise at t = 1: std {bad:.2f}, without: {good:.2f}")
assert bad > good + 0.05

# %% [markdown]
# **The coefficients of DDIM (T-20).** If the noise added is $\nu z$, with $\nu=\text{noise}_s\,\eta\rho$,
# the direction is $\sqrt{1-\bar\alpha_s-\nu^2}\,\hat\epsilon$. Forget one square, or add one:


# %% tags=["T-20"]
def eta_step(x0, eps, t, s, z, direction_power=2, noise_power=1):
    nu = s.noise * (1 - (s.sigma / t.sigma) ** 2).sqrt()  # eta = 1
    direction = (s.noise**2 - nu**direction_power).clamp(min=0).sqrt()
    return add_noise(x0, eps, NoiseLevel(s.signal, direction)) + nu**noise_power * z


def eta_walk(mixture, x, levels, powers):
    draw = fresh(seeded(23))
    for t, s in pairwise(levels):
        x = eta_step(*mixture(x, t), t, s, draw(x), *powers)
    return x[:, 0]


def noise_of(powers, t, s):
    """direction^2 + nu^2 of one step."""
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    parts = eta_step(zero, one, t, s, zero, *powers), eta_step(zero, zero, t, s, one, *powers)
    return parts[0] ** 2 + parts[1] ** 2


# %% tags=["T-20", "check"]
t, s, hundred = schedule.at(600), schedule.at(400), grid(schedule, 100)
exhibits = museum.inspect(
    {"right": (2, 1), "T-20: √(1 - ᾱ - ν)": (1, 1), "T-20: ν² z": (2, 2)},
    eye={"std": Check(lambda v: eta_walk(bump, start, hundred, v).std(), wanted=0.5, slack=0.05)},
    units={"direction² + ν²": Check(lambda v: noise_of(v, t, s), wanted=s.noise.item() ** 2)},
)
museum.show(
    exhibits,
    caption="DDIM with η = 1, 100 steps; below, the noise that a step from 600 to 400 leaves",
    draw=lambda one, ax: outline(eta_walk(bump, start, hundred, one.version), ax),
    alt="three outlines of samples over the true bell: one on it, two needles at 1",
)

# %% [markdown]
# **A grid with wrong ends (T-21).** Some libraries walk twenty steps from number 951 of 1000, although the
# canvas is pure noise; or a level stands twice in the list, or the last one is not the data. With DDIM
# nobody sees it; the std even comes out a little better:

# %% tags=["T-21", "check"]
twenty = grid(schedule, 20)
exhibits = museum.inspect(
    {
        "right": twenty,
        "T-21: starts at 951": grid(schedule, 20, start=0.951),
        "T-21: ends at 1": grid(schedule, 20, end=0.001),
        "T-21: a level twice": [*twenty[:9], *twenty[8:]],
    },
    eye={"std": Check(lambda levels: final_std(bump, levels), wanted=0.5, slack=0.1)},
    units={
        "first σ / σ_T": Check(lambda v: v[0].sigma / schedule.at(1000).sigma, wanted=1),
        "last σ": Check(lambda v: v[-1].sigma, wanted=0),
        "no descent": Check(lambda v: sum(s.sigma >= t.sigma for t, s in pairwise(v)), wanted=0),
    },
)
museum.show(exhibits, caption="DDIM on a Gaussian, twenty steps, exact")
assert not any(one.visible for one in exhibits)

# %% [markdown]
# (A sampler that remembers divides by 0 at a level that stands twice; the library refuses it.) Who *is* hurt?
# The canvas has mean 0 where data of mean $m$ need $\text{signal}\cdot m$: so a large $m$, on a table that
# leaves much signal, like that of Stable Diffusion's latents (Lin et al. 2024, section 3). There the whole
# grid misses too: where a walk should start no library can know.

# %% tags=["T-21", "check"]
roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
latents, rows = DDPMSchedule(1000, roots**2), []
for m, table in ((1.0, schedule), (10.0, schedule), (1.0, latents), (10.0, latents)):
    row = [m, "ours" if table is schedule else "latents"]
    for first in (1.0, 0.951):
        levels, far = grid(table, 20, start=first), mixtures.gaussian(mean=m, std=0.5)
        low, high = last(ddim(far, torch.tensor([[0.0], [1.0]]).double(), levels))[:, 0].tolist()
        row.append(low)
        assert abs(m - low - (high - low) * levels[0].signal * m) < 1e-10  # what the mean misses
    rows.append(row)
head = ("data's mean", "table", "mean from 1000", "mean from 951")
plots.table(rows, header=head, caption="DDIM, 20 steps, from pure noise")

# %% [markdown]
# **Clipping $\hat x_0$ to $[-1,1]$ (T-22)** helps images, which live there, and ruins data that do not
# (latents, standardised numbers). And whoever clips must recompute $\hat\epsilon$, or the pair no longer
# explains $x_t$:


# %%
def half_clip(denoiser):
    def clipped(x, t):
        guess = denoiser(x, t)
        return Prediction(guess.x0.clamp(-1, 1), guess.eps)  # eps is stale

    return clipped


# %% tags=["T-22", "check"]
x, t = start[:100], schedule.at(400)
exhibits = museum.inspect(
    {
        "right": bump,
        "T-22: clipped": guidance.clip(bump),
        "T-22: clipped, stale eps": half_clip(bump),
    },
    eye={
        "mean": Check(lambda v: last(ddim(v, start, hundred)).mean(), wanted=1, slack=0.05),
        "std": Check(lambda v: last(ddim(v, start, hundred)).std(), wanted=0.5, slack=0.05),
    },
    units={
        "x̂₀ off by": Check(lambda v: (v(x, t).x0 - bump(x, t).x0).abs().max(), wanted=0),
        "pair misses x by": Check(lambda v: (add_noise(*v(x, t), t) - x).abs().max(), wanted=0),
    },
)

# %% tags=["T-22"]
museum.show(
    exhibits,
    caption="DDIM, 100 steps, with a guess that is clipped though the data reach from -0.5 to 2.5",
    draw=lambda one, ax: outline(last(ddim(one.version, start, hundred))[:, 0], ax),
    alt="three outlines of samples over the true bell around 1: right, and twice with its right "
    "half pushed into a wall at 1",
)

# %% [markdown] tags=["exercise"]
# **Exercise 4.** Upwards, the next level $s$ is the *noisier*, $\sigma_s>\sigma_t$, and our `ddim` with
# $\eta=1$ takes the root of a negative number: nan. What should $\eta=1$ upwards be? Guess, then ask the
# library: `samplers.ddim(world, points, grid(schedule, 160)[::-1], eta=1.0, generator=seeded(1))`. Look
# at the standard deviation of the code, and at a second seed.
#
# <details><summary>Answer</summary>
#
# The forward process itself: $x_s$ is $x_t$, faded, plus fresh noise. The code is as wide as pure noise and
# forgets the data: two seeds give codes as far apart as strangers. With $\eta=0$ there is one code, and the
# way back.
# </details>

# %% tags=["solution", "check"]
rising = grid(schedule, 160)[::-1]
assert last(ddim(world, points, rising, 1.0, seeded(1))).isnan().all()  # our own
codes = [last(samplers.ddim(world, points, rising, 1.0, seeded(seed))) for seed in (1, 2)]
apart, strangers = ((codes[0] - b).norm(dim=1).mean() for b in (codes[1], codes[0].roll(1, 0)))
print(f"std {codes[0].std():.2f} (1); two seeds {apart:.2f} apart, strangers {strangers:.2f}")
assert abs(codes[0].std() - 1) < 4 / (2 * codes[0].numel()) ** 0.5
assert apart > 0.9 * strangers

# %% [markdown]
# ## What we learned
#
# - Every sampler makes one move, `add_noise(x0, eps, s)`; they differ in what they do with $\hat\epsilon$.
# - DDPM redraws a part of it, DDIM none, and $\eta$ goes from one to the other without retraining.
# - DDIM is Euler's method: error proportional to $1/S$. Heun and DPM-Solver++(2M) are of second order;
#   2M at one call.
# - The number of steps is not a property of the sampler alone: measure calls, on your data.
# - Samples that look right prove little; a unit check on an exact denoiser proves much.
#
# ## References
#
# Ho, Jain & Abbeel 2020, *Denoising diffusion probabilistic models*, section 3.2 and algorithm 2 ·
# Song, Meng & Ermon 2021a, *Denoising diffusion implicit models*, equations 12 and 16, table 1 ·
# Song et al. 2021b, *Score-based generative modeling through SDEs*, section 4.3 ·
# Karras et al. 2022, *Elucidating the design space*, equation 5 and algorithm 1 ·
# Lin et al. 2024, *Common diffusion noise schedules and sample steps are flawed*, section 3 ·
# Lu et al. 2022b, *DPM-Solver++*, algorithm 2 · Székely & Rizzo 2013, *Energy statistics*.
#
# **Where next.** Our denoisers were formulas. Lesson 08 builds the network that takes their place.
