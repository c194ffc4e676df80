# %% [markdown]
# # 01 · Why many steps?
#
# *A machine turns random numbers into handwritten digits, not in one stroke but in twenty careful ones. You will
# see why the one stroke fails, what the small steps buy, and watch a digit dissolve and return under your hand.*
#
# **You need** probability (density, mean, variance), Python, a little torch. Nothing about diffusion: this is the
# first lesson.
#
# **You will be able to** say what a generator is, predict what a network trained by squared error makes of noise,
# explain why a thousand small steps are easier to learn than one big one, and place diffusion among its
# relatives.
#
# **Time** an hour of reading and playing; about 20 seconds of computing on two CPU cores.
#
# **The codes.** (L6-44) names a slide of the lectures the course follows and tests, E-nn a slip in them put right
# by number, T-nn a classic student mistake.
#
# **The black box.** Today we *use* the library `didiff` without opening it. Three of its words are enough for
# now: a *schedule* says how fast a picture fades into noise, a *denoiser* guesses what was there before, and a
# *sampler* (`ddim`) walks from noise back to data by asking the denoiser again and again. Every piece is written
# out in a later lesson.

# %% tags=["setup"]
import math
from itertools import pairwise

import torch

from didiff import data, guidance, metrics, mixtures, networks, plots, training, weights
from didiff.denoiser import Denoiser, loss
from didiff.process import NoiseLevel, add_noise
from didiff.samplers import ddim, last
from didiff.schedules import DDPMSchedule, constant, cosine, grid
from didiff.widgets import Explorer, Frame, slider

torch.manual_seed(0)
torch.set_num_threads(1)  # our tensors are small: a second thread costs more than it gives
plots.style()

# %% [markdown] tags=["L22-01", "L22-02"]
# ## The map of the course
#
# The story in one breath (L22-02): *add noise to data, step by step, until nothing is left; teach a network to
# guess the noise in what it sees; then start from noise and walk back.* Each line is a skill, and a checklist to
# come back to. The six that the lecture announces (L22-01) have a star.
#
# | you can ... | lesson |
# |---|---|
# | say why many steps (you are here) | 01 |
# | handle random paths, noise a picture, reverse it, derive the loss | 02, 03, 04, 05 |
# | turn a guess of the noise into the slope of a log-density | 06 |
# | ★ sample in few steps with DDIM, and others | 07 |
# | build the network, and tell it which class to draw | 08, 09 |
# | guide it with a classifier | 10 |
# | ★ guide it without one (classifier-free guidance) | 11 |
# | train on a GPU | 12 |
# | ★ draw from a text | 13 |
# | ★ work in a smaller, latent space | 14 |
# | edit pictures | 15 |
# | ★ learn straight flows and consistency models, for very few steps | 16 |
# | ★ replace the network by a transformer | 17 |
# | leave the world of images, rebuild Stable Diffusion | 18, 19 |

# %% [markdown] tags=["DS-01"]
# ## 1. A generator is a map
#
# **Story.** A computer can draw one thing well: numbers $z\sim N(0,1)$ from the bell curve. A *generator* is a
# function $G$ that turns such numbers into data (DS-01). Suppose the data are single numbers with the density of
# two bumps, at $-1$ and $+1$, each of standard deviation 0.3. Which $G$ makes them?
#
# **Formula.** Let $\Phi$ be the distribution function of the bell and $F$ that of the data, the probability of
# lying below. Send the number that is larger than 30 % of the noise to the one that is larger than 30 % of the
# data:
#
# $$G(z)=F^{-1}(\Phi(z)).$$
#
# **Code.** $F$ rises, so we invert it by halving an interval.

# %%
pair = mixtures.bimodal()  # the two bumps; it knows its density and the ideal denoiser
schedule = DDPMSchedule()  # 1000 levels between data (0) and noise (1000): lesson 03


def two_bumps(x):
    """F(x), the share of the data below x."""
    return (torch.special.ndtr((x + 1) / 0.3) + torch.special.ndtr((x - 1) / 0.3)) / 2


# %% tags=["formula", "DS-01"]
def quantile_map(z, F):
    """G(z) = F^-1(Phi(z)), for data within [-4, 4]. z (n,) -> (n,)."""
    low, high = torch.full_like(z, -4.0), torch.full_like(z, 4.0)
    for _ in range(60):
        middle = (low + high) / 2
        too_far = F(middle) > torch.special.ndtr(z)
        low, high = torch.where(too_far, low, middle), torch.where(too_far, middle, high)
    return low


# %% tags=["DS-01"]
n = 20_000
made = quantile_map(torch.randn(n, dtype=torch.float64), two_bumps)
x = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
density = pair.log_prob(x[:, None], schedule.at(0)).exp()

# %% tags=["DS-01"]
figure = plots.densities(x, {"exact": density}, samples={"model": made})
figure.axes[0].legend(loc="upper center")
plots.show(
    figure,
    alt="A histogram with two bumps, at -1 and +1, that fills the dashed exact density",
    caption="20,000 bell-shaped random numbers, sent through G.",
)

# %% [markdown]
# **Check.** The share of samples in $[0.7,1.3]$, one standard deviation around $+1$, must be
# $\tfrac12\cdot0.683$. A share $p$ of $n$ draws has standard deviation $\sqrt{p(1-p)/n}$; we allow four.

# %% tags=["check", "DS-01"]
share = ((made > 0.7) & (made < 1.3)).double().mean().item()
expected = math.erf(1 / math.sqrt(2)) / 2
print(f"share in [0.7, 1.3]: {share:.2f}   expected {expected:.2f}")
assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)

# %% [markdown] tags=["DS-32"]
# So in one dimension the problem is solved in one step. Why a whole course, then? Because a picture of
# $100\times100$ pixels in three colours is a list of 30,000 numbers (DS-32), and nobody can tabulate $F$ there.
# Even if each number could only be dark or bright:

