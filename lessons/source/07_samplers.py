# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 07 Samplers
#
# *One canvas of noise, one denoiser, and several ways to walk from the first to a picture. You write
# four of them, measure how fast each one closes in on the truth, and hold the step count in your hand.*
#
# - **You need** noise levels (lesson 03), a reverse step (04), and why a denoiser knows the score (06).
# - **You will be able to** write DDPM, DDIM, Heun and DPM-Solver++(2M) from memory, say what each costs,
#   choose a grid and a number of steps by measurement, and catch six famous bugs.
# - **Time**: an hour and a half to read; about 20 seconds of computing on two CPU cores.

# %% tags=["setup"]
from itertools import pairwise

import torch

from didiff import data, guidance, metrics, mixtures, plots
from didiff.process import NoiseLevel, Prediction, add_noise, from_x0
from didiff.samplers import initial_noise, last, look, probability_flow
from didiff.schedules import DDPMSchedule, grid, karras_levels, log_snr_grid, trigonometric
from didiff.widgets import Explorer, Frame, choice, slider

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
# with a pair: $\hat x_0$, its mean guess at the picture, and $\hat\epsilon$, the noise that goes with it.
# A sampler mixes that pair again, at a *slightly* cleaner level $s$, and asks anew:
#
# $$x_s=\text{signal}_s\,\hat x_0+\text{noise}_s\,\hat\epsilon .$$
#
# In the lectures' letters $\text{signal}_s=\sqrt{\bar\alpha_s}$ and $\text{noise}_s=\sqrt{1-\bar\alpha_s}$.
# Two words: `look` asks the denoiser about one point and returns a `State(x, t, x0, eps)`; a *walk* is
# a generator that yields one state after the other.
#
# **Predict.** The lecture's picture is "estimate the noise and remove it" (DS-59). Why not remove all of
# it at once, and be done after one call? Say what the standard deviation of the guesses $\hat x_0$ will
# be at step 700 of 1000, if the data have 0.5.

# %%
def one_shot(mixture, t, n):
    x0, _ = mixture.sample(n, generator=seeded(1))
    eps = torch.randn(x0.shape, generator=seeded(2), dtype=x0.dtype)
    return mixture(add_noise(x0, eps, t), t).x0


# %% tags=["DS-59", "check"]
for k in (300, 700):
    t, n = schedule.at(k), 20_000
    theory = t.signal * 0.5**2 / (t.signal**2 * 0.5**2 + t.noise**2).sqrt()
    measured = one_shot(bump, t, n).std()
    print(f"step {k}: std of the one-shot guess {measured:.3f}, theory {theory:.3f}, data 0.500")
    assert abs(measured - theory) < 4 * theory / (2 * n) ** 0.5

# %% [markdown]
# The guess is the *average* of all pictures that could have led here, a blur, not a picture. Hence many
# small moves: each trusts the blur a little, then looks again. What distinguishes samplers is what they
# do with $\hat\epsilon$ on the way.
#
# ## 2. Ancestral sampling: DDPM
#
# **Story.** Lesson 04 found the reverse step $q(x_s\mid x_t,x_0)$: a Gaussian. Ancestral sampling draws
# from it, with $\hat x_0$ in place of $x_0$. Written as our move, it keeps a part of $\hat\epsilon$ and
# redraws the rest. With the noise-to-signal ratio $\sigma=\text{noise}/\text{signal}$,
#
# $$x_s=\text{signal}_s\,\hat x_0+\text{noise}_s\sqrt{1-\rho^2}\,\hat\epsilon+w\,\rho\,z,\qquad
# \rho^2=1-\frac{\sigma_s^2}{\sigma_t^2},\qquad z\sim\mathcal N(0,I).$$
#
# The width $w$ is $\text{noise}_s$ for the lectures' $\tilde\beta$ (`"posterior"`), or $\text{noise}_t$
# for their $\beta$: the two choices of Ho et al. 2020, section 3.2.

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
# $x_{t-1}=\big(x_t-\beta_t\hat\epsilon/\sqrt{1-\bar\alpha_t}\big)/\sqrt{\alpha_t}+\sigma_tz$ with
# $\sigma_t^2=\tilde\beta_t$ or $\beta_t$. Same number?

# %% tags=["check", "formula"]
k, x = 300, torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
beta, now, before = schedule.beta[k - 1], schedule.alpha_bar[k], schedule.alpha_bar[k - 1]
mean = (x - beta * bump(x, schedule.at(k)).eps / (1 - now).sqrt()) / (1 - beta).sqrt()
z = torch.randn(x.shape, generator=seeded(3), dtype=x.dtype)
for variance, value in {"posterior": beta * (1 - before) / (1 - now), "beta": beta}.items():
    ours = last(ddpm(bump, x, [schedule.at(k), schedule.at(k - 1)], variance, seeded(3)))
    gap = (ours - (mean + value.sqrt() * z)).abs().max()
    print(f"{variance:9}  sigma_t² = {value:.6f}   largest difference {gap:.10f}")
    assert gap < 1e-10