# %% tags=["check", "DS-32"]
numbers = torch.zeros(3, 100, 100).numel()
print(f"{numbers} numbers; dark or bright alone makes 10^{numbers * math.log10(2):.0f} pictures")
assert numbers == 30_000

# %% [markdown]
# We shall have to *learn* $G$ from examples.

# %% [markdown] tags=["DS-34", "L19-49"]
# ## 2. The obvious attempt
#
# **Story.** We have noise $z$ and examples $x_0$. Draw one of each, show $z$ to a function $g$, and punish the
# squared distance of $g(z)$ from $x_0$. *Predict before you read on:* what will $g$ look like?
#
# **Formula.** Among all functions of $z$, squared error is smallest for the conditional mean:
#
# $$\arg\min_g\;\mathbb E\,(g(z)-x_0)^2=\mathbb E[x_0\mid z].$$
#
# **Code.** We need no network to see it: cut the noise into 16 bins and average the $x_0$ in each. That is the
# best that any learner can do, up to the width of a bin.


# %% tags=["formula", "DS-34"]
def bin_means(z, x, bins=16):
    """Means of z and of x in bins of equally many z: the best guess of x from z. (bins,) each."""
    order = z.argsort()
    return tuple(v[order].reshape(bins, -1).mean(1) for v in (z, x))


# %% tags=["DS-34"]
n = 16_000
z, x0 = torch.randn(n, dtype=torch.float64), pair.sample(n)[0][:, 0]  # points; [1] are labels
pairings = {"drawn at random": (z, x0), "smallest with smallest": (z.sort()[0], x0.sort()[0])}

# %% tags=["DS-34"]
figure, axes = plots.panels(2, size=(3.4, 2.8))
for ax, (name, (a, b)) in zip(axes, pairings.items(), strict=True):
    sets = {
        "data": torch.stack([a, b], 1)[::80],
        "model, best guess": torch.stack(bin_means(a, b), 1),
    }
    plots.scatter(sets, ax=ax)
    ax.set(title=name, xlabel="noise z", ylabel="x₀", aspect="auto")
axes[0].get_legend().remove()
plots.show(
    figure,
    alt="Two panels of points over the noise z. At random: two bands at +1 and -1, the best guess "
    "is a flat line at 0 between them. Sorted: the points form a rising S, the best guess on it.",
    caption="The same noise and the same data, paired in two ways.",
)

# %% tags=["check", "DS-34"]
spread = pair.std[0] ** 2 + 1  # variance of the data: 0.3² within a bump, 1 between them
flat, risen = (bin_means(*both) for both in pairings.values())
print(f"at random: the best guesses lie within {flat[1].abs().max():.2f} of the mean 0")
apart = (risen[1] - quantile_map(risen[0], two_bumps))[1:-1].abs().max()
print(f"sorted: largest distance from G, without the outer bins, {apart:.2f}")
assert flat[1].abs().max() < 4 * (spread / (n / 16)) ** 0.5
assert risen[1].var(correction=0) > 0.9 * spread  # sorted, the guess explains nearly all

# %% [markdown] tags=["DS-34"]
# Random pairs tell nothing about each other, so $\mathbb E[x_0\mid z]=\mathbb E[x_0]$: **one point, the mean**,
# and between the bumps where there are hardly any data. The squared error is not to blame: with sorted pairs the
# same average finds $G$. *One-step maps are learnable if the pairing is right*; in one dimension we can sort, in
# 30,000 we cannot. (Lesson 16 lets a diffusion model make the pairs. A GAN, in section 6, needs none: it judges
# the outputs, not pairs.)

# %% [markdown] tags=["L19-49", "DS-36"]
# **Now a network.** Two half moons in the plane; a network of 34,000 numbers; 800 steps of training. First in one
# shot, from noise to data. Then the *same* network, trained as long, as a denoiser: it sees half-faded points, is
# told how much they faded, and guesses what they were.


# %% tags=["DS-34"]
def moons():
    """Two half circles, centred and scaled to standard deviation 1, and blurred."""
    turn = torch.linspace(0, math.pi, 100, dtype=torch.float64)
    upper = torch.stack([turn.cos(), turn.sin()], 1)
    points = torch.cat([upper, torch.tensor([1.0, 0.2]) - upper])
    return mixtures.Mixture((points - points.mean(0)) / points.std(0), std=0.06)


# %% tags=["DS-34", "L19-49"]
def one_shot_loss(net, x0):
    """|net(z) - x0|², with z drawn independently of x0. x0 (B, 2) -> (B,)."""
    z = torch.randn_like(x0)
    return (net(z, torch.ones(len(x0))) - x0).square().mean(1)  # 1: all is noise


# %% tags=["DS-34", "L19-49", "DS-36"]
def train(model, loss_of, world, steps=800):
    """The average of the last models of a training on fresh points of the world (lesson 06)."""
    supply = ((world.sample(512)[0].float(),) for _ in range(steps))
    *_, end = training.fit(model, loss_of, supply, steps, lr=0.01, ema=0.99)
    return end.ema


# %% tags=["DS-34", "L19-49", "DS-36"]
def denoising_loss(denoiser, x0, schedule):
    """How badly it guesses x0 (B, 2), faded to random levels. Returns (B,)."""
    return loss(denoiser, x0, training.random_steps(schedule, len(x0)))


# %% tags=["DS-34", "L19-49", "DS-36"]
world, fading = moons(), DDPMSchedule(1000, cosine)  # fades more evenly than the first schedule
one_shot = train(networks.MLP((2,), width=64, depth=2), one_shot_loss, world)
walker = train(
    Denoiser(networks.MLP((2,), width=64, depth=2)),
    lambda d, x0: denoising_loss(d, x0, fading),
    world,
)

# %% tags=["DS-34", "L19-49", "L22-02"]
noise = torch.randn(1000, 2)
outcomes = {
    "data": world.sample(1000)[0],
    "model, one shot": one_shot(noise, torch.ones(1000)),
    "model, 20 steps": last(ddim(walker, noise, grid(fading, 20))),
}

# %% tags=["DS-34", "L19-49", "L22-02"]
figure, axes = plots.panels(3, size=(2.6, 2.7))
for ax, (name, points) in zip(axes, outcomes.items(), strict=True):
    plots.scatter({name: points}, limit=2.4, ax=ax)
    ax.set_title(name)
plots.show(
    figure,
    alt="Three panels. The data are two half moons. One shot gives a single small blot in the "
    "middle, between the moons. Twenty steps give the two moons and some stray points.",
    caption="One network, one budget of training, two tasks.",
)

# %% [markdown]
# **Check.** The best possible loss is the variance of the data, 1 per coordinate, and the best output is one
# point. So its standard deviation, 1 for the data, should be near 0.

# %% tags=["check", "DS-34", "L19-49"]
n = 20_000
x0 = world.sample(n)[0].float()
losses = one_shot_loss(one_shot, x0)
out = one_shot(torch.randn(n, 2), torch.ones(n))
print(f"one shot: loss {losses.mean():.2f}, variance of the data 1")
print(f"std of the outputs {out.std(0).max():.2f}, of the data 1")
assert losses.mean() > 1 - 4 * losses.std() / n**0.5  # nothing beats the mean
assert out.std(0).max() < 0.1

# %% [markdown] tags=["DS-36"]
# **One network, not a thousand (DS-36).** The walk visited twenty levels, training a thousand. That is *one*
# network with the level as an input, not one for each: a saving against a thousand networks, not against the
# one-shot network, which is as large.

# %% tags=["check", "DS-36"]
sizes = [sum(p.numel() for p in model.parameters()) for model in (one_shot, walker)]
print(f"one shot {sizes[0]:,} numbers, all levels {sizes[1]:,}")
print(f"a network for each level: {1000 * sizes[1]:,}")
assert sizes[0] == sizes[1]

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Somebody blames the square and trains on $|g(z)-x_0|$ instead. What does the one-shot generator
# of the two bumps make now? And of two bumps with weights 0.7 (at $-1$) and 0.3?
#
# <details><summary>Answer</summary>
#
# Absolute error is smallest at the *median*: again one point. With equal weights it is 0, between the bumps; with
# 0.7 and 0.3 it lies within the left bump, at $-1+0.3\,\Phi^{-1}(0.5/0.7)=-0.83$, and the right bump is never
# drawn. Another distance moves the point, it does not make it two.
# </details>

# %% [markdown] tags=["DS-06"]
# ## 3. Destroy slowly, return slowly
#
# **Story.** Diffusion chooses a detour. Fade the data into noise in many small steps, a *fixed* process with
# nothing to learn; then learn to undo it (DS-06). At level $k$ of $T=1000$ a point is a mix of data and noise, in
# amounts that the code calls `t.signal` and `t.noise`; $\bar\alpha_k$ falls from 1 to nearly 0:
#
# $$x_k=\sqrt{\bar\alpha_k}\;x_0+\sqrt{1-\bar\alpha_k}\;\epsilon,\qquad\epsilon\sim N(0,1).$$
#
# **Check.** Does it end in the bell, from every start? The distance of its law from $N(0,1)$ in *nats* (the
# Kullback-Leibler divergence, lesson 05; 0 means equal) must only fall. We integrate on a fine line.

# %% tags=["check", "DS-06"]
line = torch.linspace(-6, 6, 2401, dtype=torch.float64)
bell = torch.distributions.Normal(0.0, 1.0).log_prob(line)
distance = []
for k in range(0, 1001, 50):
    log_p = pair.log_prob(line[:, None], schedule.at(k))
    distance.append(torch.trapezoid(log_p.exp() * (log_p - bell), line).item())
shown = "   ".join(f"k = {k}: {distance[k // 50]:.1g}" for k in (0, 250, 500, 1000))
print(f"nats from N(0, 1)   {shown}")
assert all(b < a for a, b in pairwise(distance))
assert distance[-1] < 1e-4

# %% [markdown] tags=["DS-35"]
# **Why is the way back easier?** Stand at a noisy point, $x_{300}=0.2$. Ask two questions: where were you one
# step ago, and where were you at the very beginning? Bayes' rule answers both on a grid.


# %% tags=["formula", "DS-35"]
def looking_back(density, z, x, signal, noise):
    """p(z | x) if x = signal * z + noise * N(0, 1). density (Z,) on the even grid z -> (X, Z)."""
    joint = density * torch.exp(-(((x[:, None] - signal * z) / noise) ** 2) / 2)
    return joint / joint.sum(1, keepdim=True) / (z[1] - z[0])


# %% tags=["DS-35"]
def one_step_and_all(k, z, x):
    """p(x_{k-1} | x_k = x) and p(x_0 | x_k = x) of the two bumps, on the grid z."""
    beta, t = schedule.beta[k - 1], schedule.at(k)
    before, start = (pair.log_prob(z[:, None], schedule.at(j)).exp() for j in (k - 1, 0))
    step = looking_back(before, z, x, (1 - beta).sqrt(), beta.sqrt())
    return step, looking_back(start, z, x, t.signal, t.noise)