# %% [markdown]
# **The two ends (DS-54).** The walk starts at $x_T\sim\mathcal N(0,I)$, and the algorithm says $z=0$ in
# the last step. Is that switch necessary? It depends on the variance:

# %% tags=["DS-54", "check"]
end = [schedule.at(1), schedule.at(0)]
for variance in ("posterior", "beta"):
    one, two = (last(ddpm(bump, x, end, variance, seeded(seed))) for seed in (1, 2))
    assert torch.equal(one, two)  # two seeds, one result: the last step draws nothing

tilde = schedule.beta * (1 - schedule.alpha_bar[:-1]) / (1 - schedule.alpha_bar[1:])
print(f"variances at t = 1:  beta tilde {tilde[0]:.0e},  beta {schedule.beta[0]:.0e}")
assert tilde[0] == 0 < schedule.beta[0]

# %% [markdown]
# With $\tilde\beta_1=0$ the switch is redundant; with $\beta_1=10^{-4}$ it is essential (exhibit 2 of the
# bug museum shows when).
#
# **A thousand forwards (L22-31).** One network call a step: let a counter say so. The answer must be
# $\mathcal N(1,0.5^2)$, to four standard errors and the bias of a finite step.

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
# took something away, the length of $x_t$ should shrink to that of the picture step by step. Is it so?
# *Predict first*: for handwritten digits of 64 pixels, what is $\lVert x_t\rVert/\sqrt{64}$ half-way?

# %%
images, _ = data.digits("train")
images = images.double()
ideal = mixtures.Mixture(images)  # the exact denoiser of these 898 digits
canvas = torch.randn(100, 1, 8, 8, generator=seeded(6), dtype=torch.float64)

# %% tags=["L19-27", "E-28", "check"]
square = (images**2).mean()  # of a pixel
walk = list(ddpm(ideal, canvas, grid(schedule, 50), generator=seeded(7)))
for state in walk[::10]:
    lengths = (state.x**2).flatten(1).mean(1)
    mixed = state.t.signal**2 * square + state.t.noise**2
    measured, expected = lengths.mean().sqrt(), mixed.sqrt()
    print(f"clock {state.t.clock.abs():.2f}: length {measured:.2f}, of the mixture {expected:.2f}")
    assert abs(lengths.mean() - mixed) < 4 * lengths.std() / 100**0.5

# %% [markdown]
# The length hardly moves: from 1, that of noise, to that of the digits. A step **rescales and
# recombines**, $\text{signal}_s\hat x_0+\text{noise}_s\hat\epsilon$; what falls is the *share* of the
# noise (erratum E-28).
#
# ## 3. DDIM: keep the noise that you guessed
#
# **Story.** DDPM redraws a share $\rho$ of $\hat\epsilon$ at every step. Suppose we redraw only
# $\eta\rho$, with $\eta$ between 1 (DDPM) and 0 (nothing: the walk is a deterministic map):
#
# $$x_s=\text{signal}_s\,\hat x_0+\text{noise}_s\Big(\sqrt{1-\eta^2\rho^2}\;\hat\epsilon+\eta\rho\,z\Big).$$
#
# Song et al. 2021 call $\text{noise}_s\,\eta\rho$ their $\sigma$ (equation 16).

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
# The generative chain goes from $x_t$ to $x_s$ and looks at nothing else: Markov. Now the other
# direction, $q(x_t\mid x_s,x_0)$: if it is Markov, then $x_0$ says nothing about $x_t$ that $x_s$ does
# not say. *Predict*: for which $\eta$ is that true?
#
# **Check.** We take the true $x_0$, make $x_t$ by the forward process and $x_s$ by the step above, and fit
# $x_t\approx a\,x_s+b\,x_0$. A Markov process must have $b=0$.

# %%
def family(x0, t, s, eta):
    """x_t of the forward process, then x_s of the eta-family, made with the true x0."""
    xt = add_noise(x0, torch.randn(x0.shape, generator=seeded(8), dtype=x0.dtype), t)
    return xt, last(ddim(lambda x, level: from_x0(x, level, x0), xt, [t, s], eta, seeded(9)))


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
# and the training loss sees nothing but marginals. That is why one trained network serves the whole
# family. But $b=0$ only for $\eta=1$: it is the **forward** (inference) family that is non-Markovian
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
print(f"DDPM, same canvas, other fresh noise:   {moved:.2f} apart; DDIM twice: 0")
assert moved > 0.5