# %% tags=["DS-35"]
z, here = torch.linspace(-4, 4, 1601, dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
answers = one_step_and_all(300, z, here)
figure, axes = plots.panels(2, size=(3.4, 2.5))
for ax, answer, when in zip(axes, answers, ("one step ago", "at the beginning"), strict=True):
    plots.densities(z, {"exact": answer[0]}, xlabel=f"where it was {when}", ax=ax)
    ax.axvline((z * answer[0]).sum() * 0.005, color=plots.ROLE["model"]["color"])
    ax.set_xlim(-2, 2)
plots.show(
    figure,
    alt="Left, one narrow bell around 0.2 with an orange line, its mean, at the top. Right, two "
    "bumps at -1 and +1, and the orange line stands in the empty valley between them.",
    caption="A denoiser learns means (orange): a good answer on the left, none on the right.",
)

# %% [markdown] tags=["DS-35"]
# **Check.** Averaged over all points, how much is unknown? One step ago: at most $\beta_k/\alpha_k$, where
# $\beta_k$ is the variance of the noise of that step and $\alpha_k=1-\beta_k$. At the beginning: up to the whole
# variance of the data, 1.09. *Small steps give clues* (DS-35).

# %% tags=["check", "DS-35"]
x, rows = torch.linspace(-4, 4, 401, dtype=torch.float64), []
for k in (100, 300, 600, 1000):
    there = pair.log_prob(x[:, None], schedule.at(k)).exp()
    unknown = []
    for answer in one_step_and_all(k, z, x):
        mean, square = ((z**j * answer).sum(1) * 0.005 for j in (1, 2))
        unknown.append((there * (square - mean**2)).sum().item() * 0.02)
    bound = (schedule.beta[k - 1] / (1 - schedule.beta[k - 1])).item()
    assert unknown[0] < bound < unknown[1] < 1.09
    rows.append([k, f"{unknown[0]:.4f}", f"{bound:.4f}", f"{unknown[1]:.2f}"])
header = ["k", "one step ago", "at most", "at the beginning"]
plots.table(rows, header=header, caption="Mean variance of what is unknown, given x at level k")

# %% [markdown] tags=["DS-01", "DS-07"]
# ## 4. A thousand small maps are one big map
#
# **Story.** Each deterministic step (the sampler `ddim`) is a small map $G_k$. Put together they are one map,
#
# $$G^*=G_1\circ G_2\circ\dots\circ G_T .$$
#
# Which one? In one dimension paths that never cross keep their order, so a map of the bell to the data can only
# be the quantile map of section 1. Is it? Here are 21 walks with the *exact* denoiser of the two bumps.

# %% tags=["play", "DS-07"]
starts = torch.linspace(-2.4, 2.4, 21, dtype=torch.float64)[:, None]
walk = list(ddim(pair, starts, grid(schedule, 1000)))[::10]
level, place = torch.arange(1000, -1, -10), torch.stack([state.x[:, 0] for state in walk])
figure = plots.paths(level, place, role="model", xlabel="level k (1000 noise, 0 data)", ylabel="x")
figure.axes[0].invert_xaxis()
plots.show(
    figure,
    alt="Twenty-one smooth threads from noise on the left, evenly spread, to data on the right, "
    "where they part into two bundles at -1 and +1. None crosses another.",
    caption="A thousand small steps, each almost straight.",
)

# %% tags=["check", "DS-01", "DS-07"]
z = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)
G = quantile_map(z, two_bumps)
gaps = {
    S: (last(ddim(pair, z[:, None], grid(schedule, S)))[:, 0] - G).abs().max() for S in (500, 1000)
}
print("largest distance from G:", {S: round(gap.item(), 4) for S, gap in gaps.items()})
assert gaps[1000] < 1 / 200
assert abs(gaps[500] / gaps[1000] - 2) < 0.1  # half the steps, twice the error: it tends to 0

# %% [markdown] tags=["DS-07"]
# The chain *is* $F^{-1}\circ\Phi$, up to the size of its steps. So "one big $G^*$ or a thousand small ones" makes
# no difference **as a function** (DS-07). As a *learning problem* it makes all the difference: for each small map
# the training pairs belong together, since we made the noisy point from the clean one.
#
# **Play.** The dots are the chain with few steps, the dashed line is $G$. With one step it gives the mean:
# section 2 again!


# %% tags=["play", "DS-33"]
def chain_against(G, z, mixture, schedule):
    """A slider's callback: dots (z, chain of S steps) over the line (z, G)."""
    background = plots.lines({"exact": (z, G)}, xlabel="noise z", ylabel="G(z)")
    background.axes[0].lines[0].set_marker("")
    background.axes[0].set(xlim=(-2.6, 2.6), ylim=(-2, 2))
    stage = plots.Stage(background)

    def frames(steps):
        end = last(ddim(mixture, z[:, None], grid(schedule, steps)))[:, 0]
        words = f"steps {steps}: largest distance from G {(end - G).abs().max():.2f}"
        yield Frame(stage.draw(torch.stack([z, end], 1)), words)

    return frames


# %% tags=["play", "DS-33"]
fine = torch.linspace(-2.5, 2.5, 81, dtype=torch.float64)
chain = Explorer(
    chain_against(quantile_map(fine, two_bumps), fine, pair, schedule),
    {"steps": slider("number of steps", 1, 60, value=5)},
)
chain.show(
    alt="An S-shaped dashed line, the quantile map, and dots: a flat row at 0 for one step, close "
    "to the line for sixty",
    still_over="steps",
    values=[1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60],
)

# %% tags=["check", "DS-33"]
for steps in (1, 60, 5):
    chain["steps"].value = steps
    chain.wait()
    print(chain.readout)
assert chain.readout.startswith("steps 5:")

# %% [markdown] tags=["DS-33"]
# **How many, then?** Now we change the *process*: $T$ steps of equal size, from the same data to the same end
# (DS-33). $W_2$ is the distance over which samples must be carried to become data (root mean square; on a line,
# sorted to sorted). One step must give $\sqrt{1.09}=1.04$: everything sits at the mean.

# %% tags=["check", "DS-33"]
quantiles = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
z, remains = torch.special.ndtri(quantiles), schedule.alpha_bar[-1].item()
G, W2 = quantile_map(z, two_bumps), {}
for T in (1, 5, 10, 20, 50, 200, 1000):
    equal = DDPMSchedule(T, constant(T, 1 - remains ** (1 / T)))
    end = last(ddim(pair, z[:, None], grid(equal, T)))[:, 0]
    W2[T] = (end.sort()[0] - G).square().mean().sqrt().item()