# %% [markdown]
# So "the seed is the canvas" (L19-26) is true for deterministic samplers. A stochastic one needs the
# whole stream of later noises as well: fixing $x_T$ alone fixes little.
#
# **Play.** Forty walks from the same forty starting points, over the exact density of two bumps. Move
# $\eta$: the threads that never cross turn into jagged ones that do, and the *distribution* at the right
# edge stays. Then go down to five steps: which end of the slider suffers more? (The readout is the
# Wasserstein distance between the ends and exact samples; its *floor* is exact against exact.)

# %%
def river(mixture, height=2.6):
    """A figure of the exact density at every noise level, noise on the left, data on the right."""
    clock, x = torch.linspace(0, 1, 101), torch.linspace(-height, height, 121).double()
    columns = [mixture.log_prob(x[:, None], trigonometric(u)).exp() for u in clock.double()]
    density = torch.stack(columns, 1)
    labels = ("clock: 1 is noise, 0 is data", "x", "")
    figure = plots.heatmap(clock, x, density / density.amax(0), labels=labels, cmap="Greys")
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
        apart = metrics.wasserstein_1d(states[-1].x[:, 0], truth)
        picture = stage.draw(paths=torch.stack([clock, x], 2))
        yield Frame(picture, f"network calls: {steps}, distance W₁ {apart:.3f} (floor {floor:.3f})")

    return frames


# %%
pair = mixtures.bimodal()
start = torch.randn(2000, 1, generator=seeded(12), dtype=torch.float64)
truth, again = (pair.sample(2000, generator=seeded(seed))[0][:, 0] for seed in (13, 14))

# %% tags=["play", "L22-36"]
play_eta = Explorer(
    threads(pair, start, truth, metrics.wasserstein_1d(truth, again), schedule),
    {
        "eta": slider("share of fresh noise η", 0.0, 1.0, value=0.0, step=0.1),
        "steps": slider("number of steps", 1, 50, value=30),
    },
)
play_eta.show(
    alt="forty paths from noise on the left to two bumps on the right, over the exact density: "
    "smooth threads that never cross at η = 0, jagged ones at η = 1",
    still_over="eta",
)

# %% tags=["check"]
play_eta["eta"].value, play_eta["steps"].value = 1.0, 5
play_eta.wait()
print(play_eta.readout)
assert play_eta.readout.startswith("network calls: 5,")
play_eta["eta"].value, play_eta["steps"].value = 0.0, 30  # back to where it stood

# %% [markdown] tags=["exercise"]
# **Exercise 1.** With five steps the slider punishes $\eta=1$ more than $\eta=0$. Why, if $\eta=1$ is the
# sampler that the training objective was derived for?
#
# <details><summary>Answer</summary>
#
# DDPM's Gaussian step is the true reverse kernel only for small steps (lesson 04). Over a long step the
# true kernel is a broad mixture; a Gaussian around a blurred $\hat x_0$, with the variance $\tilde\beta$ of a
# *known* $x_0$, is too narrow, and each step loses spread again. DDIM carries the spread of $x_t$ on in
# $\hat\epsilon$ and has only an integration error. With many steps it is the other way round: fresh noise
# forgets old errors, which a trained, imperfect network also makes.
# </details>
#
# ## 4. An ordinary differential equation in disguise
#
# **Story.** Take $\eta=0$ and divide the move by $\text{signal}_s$. In the coordinates
# $y=x/\text{signal}$ and $\sigma=\text{noise}/\text{signal}$ it says $y_s=\hat x_0+\sigma_s\hat\epsilon$, while
# $y_t=\hat x_0+\sigma_t\hat\epsilon$. Subtract: DDIM is *Euler's method* for
#
# $$\frac{\mathrm dy}{\mathrm d\sigma}=\hat\epsilon(y,\sigma),$$
#
# the **probability-flow ODE** (Song et al. 2021b). So sampling is solving an ODE, or, with fresh noise,
# an SDE (L19-52), and everything known about solvers applies.

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
# (L22-35: right), *at no cost in quality* (L22-34). Is it so? Euler's method has an error of first order.
# **Predict** the standard deviation of DDIM's samples of $\mathcal N(1,0.5^2)$ after 10, 50 and 1000
# steps. We need no samples: for a Gaussian each step is affine, so two points tell the whole map.

# %%
def final_std(denoiser, levels):
    """The standard deviation that DDIM makes of N(0, 1), if every step is affine."""
    ends = last(ddim(denoiser, torch.tensor([[0.0], [1.0]]).double(), levels))
    return (ends[1] - ends[0]).item()


# %% tags=["L22-34", "L22-35", "E-65", "check"]
counts = (5, 10, 20, 50, 100, 1000)
lost = {steps: 0.5 - final_std(bump, grid(schedule, steps)) for steps in counts}
rows = [(s, 0.5 - lost[s], lost[s], s * lost[s]) for s in counts]
head = ("steps", "std (0.5)", "lost", "lost × steps")
plots.table(rows, header=head, caption="DDIM on a Gaussian, exact")
assert all(abs(s * lost[s] - 1000 * lost[1000]) < 0.1 * 1000 * lost[1000] for s in (50, 100))

# %% [markdown]
# The last column settles at 1.5: the loss is $1.5/S$. Fifty steps lose 6 % of the spread, a thousand
# 0.3 %. "Almost as good", often a good bargain, never free (erratum E-65). On CIFAR-10 the paper itself
# reports an FID (lower is better) of 4.67 for 50 steps, 4.04 for 1000, and 3.17 for DDPM's 1000 with the
# larger variance (Song et al. 2021a, table 1).
#
# **There and back (L22-36).** An ODE can be walked upwards too: give `ddim` the levels in rising order and
# it *encodes* data as noise; walk down, and the data should return. How nearly?

# %% tags=["L22-36", "check"]
points, _ = world.sample(500, generator=seeded(14))
trip = {}
for steps in (20, 40, 80, 160):
    levels = grid(schedule, steps)
    code = last(ddim(world, points, levels[::-1]))
    trip[steps] = (last(ddim(world, code, levels)) - points).square().mean().sqrt().item()
    print(f"{steps:4} steps: root mean square {trip[steps]:.3f}, std of the code {code.std():.2f}")
assert all(1.5 < trip[s] / trip[2 * s] < 2.5 for s in (20, 40, 80))

# %% [markdown] tags=["exercise"]
# First order again: half the error for twice the steps. Editing pictures (lesson 15) stands on this.
#
# **Exercise 2.** How many DDIM steps bring the standard deviation of the Gaussian within 1 % of the truth?
# Compute first, then call `final_std`.
#
# <details><summary>Answer</summary>
#
# 1 % of 0.5 is 0.005, and $1.5/S=0.005$ at $S=300$. `final_std(bump, grid(schedule, 300))` is 0.495.
# </details>
#
# ## 5. Second order: look ahead, or look back
#
# **Story.** Euler believes the slope at the *start* of a step. Better is the mean of the slopes at both
# ends. **Heun's method** tries the step, asks again where it landed, and moves by the mean: two calls a
# step. **DPM-Solver++(2M)** (Lu et al. 2022b) saves the second call: it *remembers* the previous guess and
# extrapolates $\hat x_0$ to the middle of the step. With $\lambda=-\log\sigma$ and steps of length
# $h=\lambda_s-\lambda_t$, the last one $h'$,
#
# $$\hat x_0^{\text{2M}}=\hat x_0+\frac{h}{2h'}\,\big(\hat x_0-\hat x_0'\big),$$
#
# one call a step (the prime marks the step before).

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
        if before is not None and s.noise > 0:  # the data are infinitely far away in log sigma
            ratio = (t.sigma / s.sigma).log() / (before.t.sigma / t.sigma).log()
            guess = from_x0(x, t, state.x0 + ratio / 2 * (state.x0 - before.x0))
        x, before = add_noise(*guess, s), state
    yield look(denoiser, x, s)


# %% [markdown]
# **Check.** A method has order $p$ if its error falls like $S^{-p}$. All start from the same noise and walk
# to the same level; the truth is the ODE's own solution, found by the library's `probability_flow` (a
# third-order method in another coordinate) with 200 steps. Who checks *that*? For a Gaussian the
# solution is a formula: $x_t$ keeps its place in units of the standard deviation.

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
    walks = [open_grid(schedule, steps) for steps in counts]
    errors[name] = torch.tensor([path_error(method, world, few, w, truth) for w in walks])
    slope = (errors[name][2] / errors[name][4]).log2() / 2  # from 40 to 160 steps
    print(f"{name:17} measured order {slope:.2f}, theory {order}")
    assert abs(slope - order) < 0.15

# %% tags=["L22-46"]
figure = plots.lines(
    {name: (counts, errors[name]) for name in METHODS},
    xlabel="number of steps", ylabel="median distance to the exact end", log=True, orders=(1, 2),
)  # fmt: skip
plots.show(
    figure,
    alt="on logarithmic axes DDIM falls along a line of slope one, Heun and DPM-Solver++(2M) along "
    "lines of slope two, far below it",
    caption="Same noise, same grid (uniform in log-SNR). Heun pays two calls a step.",
)