# %% tags=["check", "DS-33"]
print({T: round(w, 3) for T, w in W2.items()})
assert abs(W2[1] - math.sqrt(1.09)) < 1.1 * math.sqrt(remains)  # the guess: signal · variance · x_T
assert sorted(W2.values(), reverse=True) == list(W2.values())

# %% tags=["DS-33"]
plots.show(
    plots.lines({"model": (list(W2), list(W2.values()))}, xlabel="steps T", ylabel="W₂", log=True),
    alt="W2 against the number of steps, both logarithmic: a line that falls from 1 at one step to "
    "0.02 at a thousand",
    caption="The denoiser is exact: all of this error comes from the size of the steps.",
)

# %% [markdown] tags=["L6-01", "L19-49"]
# **Is a thousand needed?** The lectures say "1000 tiny steps" (L19-49), or about 1000 for the random chain (DDPM)
# and 20 to 50 for the deterministic one (DDIM) (L6-01). The 1000 are levels of *training*; a sampler may visit
# few of them. How few depends on your tolerance. Below, the *energy distance* is 0 for equal laws; the last row
# compares data with data, the *floor*.

# %% tags=["check", "L6-01", "L19-49"]
truth, again = (world.sample(2000)[0] for _ in range(2))
noise, energy = torch.randn(2000, 2), {}
for S in (1, 2, 5, 10, 20, 50, 100):
    made = last(ddim(walker, noise, grid(fading, S)))
    energy[S] = metrics.energy_distance(made, truth)

# %% tags=["check", "L6-01", "L19-49"]
rows = [[S, f"{value:.3f}"] for S, value in energy.items()]
rows += [["data again", f"{abs(metrics.energy_distance(truth, again)):.3f}"]]
plots.table(rows, header=["steps", "energy distance"], caption="Two moons, trained denoiser")
assert energy[1] > energy[2] > energy[5] > energy[10] > energy[20]

# %% [markdown] tags=["L6-01"]
# **Deterministic?** `ddim` has a dial $\eta$, the share of fresh noise in each step. *Predict:* same start,
# twice, with $\eta=0$ and $\eta=1$.

# %% tags=["check", "L6-01"]
for eta in (0.0, 1.0):
    first, second = (last(ddim(walker, noise, grid(fading, 20), eta)) for _ in range(2))
    print(f"η = {eta:g}: mean distance of two runs {(first - second).norm(dim=1).mean():.1f}")
    assert torch.equal(first, second) == (eta == 0)

# %% [markdown] tags=["exercise"]
# **Exercise 2.** In the sweep of $T$, double the distance of the bumps from 0 (means $\pm2$, standard deviation
# still 0.3). What is $W_2$ with one step now?
#
# <details><summary>Answer</summary>
#
# One step still gives the mean, 0. So $W_2$ is the standard deviation of the data, $\sqrt{4+0.09}=2.02$.
# </details>

# %% [markdown] tags=["L22-02"]
# ## 5. A digit dissolves, and returns
#
# **Story.** Now handwritten digits, 8 by 8 pixels, values in $[-1,1]$. The library brings a small network trained
# on half of them (lesson 11 shows how). We take ten it has *never seen*, and show three rows: the digits, noised
# to level $k$; the network's guess of the clean ones, asked once; and where 20 small steps lead.

# %%
denoiser = weights.load("digits")  # it learnt on the schedule `fading`
pictures, labels = data.digits("test")
ten = torch.stack([pictures[labels == digit][2] for digit in range(10)])


# %% tags=["play", "L22-02"]
def dissolve(k, seed):
    """A slider's callback. Rows: ten digits at level k, the guess asked once, 20 steps back."""
    eps = torch.randn(ten.shape, generator=torch.Generator().manual_seed(seed))
    noisy = add_noise(ten, eps, fading.at(k))
    first, *_, end = ddim(denoiser, noisy, grid(fading, min(k, 20), start=k / 1000))
    same = round(10 * metrics.recognised(end.x, torch.arange(10)))
    words = f"level {k}: {fading.at(k).alpha_bar:.1%} of the variance is picture; "
    words += f"{same} of 10 come back as the digit they were"
    yield Frame(plots.png(plots.mosaic(torch.cat([noisy, first.x0, end.x]), 10, 6)), words)


# %% tags=["play", "L22-02"]
levels = {
    "k": slider("level k", 10, 1000, value=500, step=10),
    "seed": slider("seed", 0, 20, value=0),
}
digit_slider = Explorer(dissolve, levels, width=560)
digit_slider.show(
    alt="Three rows of ten digits: noisy ones, the network's blurred guesses, and sharp digits "
    "after twenty steps. At low levels the same digits return, at high levels others",
    still_over="k",
)

# %% tags=["check", "L22-02"]
for k in (100, 1000, 500):
    digit_slider["k"].value = k
    digit_slider.wait()
    print(digit_slider.readout)
assert digit_slider.readout.startswith("level 500")

# %% [markdown] tags=["L22-02"]
# Move the slider to the right. The guess (middle row) turns into a grey average of all digits: section 2, in 64
# dimensions. The walk (bottom row) does not; it arrives at *some* digit. At $k=1000$ nothing of the original is
# left, so what returns is new: that is **generation**. Here from pure noise, unasked: what the network expects at
# each moment. Some digits are clearer than others; it is a small network.

# %% tags=["play", "L22-02"]
static = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(3))
walk = list(ddim(denoiser, static, grid(fading, 20)))
stops = (0, 4, 8, 12, 16, 20)
plots.show(
    plots.images(
        torch.cat([walk[i].x0 for i in stops]), 8, rows=[f"step {i}" for i in stops], scale=5
    ),
    alt="Six rows of eight digits from the first step to the last: the same grey blur, soft "
    "shapes, then strokes, more or less like digits",
    caption="Eight digits that nobody wrote: what the network expects, on the way from pure noise.",
)