# %% [markdown] tags=["exercise"]
# **Exercise 3.** Per *step* Heun beats 2M. Who wins per *call*? Read the answer off the figure, then look
# at `errors["Heun"][2]` and `errors["DPM-Solver++(2M)"][3]`.
#
# <details><summary>Answer</summary>
#
# Half the steps cost Heun a factor four in error: about 0.0011 with 80 calls, against 0.0006 for 2M.
# Memory is cheaper than a second look.
# </details>
#
# ## 6. Where to stop on the way
#
# **Story.** A grid is only a list of levels. Three are common: uniform in the table's step number
# (L22-34), uniform in the logarithm of the signal-to-noise ratio, and that of Karras et al. 2022, eq. 5,
#
# $$\sigma_i=\Big(\sigma_{\max}^{1/\varrho}+\tfrac{i}{S-1}\big(\sigma_{\min}^{1/\varrho}-\sigma_{\max}^{1/\varrho}\big)\Big)^{\varrho},\qquad\varrho=7,$$
#
# which lies between uniform in $\sigma$ ($\varrho=1$) and uniform in $\log\sigma$ ($\varrho\to\infty$).
# Karras' levels have signal 1 and noise $\sigma$; dividing both by $\sqrt{1+\sigma^2}$ puts the same $\sigma$
# on our schedule.

# %%
def karras(schedule, steps):
    sigmas = [t.noise for t in karras_levels(steps, 0.03, schedule.at(1000).sigma.item())]
    return [NoiseLevel(1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()) for s in sigmas]


def log_snr(schedule, steps):
    return log_snr_grid(schedule, steps, end=0.01)


GRIDS = {"uniform in t": grid, "uniform in log-SNR": log_snr, "Karras": karras}

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
    alt="three rows of twelve stops on a logarithmic axis of sigma: the uniform grid ends at 0.3; "
    "log-SNR is even; Karras is denser at large sigma and sparser near the data",
    caption="Twelve steps each; the last stop, the data at σ = 0, is off the axis.",
)

# %% tags=["check"]
end = last(probability_flow(world, few, grid(schedule, 200)))
rows = []
for name, (method, _) in METHODS.items():
    walks = [make(schedule, 20) for make in GRIDS.values()]
    rows.append([name, *[path_error(method, world, few, walk, end) for walk in walks]])
plots.table(rows, header=["20 steps", *GRIDS], caption="median distance to the exact end")
best = [min(range(3), key=row[1:].__getitem__) for row in rows]
assert best == [0, 1, 1]  # the column that wins, for each method

# %% [markdown]
# Grid and solver belong together. Euler likes uniform steps in $t$ here; the second-order methods need
# log-SNR, because on the uniform grid the last jump, from $\sigma\approx0.2$ to 0, is first-order whatever
# the solver. Karras' grid, tuned on images, spends more stops at large $\sigma$, where in our small world
# little happens. The right grid depends on solver and data: measure.
#
# ## 7. The menu: quality for calls
#
# **Story.** Which sampler is *best*? Count calls, not steps, and measure the distance to the truth: the
# energy distance $2\,\mathbb E\lVert X-Y\rVert-\mathbb E\lVert X-X'\rVert-\mathbb E\lVert Y-Y'\rVert$ between
# 1000 samples and 1000 exact ones. It is zero only for equal distributions (an unbiased estimate may fall
# a little below), and no sampler can be seen to be better than the **floor**: exact against exact.

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
draws = [world.sample(1000, generator=seeded(100 + k))[0] for k in range(20)]
floor = max(abs(metrics.energy_distance(draw, real)) for draw in draws)

# %% tags=["L22-46", "check"]
PAIRED = {
    "DDPM": (ancestral, grid), "DDIM": (ddim, grid),
    "Heun": (heun, log_snr), "DPM-Solver++(2M)": (dpm_solver_2m, log_snr),
}  # fmt: skip
menu = {}
for name, (sampler, make) in PAIRED.items():
    walks = [make(schedule, steps) for steps in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)]
    menu[name] = [quality(sampler, world, noise, walk, real) for walk in walks]

# %% tags=["L22-46"]
curves = {}
for name, row in menu.items():
    curves[name] = [calls for calls, _ in row], [max(e, floor) for _, e in row]
    reached = next(calls for calls, e in row if e < floor)
    print(f"{name:17} at the floor ({floor:.3f}) from {reached} calls on")

# %% tags=["L22-46"]
curves["exact, against exact (floor)"] = ([2, 95], [floor, floor])
figure = plots.lines(curves, xlabel="network calls", ylabel="energy distance", log=True)
plots.show(
    figure,
    alt="energy distance against network calls on logarithmic axes: all fall to the floor, "
    "DPM-Solver++(2M) first, DDPM last",
    caption="Each on the grid that suits it. Values below the floor are drawn on it.",
)

# %% [markdown] tags=["L22-46", "L22-47", "E-75"]
# **The lecture's menu** gives ranges: DDPM 1000, DDIM 50 to 100, DPM-Solver++ 20 to 30, flow matching 8 to
# 20, consistency 1 to 4 (L22-46), "each generation about ten times cheaper" (L22-47). Other slides say 20
# to 50 and 4 to 10 (erratum E-75). Which range is right? *Predict*: what happens to the number of calls
# if the same three bumps are three times narrower?

# %%
def steps_needed(sampler, mixture, x, schedule):
    """The fewest steps of a doubling ladder that end within a tenth of a std of the exact end."""
    end = last(probability_flow(mixture, x, log_snr_grid(schedule, 200)))
    for steps in (5, 10, 20, 40, 80, 160, 320):
        if path_error(sampler, mixture, x, grid(schedule, steps), end) < 0.1 * mixture.std[0]:
            return steps


# %% tags=["L22-46", "E-75", "check"]
narrow = mixtures.Mixture(world.means, 0.1)
for name, (method, _) in METHODS.items():
    wide, thin = (steps_needed(method, mixture, few, schedule) for mixture in (world, narrow))
    print(f"{name:17} {wide:4} steps for std 0.3, {thin:4} for std 0.1")
    assert thin > wide

# %% tags=["L22-47", "check"]
factors = [1000 / 50, 50 / 4, 4 / 1]
mean = (factors[0] * factors[1] * factors[2]) ** (1 / 3)
print(f"each generation is cheaper by {factors}; geometric mean {mean:.4f}")
assert abs(mean - 10) < 1e-10

# %% [markdown] tags=["L22-37", "E-66", "E-64"]
# A range is a property of sampler, data *and* tolerance together: the orders are robust, the columns are
# not. "Ten times per generation" holds for the geometric mean of 20, 12.5 and 4, and for none of them.
#
# Two more sentences of the lecture to handle with care. *"DDIM and DPM-Solver++ are the default
# everywhere"* (L22-37): a default belongs to a model's repository. As published, Stable Diffusion 1.5
# comes with PNDM, 2 with DDIM, SDXL with Euler, and 3 with Euler for flow matching; DPM-Solver++ is
# a popular choice (source: each repository's `scheduler_config.json`, 2024; erratum E-66). And *"a new backbone is a way
# to speed up without retraining"*: a transformer must be trained from scratch and takes as many steps
# (erratum E-64); samplers alone come free of training.
#
# **Play.** Same noise, same uniform grid, four samplers; the contours are the exact density, the lines the
# walks of a few points. Find the smallest number of steps that you would call good for each.

# %%
def clouds(mixture, noise, real, schedule, floor, shown=12):
    stage = plots.Stage(plots.contours(lambda x: mixture.log_prob(x, schedule.at(0)).exp(), 2.6))

    def frames(sampler, steps):
        ask, states = counted(mixture), []
        for k, state in enumerate(sampler(ask, noise, grid(schedule, steps))):
            states.append(state)
            if k == steps // 2 > 5:  # a long walk: show what it is aiming at
                yield Frame(stage.draw(state.x0), f"x̂₀ after {k} of {steps} steps")
        apart = metrics.energy_distance(state.x, real)
        paths = torch.stack([s.x[:shown] for s in states])
        readout = f"network calls: {ask.calls}, energy distance: {apart:.3f} (floor {floor:.3f})"
        yield Frame(stage.draw(state.x, paths), readout)

    return frames