# %% [markdown] tags=["DS-37"]
# **Coarse to fine (DS-37).** It looks as if large shapes came first and details last. Is it so? A Fourier
# transform splits a picture into coarse and fine waves. For each band: the squared error of the guess, as a share
# of what there is to know. (At level 900 the lead drowns in the error of sampling, so we only claim it below.)


# %% tags=["formula", "DS-37"]
def band_energy(x):
    """Energy of each picture (B, 1, 8, 8) in coarse, middle and fine waves. (B, 3)"""
    wave = torch.fft.fftfreq(8) * 8
    length = (wave[:, None] ** 2 + wave**2).sqrt()
    energy = torch.fft.fft2(x).abs().square()[:, 0]
    bands = [(low <= length) & (length < high) for low, high in pairwise((0, 1.5, 3, 6))]
    return torch.stack([energy[:, band].sum(1) for band in bands], 1)


# %% tags=["check", "DS-37"]
whole = band_energy(pictures - data.digits("train")[0].mean(0)).mean(0)
ks, unknown = (900, 600, 300, 100), []
for k in ks:
    t = fading.at(k)
    guess = denoiser(add_noise(pictures, torch.randn_like(pictures), t), t).x0
    share = band_energy(guess - pictures) / whole
    unknown.append(share.mean(0))
    lead = share[:, 2] - share[:, 0]  # fine waves minus coarse ones, picture by picture
    error = lead.std() / len(lead) ** 0.5
    print(f"k = {k}: coarse waves lead by {lead.mean():.2f} ± {error:.2f}")
    assert k == 900 or lead.mean() > 4 * error  # at 900 too little is known to tell

# %% tags=["DS-37"]
columns = zip(("coarse", "middle", "fine"), torch.stack(unknown, 1), strict=True)
curves = {name: (ks, values) for name, values in columns}

# %% tags=["DS-37"]
figure = plots.lines(curves, xlabel="level k (noise on the left)", ylabel="share still unknown")
figure.axes[0].invert_xaxis()
plots.show(
    figure,
    alt="Three falling curves from near 1 at level 900 to below 0.1 at level 100. Coarse and "
    "middle waves fall first, close together, and fine ones last.",
    caption="899 digits the network has never seen.",
)

# %% [markdown] tags=["L6-02"]
# **But I want a seven (L6-02).** The walk gives *some* digit. Draw until a seven comes: with a share $p$ of
# sevens that takes $1/p$ draws on average, and $k/p$ for $k$ of them, give or take $\sqrt{k(1-p)}/p$. A judge,
# trained on other digits, reads them. We estimate $p$ on one half of the draws and wait on the other.

# %% tags=["check", "L6-02"]
drawn = last(ddim(denoiser, torch.randn(2000, 1, 8, 8), grid(fading, 20))).clamp(-1, 1)
sevens = torch.from_numpy(metrics.judge().predict(drawn.flatten(1).numpy()) == 7)
p, k = sevens[:1000].double().mean().item(), 20
waited = sevens[1000:].nonzero()[k - 1].item() + 1
by_chance = math.sqrt(k * (1 - p)) / p
by_p = k / p * math.sqrt((1 - p) / (1000 * p))  # p itself is only estimated
print(f"share of sevens {p:.2f}; {waited} draws for {k} sevens")
print(f"expected {k / p:.0f} ± {by_chance:.0f}")
assert abs(waited - k / p) < 4 * math.hypot(by_chance, by_p)

# %% [markdown] tags=["L6-03"]
# The remedy is to draw from $p(x\mid y)$ instead of $p(x)$, where $y$ is whatever we want: a class, a text, a
# style, a sketch (L6-03). Twenty draws, and (nearly) twenty sevens. And a case where we know the truth: two
# overlapping classes on the line, $N(-1,1)$ and $N(+1,1)$. All together have standard deviation $\sqrt2$; class 1
# alone has mean 1 and standard deviation 1.

# %% tags=["check", "L6-03"]
asked = guidance.condition(denoiser, torch.full((20,), 7))  # lesson 09
sevens = last(ddim(asked, torch.randn(20, 1, 8, 8), grid(fading, 20)))
print(f"asked for 20 sevens: the judge reads {metrics.recognised(sevens, 7) * 20:.0f}")
assert metrics.recognised(sevens, 7) > 0.5  # unasked, one in ten

# %% tags=["play", "L6-03"]
static = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(3))
asked_walk = list(ddim(guidance.condition(denoiser, torch.arange(10)), static, grid(fading, 20)))
unasked = last(ddim(denoiser, static, grid(fading, 20)))

# %% tags=["play", "L6-03"]
both = torch.cat([unasked, asked_walk[-1].x])
plots.show(
    plots.images(both, 10, rows=["not asked", "asked"], scale=5),
    alt="Two rows of ten digits. Not asked: some digits, several hard to read. Asked: 0 to 9.",
    caption="The same noise, without a wish and with the wishes 0 to 9.",
)

# %% tags=["check", "L6-03"]
classes, n = mixtures.two_classes(), 4000
start, levels = torch.randn(n, 1, dtype=torch.float64), grid(schedule, 200)
everyone = last(ddim(classes, start, levels))
one = last(ddim(guidance.condition(classes, 1), start, levels))

# %% tags=["check", "L6-03"]
print(f"std of everyone {everyone.std():.1f} (1.4), of class 1 {one.std():.1f} (1.0)")
for sample, mean, std in ((everyone, 0, math.sqrt(2)), (one, 1, 1)):
    assert abs(sample.mean() - mean) < 4 * std / n**0.5
    assert abs(sample.std() - std) < 4 * std / (2 * n) ** 0.5 + 1 / 200  # and the step error

# %% tags=["check", "L6-03"]
x = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
whole, *parts = (classes.log_prob(x, schedule.at(0), y).exp() for y in (None, 0, 1))
gap = (whole - sum(parts) / 2).abs().max()
print(f"p(x) against Σ p(y) p(x | y): largest difference {gap:.10f}")
assert gap < 1e-10

# %% [markdown] tags=["exercise"]
# **Exercise 3.** You want one of *each* of the ten digits, by drawing unconditionally from ten equally likely
# classes. How many draws on average?
#
# <details><summary>Answer</summary>
#
# With $j$ classes still missing, the next new one takes $10/j$ draws on average. In sum
# $10\,(1+\tfrac12+\dots+\tfrac1{10})=29.3$.
# </details>
#
# **Exercise 4.** Find with the slider the level from which on fewer than half of the ten digits come back as what
# they were. Why is that no clear edge? (Try other seeds.)
#
# <details><summary>Answer</summary>
#
# Somewhere around $k=700$. There 20 % of the variance is picture, its coarse waves only. Whether they still
# decide between a 3 and an 8 depends on the digit and on the noise.
# </details>

# %% [markdown] tags=["DS-02", "E-33"]
# ## 6. The relatives
#
# **Is it so?** One lecture dates DDIM to 2022, another to 2020; the years of latent diffusion and of the
# diffusion transformer (DiT) vary too (DS-02). A paper has two dates: it became public, and it was published. The
# first can be *computed*: an arXiv number begins with year and month. Predict, then run.


# %% tags=["formula", "DS-02", "E-33"]
def public(number):
    """Year and month in which an arXiv number was given: "2010.02502" -> (2020, 10)."""
    return 2000 + int(number[:2]), int(number[2:4])


# %% tags=["DS-02", "E-33"]
PAPERS = {
    "VAE (Kingma, Welling)": ("1312.6114", "ICLR 2014"),
    "GAN (Goodfellow et al.)": ("1406.2661", "NeurIPS 2014"),
    "normalising flow (Rezende, Mohamed)": ("1505.05770", "ICML 2015"),
    "diffusion (Sohl-Dickstein et al.)": ("1503.03585", "ICML 2015"),
    "autoregressive pixels (van den Oord et al.)": ("1601.06759", "ICML 2016"),
    "DDPM (Ho et al.)": ("2006.11239", "NeurIPS 2020"),
    "DDIM (Song, Meng, Ermon)": ("2010.02502", "ICLR 2021"),
    "latent diffusion (Rombach et al.)": ("2112.10752", "CVPR 2022"),
    "Make-A-Scene (Gafni et al.)": ("2203.13131", "ECCV 2022"),
    "flow matching (Lipman et al.)": ("2210.02747", "ICLR 2023"),
    "diffusion transformer (Peebles, Xie)": ("2212.09748", "ICCV 2023"),
}

# %% tags=["check", "DS-02", "E-33"]
dates = {name: public(number) for name, (number, _) in PAPERS.items()}
rows = [["{}-{:02}".format(*dates[name]), name, venue] for name, (_, venue) in PAPERS.items()]
plots.table(sorted(rows), header=["public", "", "published"], caption="Who, when")
assert dates["DDIM (Song, Meng, Ermon)"] == (2020, 10)
assert dates["latent diffusion (Rombach et al.)"] == (2021, 12)
assert dates["diffusion transformer (Peebles, Xie)"] == (2022, 12)

# %% [markdown] tags=["DS-02", "E-33", "L19-53"]
# **Put right.** DDIM: October 2020, ICLR 2021. Latent diffusion: December 2021, CVPR 2022. DiT: December 2022,
# ICCV 2023 (E-33).
#
# | family | how it makes a sample | trained by | calls | its usual trouble |
# |---|---|---|---|---|
# | VAE | decodes a random code | a bound on the likelihood | 1 | blur |
# | GAN | one map of noise | a judge that is trained too | 1 | unstable; forgets modes |
# | normalising flow | one *invertible* map | the likelihood, exactly | 1 | invertible layers only |
# | autoregressive | pixel after pixel (or token after token) | the likelihood, exactly | one per pixel | long, in a fixed order |
# | diffusion | many small steps from noise | squared error of a guess | 20 to 1000 | many calls |
#
# A closing slide calls the others "a black box that collapsed" and diffusion's pixels clay (L19-53). That is
# rhetoric: *our* one-shot network collapsed because it was trained by squared error on random pairs, and no GAN
# is trained so (L19-49). The clay you may judge in lesson 15, where we edit pictures.

# %% [markdown] tags=["DS-05", "E-35"]
# **Is it so?** A gallery of diffusion models shows pictures by Make-A-Scene (DS-05). From Gafni et al. (2022,
# section 3): the picture is cut into tokens, and a transformer predicts one token after the other. To which row
# of the table does it belong? The two ways look different half-way. Here is the exact autoregressive model of our
# digits: each pixel is drawn from all digits that agree with the pixels so far.


# %% tags=["formula", "DS-05", "E-35"]
def autoregressive(examples, generator):
    """Pixel after pixel from the law of `examples` (N, D); yields the picture, 0 is unknown."""
    agree, picture = examples, torch.zeros(examples.shape[1])
    for i in range(len(picture)):
        picture[i] = agree[torch.randint(len(agree), (), generator=generator), i]
        agree = agree[agree[:, i] == picture[i]]
        yield picture.clone()


# %% tags=["DS-05", "E-35"]
by_pixel = list(
    autoregressive(data.digits("train")[0].flatten(1), torch.Generator().manual_seed(4))
)
by_step = [state.x[3].flatten() for state in asked_walk]  # the digit asked for is 3

# %% tags=["DS-05", "E-35"]
halfway = [by_pixel[i] for i in (7, 15, 23, 31, 39, 47, 55, 63)]
halfway += [by_step[i] for i in (2, 5, 8, 11, 14, 16, 18, 20)]
plots.show(
    plots.images(
        torch.stack(halfway).reshape(-1, 1, 8, 8), 8, rows=["pixel by pixel", "diffusion"], scale=6
    ),
    alt="Two rows of eight pictures. Pixel by pixel, a digit is uncovered from top to bottom, "
    "finished rows above grey. Diffusion: static over the whole picture turns into a digit.",
    caption="Autoregressive: 64 calls, each final. Diffusion: 20 calls, each on all pixels.",
)