# %% tags=["play", "L22-46"]
samplers = {"DDPM": ancestral, "DDIM": ddim, "Heun": heun, "DPM-Solver++(2M)": dpm_solver_2m}
play_steps = Explorer(
    clouds(world, noise[:600], real, schedule, floor),
    {
        "sampler": choice("sampler", samplers, value=ddim),
        "steps": slider("number of steps", 1, 50, value=8),
    },
    width=400,
)
play_steps.show(
    alt="six hundred samples over the contours of three bumps: with one step all in the middle, "
    "with a few steps between the bumps, with ten and more on them",
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
# (DS-53). Is it so? *Predict*: `ideal` is the exact denoiser of 898 stored digits. What does a perfect
# sampler make of it? We measure each sample's distance to the nearest training digit, and to the nearest
# of the other half, which nobody trained on.

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
rows = ("noisy, step 700", "one-shot guess", "50-step sample", "nearest stored")
plots.show(
    plots.images(gallery, 12, rows=rows),
    alt="four rows of twelve digits: noise, blurred averages, sharp digits, and the same digits "
    "again from the training set",
    caption="A perfect sampler of a perfect memory returns the memory.",
)

# %% [markdown]
# The samples *are* the training set, and that is a failure: **memorisation**. The purpose is to draw from
# the *population* that the training set was drawn from (erratum E-44). A network gets there because it
# cannot be `ideal`: it smooths. Our `world`, a density and not a list, is a population, and its samples
# are newcomers:

# %% tags=["DS-53", "check"]
memory, _ = world.sample(200, generator=seeded(18))
others, _ = world.sample(200, generator=seeded(19))
for name, denoiser in {"memory": mixtures.Mixture(memory), "population": world}.items():
    made = last(dpm_solver_2m(denoiser, noise[:200], log_snr_grid(schedule, 30)))
    seen, unseen = nearest(made, memory)[0], nearest(made, others)[0]
    print(f"denoiser of the {name:10}: to the seen {seen:.3f}, to the unseen {unseen:.3f}")
    assert (seen < 0.1 * unseen) == (name == "memory")

# %% [markdown]
# ## 9. Bug museum
#
# Six famous mistakes. Four wreck the picture; two leave it *looking right*, and only a unit check sees
# them. The first three live in Algorithm 2, written here as in the lecture, with two places to go wrong:
# the standard deviation `width`, and the noise `draw`.

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


# %% tags=["T-05", "T-06", "T-07"]
EXHIBITS = {
    "right": (lambda beta, tilde: tilde.sqrt(), fresh(seeded(20))),
    "1: variance as std": (lambda beta, tilde: tilde, fresh(seeded(20))),
    "2: noise at t = 1": (lambda beta, tilde: beta.sqrt(), fresh(seeded(20))),
    "3: same z again": (lambda beta, tilde: tilde.sqrt(), lambda x: fresh(seeded(20))(x)),
}

# %% tags=["T-05", "T-06", "T-07", "check"]
n = 2000
start = torch.randn(n, 1, generator=seeded(21), dtype=torch.float64)
ends = {name: algorithm_2(bump, schedule, start, *bug)[:, 0] for name, bug in EXHIBITS.items()}
slack = 4 * 0.5 / (2 * n) ** 0.5
for name, end in ends.items():
    print(f"{name:20} std {end.std():6.3f} (0.5 ± {slack:.3f})")
looks_right = [name for name, end in ends.items() if abs(end.std() - 0.5) < slack]
assert looks_right == ["right", "2: noise at t = 1"]

# %%
x = torch.linspace(-1.5, 3.5, 200, dtype=torch.float64)
density = bump.log_prob(x[:, None], schedule.at(0)).exp()

# %% tags=["T-05", "T-06", "T-07"]
figure, axes = plots.panels(3, size=(2.9, 2.3))
for ax, (name, end) in zip(axes, list(ends.items())[1:], strict=True):
    plots.densities(x, {"exact": density}, samples={"model": end}, xlabel=name, ax=ax)
plots.show(
    figure,
    alt="three histograms over the true bell: one needle-thin, one just like the bell, "
    "one spread far too wide",
    caption="Exhibit 2 passes every look. Its unit check does not.",
)

# %% [markdown]
# **1 (T-05)** multiplies $z$ by the variance. **3 (T-07)** creates the generator inside the loop, so every
# step adds the *same* $z$. Both show. **2 (T-06)** adds noise in the last step; on this table
# $\sqrt{\beta_1}=0.01$ is too little to see. On a coarse table it is not. The unit checks need one step:

# %%
def one_step(schedule, width, draw, k, x):
    """The noise that one step from level k adds, in units of sqrt(beta), and if it repeats."""
    beta = schedule.beta[k - 1]
    tilde = beta * (1 - schedule.alpha_bar[k - 1]) / (1 - schedule.alpha_bar[k])
    one, two = (width(beta, tilde) * draw(x) for _ in range(2))
    return (one.std() / beta.sqrt()).item(), torch.equal(one, two)


# %% tags=["T-05", "T-06", "T-07", "check"]
many = torch.zeros(100_000, 1, dtype=torch.float64)
for name, bug in EXHIBITS.items():
    (middle, same), (end, _) = (one_step(schedule, *bug, k, many) for k in (500, 1))
    print(f"{name:20} step 500: {middle:.2f} (1)   step 1: {end:.2f} (0)   z repeats: {same}")
    passes = abs(middle - 1) < 4 / (2 * len(many)) ** 0.5 + 0.002 and end == 0 and not same
    assert passes == (name == "right")  # 0.002: sqrt(beta tilde / beta) at step 500

# %% tags=["T-06", "check"]
ladder = grid(schedule, 10)[::-1]  # the same schedule as a table of ten steps
coarse = DDPMSchedule(10, torch.stack([1 - t.alpha_bar / s.alpha_bar for s, t in pairwise(ladder)]))
bad = algorithm_2(bump, coarse, start, *EXHIBITS["2: noise at t = 1"]).std()
good = last(ddpm(bump, start, ladder[::-1], "beta", seeded(20))).std()
print(f"ten steps with noise at t = 1: std {bad:.2f}, without: {good:.2f}")
assert bad > good + 0.05

# %% [markdown]
# **4 (T-20): the coefficients of DDIM.** With $\sigma=\text{noise}_s\,\eta\rho$ the direction is
# $\sqrt{1-\bar\alpha_s-\sigma^2}$ and the noise $\sigma z$. Forget one square, or add one:

# %% tags=["T-20"]
def eta_step(x0, eps, t, s, z, direction_power=2, noise_power=1):
    sigma = s.noise * (1 - (s.sigma / t.sigma) ** 2).sqrt()
    direction = (s.noise**2 - sigma**direction_power).clamp(min=0).sqrt()
    return add_noise(x0, eps, NoiseLevel(s.signal, direction)) + sigma**noise_power * z


# %% tags=["T-20", "check"]
zero, one = torch.zeros(1).double(), torch.ones(1).double()
for name, powers in {"right": (2, 1), "sqrt(1 - ā - σ)": (1, 1), "σ² z": (2, 2)}.items():
    x, draw = start, fresh(seeded(23))
    for t, s in pairwise(grid(schedule, 100)):
        x = eta_step(*bump(x, t), t, s, draw(x), *powers)
    t, s = schedule.at(600), schedule.at(400)
    parts = eta_step(zero, one, t, s, zero, *powers), eta_step(zero, zero, t, s, one, *powers)
    total = (parts[0] ** 2 + parts[1] ** 2).item()
    print(f"{name:16} final std {x.std():.2f}   direction² + σ² {total:.3f} ({s.noise**2:.3f})")
    assert (abs(total - s.noise**2) < 1e-10) == (name == "right")

# %% [markdown]
# **5 (T-21): a grid with wrong ends.** Some libraries walk twenty steps from number 951 of 1000, although
# the canvas is pure noise. Exact mean and standard deviation of what comes out, and the check that sees it:

# %% tags=["T-21", "check"]
for first in (1.0, 0.951):
    levels = grid(schedule, 20, start=first)
    zero, one = last(ddim(bump, torch.tensor([[0.0], [1.0]]).double(), levels))[:, 0].tolist()
    whole = bool(levels[0].noise == schedule.at(1000).noise and levels[-1].noise == 0)
    print(f"start {first}: mean {zero:.3f}, std {one - zero:.3f}, both ends right: {whole}")
    assert whole == (first == 1)

# %% tags=["T-21", "check"]
try:
    probability_flow(bump, x, [schedule.at(500), schedule.at(500), schedule.at(0)])
    raise AssertionError("a repeated level must be refused")
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# Invisible in the samples; the library's own walks refuse what is not monotone.
#
# **6 (T-22): clipping $\hat x_0$ to $[-1,1]$** helps images, which live there, and ruins data that do not
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
CLIPS = {"none": bump, "clip": guidance.clip(bump), "clip, stale eps": half_clip(bump)}
for name, denoiser in CLIPS.items():
    end = last(ddim(denoiser, start, grid(schedule, 100)))
    gap = (add_noise(*denoiser(x, t), t) - x).abs().max()
    moments = f"mean {end.mean():.2f} (1)  std {end.std():.2f} (0.49)"
    print(f"{name:16} {moments}  pair misses x by {gap:.2f}")
    assert (gap < 1e-10) == (name != "clip, stale eps")

# %% [markdown] tags=["exercise"]
# **Exercise 4.** `ddim` walks upwards with $\eta=0$. What should $\eta=1$ upwards be, and what does the
# library's `didiff.ddim` do? Guess, then encode `points` with it and look at the standard deviation of the
# code, and at two runs with different seeds.
#
# <details><summary>Answer</summary>
#
# Upwards, redrawing the whole of DDPM's share is the forward process itself: $x_t$ is $x_s$, faded, plus
# fresh noise. The code has standard deviation 1 and forgets the data; two seeds give two codes. With
# $\eta=0$ there is one code, and the way back.
# </details>
#
# ## What we learned
#
# - Every sampler makes one move, `add_noise(x0, eps, s)`; they differ in what they do with $\hat\epsilon$.
# - DDPM redraws a part of it, DDIM none, and $\eta$ goes from one to the other without retraining.
# - DDIM is Euler's method: error $1/S$. Heun and DPM-Solver++(2M) are of second order; 2M at one call.
# - Steps are no property of a sampler: measure calls, on your data, against the floor.
# - Samples that look right prove little; a unit check on an exact denoiser proves much.
#
# ## References
#
# Ho, Jain & Abbeel 2020, *Denoising diffusion probabilistic models*, section 3.2 and algorithm 2 ·
# Song, Meng & Ermon 2021a, *Denoising diffusion implicit models*, equations 12 and 16, table 1 ·
# Song et al. 2021b, *Score-based generative modeling through SDEs*, equation 13 ·
# Karras et al. 2022, *Elucidating the design space*, equation 5 and algorithm 1 ·
# Lu et al. 2022b, *DPM-Solver++*, algorithm 2 · Székely & Rizzo 2013, *Energy statistics*.
#
# **Where next.** Our denoisers were formulas. Lesson 08 builds the network that takes their place.