# %% tags=["check", "DS-05", "E-35"]
for name, states in (("pixel by pixel", by_pixel), ("diffusion", by_step)):
    changed = [(b != a).sum().item() for a, b in pairwise(states)]
    print(f"{name}: a step changes {min(changed)} to {max(changed)} of 64 pixels")
    assert max(changed) <= 1 if states is by_pixel else min(changed) == 64

# %% [markdown] tags=["DS-05", "E-35"]
# **Put right.** Make-A-Scene is autoregressive (E-35). It does use classifier-free guidance, as in lesson 11:
# guidance is no privilege of diffusion.

# %% [markdown] tags=["DS-38", "E-41"]
# **Is it so?** The lecture compares (DS-38): a VAE has *one* step, a *learned* encoder and a *smaller* code;
# diffusion has many steps, a *fixed* encoder, and noise in the *same space* as the data. By definition, or only
# in the usual versions? First the usual ones.

# %% tags=["check", "DS-38", "E-41"]
vae_encoder = torch.nn.Linear(64, 2 * 16)  # a digit -> means and widths of a code of 16 numbers
learned = sum(p.numel() for p in vae_encoder.parameters() if p.requires_grad)
noised = add_noise(pictures, torch.randn_like(pictures), fading.at(1000))
correlation = torch.corrcoef(torch.stack([pictures.flatten(), noised.flatten()]))[0, 1]
print(f"VAE: 64 -> 16 numbers, {learned} learned; diffusion: 64 -> {noised[0].numel()}, none")
print(f"correlation of digits and their noise {abs(correlation):.2f}")
assert noised.shape == pictures.shape
assert not noised.requires_grad
assert abs(correlation) < 4 / pictures.numel() ** 0.5 + fading.at(1000).signal

# %% [markdown] tags=["DS-38", "E-41"]
# Same *dimension*, then, but of the picture nothing is left: "same space" is too much. And is the encoder fixed
# by necessity? It has a dial, its noise level. Make that a parameter $\gamma$, with
# $\bar\alpha=1/(1+e^{-\gamma})$: does the loss have a slope in $\gamma$ that training could follow? We compare
# autograd with a difference quotient.


# %% tags=["formula", "DS-38", "E-41"]
def loss_at(gamma, x0, eps):
    """Mean squared error of the exact denoiser's guess of x0, at the level gamma."""
    t = NoiseLevel(torch.sigmoid(gamma).sqrt(), torch.sigmoid(-gamma).sqrt())
    return (pair(add_noise(x0, eps, t), t).x0 - x0).square().mean()


# %% tags=["check", "DS-38", "E-41"]
x0, eps = pair.sample(1000)[0], torch.randn(1000, 1, dtype=torch.float64)
gamma = torch.zeros((), dtype=torch.float64, requires_grad=True)
loss_at(gamma, x0, eps).backward()
with torch.no_grad():
    quotient = (loss_at(gamma + 1e-4, x0, eps) - loss_at(gamma - 1e-4, x0, eps)) / 2e-4
print(f"slope in γ: autograd {gamma.grad:.2f}, difference quotient {quotient:.2f}")
assert abs(gamma.grad - quotient) < 1e-6
assert abs(gamma.grad) > 0.01

# %% [markdown] tags=["DS-38", "E-41"]
# **Put right (E-41).** True of the basic versions only. VAEs with several layers of codes take many steps
# (Sønderby et al. 2016), a VAE's code need not be smaller, variational diffusion learns its schedule (Kingma et
# al. 2021), and latent diffusion puts a learned encoder in front (lesson 14). Diffusion *is* such a layered VAE
# with a very simple encoder; lesson 05 makes that precise.

# %% [markdown]
# ## Answers, checked

# %% tags=["solution", "check"]
median = -1 + 0.3 * torch.special.ndtri(torch.tensor(0.5 / 0.7, dtype=torch.float64)).item()
assert round(median, 2) == -0.83  # exercise 1
wide = mixtures.Mixture(2 * pair.means, 0.3)
single = DDPMSchedule(1, torch.tensor([1 - remains]))
one = last(ddim(wide, z[:, None], grid(single, 1)))
assert one.abs().max() < 0.2  # exercise 2: all near the mean
assert round(sum(10 / j for j in range(1, 11)), 1) == 29.3  # exercise 3
print("the first three hold")

# %% [markdown]
# ## What we learned
#
# * A generator is a map from noise to data. In one dimension it is the quantile map; in 30,000 it has to be
#   learned.
# * Squared error on random pairs learns the mean: one point. The pairing is at fault, not the network.
# * Small steps make pairs that belong together, and each leaves almost nothing unknown. Their composition is the
#   big map.
# * How many steps is a question of tolerance: training has 1000 levels, sampling may do with 20.
# * Diffusion is a relative of VAEs; and for any paper ask for both of its dates.
#
# ## References
#
# * Sohl-Dickstein et al. 2015, *Deep unsupervised learning using nonequilibrium thermodynamics*, section 2.
# * Ho et al. 2020, *Denoising diffusion probabilistic models*, section 2 (the process), algorithms 1 and 2.
# * Song, Meng & Ermon 2021, *Denoising diffusion implicit models*, section 4, equation 12.
# * Song et al. 2021, *Score-based generative modeling through SDEs*, section 4.3 (the deterministic map).
# * Kingma et al. 2021, *Variational diffusion models*, section 3.2 (a learned schedule).
# * Gafni et al. 2022, *Make-A-Scene*, section 3 (tokens, one after the other).
# * Sønderby et al. 2016, *Ladder variational autoencoders*; and the papers of the table in section 6.
#
# **Where next:** lesson 02 learns to walk at random: what a path of noise is, and what happens to it as the steps
# shrink.
