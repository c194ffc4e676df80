# %% [markdown] tags=["slide"]
# # 06 · Score and noise
#
# **Why is guessing the noise the same as knowing the score?**
#
# Run the next cells, then move the slider. The lines are contours of a density in the plane: data in
# three bumps, with noise added. Each arrow is the **score** at its place. It points in the direction in
# which the logarithm of the density grows fastest, and its length says how fast. (A score of length
# $|s|$ is drawn with length $|s| / (1 + |s|)$.)

# %% [markdown] tags=["notes"]
# **5 min, for the lecturer.** Run the notebook beforehand. *Ask before you move the slider:* how many hills
# are left at k = 300? Where do the arrows point at k = 1000? *Expect:* "three smaller ones" and "nowhere".
# *In fact* there is one hill at k = 300. At k = 1000 every arrow points to the middle.

# %% tags=["setup", "skip"]
import torch

from didiff import (
    DDPMSchedule,
    Denoiser,
    Prediction,
    add_noise,
    guidance,
    loss,
    mixtures,
    networks,
)
from didiff.notebook import plots, widgets
from didiff.samplers import ddim, initial_noise, last
from didiff.schedules import cosine, grid
from didiff.training import fit, random_steps, weights

torch.manual_seed(0)
torch.set_num_threads(1)  # a second thread does not help small networks
plots.style()
schedule = DDPMSchedule()


# %% tags=["play", "draw", "skip"]
def square(side, reach):
    """side * side points on a grid over [-reach, reach]^2."""
    line = torch.linspace(-reach, reach, side, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def hills(density, side):
    """How many points of the grid are as high as all around them."""
    height = density.reshape(1, side, side)
    highest = torch.nn.functional.max_pool2d(height, 3, 1, padding=1)
    return int((height == highest).sum())


def typical(score, density):
    """Root mean square length of the score under the density."""
    mean = (density * score.square().sum(1)).sum() / density.sum()
    return mean.sqrt()


# %% tags=["play", "draw", "skip"]
def landscapes(world, schedule, places, fine):
    """The slider's callback: each level turns the same arrows."""
    fig, (ax,) = plots.panels(size=(3.9, 3.7))
    plots.field(places, -places, role="exact", ax=ax)
    ax.set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3))
    arrows = ax.collections[0]

    def frames(k):
        t = schedule.at(k)
        score = world.score(places, t)
        density = world.log_prob(fine, t).exp()
        length = score.norm(dim=1, keepdim=True)
        arrows.set_UVC(*(score / (1 + length)).T)
        for old in ax.collections[1:]:
            old.remove()
        plots.contours(lambda x: world.log_prob(x, t).exp(), 3.3, ax=ax)
        words = f"signal {t.signal:.2f}, noise {t.noise:.2f}"
        words += f"; hills: {hills(density, 81)}"
        words += f"; |score| {typical(world.score(fine, t), density):.2f}"
        yield widgets.Frame(plots.png(fig), words)

    return frames


# %% tags=["play", "draw", "fragment"]
explorer = widgets.Explorer(
    landscapes(
        mixtures.three_modes(), schedule, square(13, 3.0), square(81, 4.0)
    ),
    {"k": widgets.slider("step k =", 10, 1000, value=100, step=10)},
    width=400,
)
explorer.show(
    alt="Arrows of the score over the contour lines of a density in the "
    "plane. At little noise they lead to three separate hills; the hills "
    "merge into one, which becomes round and ends in the middle, with all "
    "arrows pointing there.",
    still_over="k",
    values=[10, 50, 100, 150, 200, 250, 300, 400, 500, 700, 1000],
)

# %% [markdown] tags=["slide"]
# **The answer in five lines**
#
# 1. The score is the gradient of the log density. It needs no normalising constant.
# 2. If the clean point is known, the score is −ε / noise, where ε is the noise that was added.
# 3. If it is unknown, the score is the average of −ε / noise over all clean points, weighted with their
#    probability given $x_t$.
# 4. Least squares learns averages. So a network that learns to guess ε learns the score.
# 5. A sampler with the exact score of a training set only copies its pictures.

# %% [markdown] tags=["skip"]
# **You need** the formula `xt = signal * x0 + noise * eps` ([lesson 03](03_forward_process.ipynb)), the
# training loop ([05](05_training_objective.ipynb)), gradients, Bayes' rule, conditional expectation.
#
# **You will be able to** derive the score for known and unknown clean points, explain why a network that
# guesses ε learns it, and measure how well.
#
# **Time:** about an hour with both exercises. Each section runs on its own after the setup cell. Proofs,
# more checks and famous bugs are in [deeper/06](deeper/06_score_and_noise.ipynb).
#
# | formula | code | meaning |
# |---|---|---|
# | $k$, $t$ | `t = schedule.at(k)` | a step from 0 (data) to 1000, and its noise level |
# | signal, noise | `t.signal`, `t.noise` | $\sqrt{\bar\alpha_k}$ and $\sqrt{1-\bar\alpha_k}$ |
# | $x_0,\ \epsilon,\ x_t$ | `x0`, `eps`, `xt` | clean point, standard normal numbers, noisy point |
# | $p(x_0)$ | `world` | data whose density is known; `world.sample(n)[0]` draws n fresh points |
# | $p_t$, $s$ | `world.log_prob(x, t).exp()`, `world.score(x, t)` | density of noisy points and its score, exact |
# | $\mathbb E[x_0 \mid x_t],\ \mathbb E[\epsilon \mid x_t]$ | `world(xt, t).x0`, `.eps` | exact averages, as a pair `Prediction(x0, eps)` |
# | $\frac1d\lVert a\rVert^2$ | `a.square().mean(1)` | a loss is a *mean* of squares over the $d$ numbers of a sample |

# %% [markdown] tags=["formula", "slide"]
# ## 1. The slope of a landscape
#
# **What is a score, and why do we want it instead of the density?**
#
# $$s(x, t) \;=\; \nabla_x \log p_t(x)$$
#
# A density must integrate to one. Many models give it only up to a factor, the
# [normalising constant](https://en.wikipedia.org/wiki/Normalizing_constant). To find it, one must
# integrate over all pictures, and nobody can. The score does not contain it:
# $\log(7p) = \log 7 + \log p$, and the constant $\log 7$ has gradient zero. Where the density is known,
# automatic differentiation finds the score.

# %% [markdown] tags=["notes"]
# **5 min, for the lecturer,** with the answer in five lines. *Ask before the picture:* the data have two
# bumps; at which places is the score zero? *Expect:* "on the two tops". *In fact* also at the bottom of the
# valley. Leave out the code.

# %% tags=["draw", "fragment"]
line = torch.linspace(-2.5, 2.5, 200, dtype=torch.float64)[:, None]
log_p = mixtures.bimodal().log_prob(line, schedule.at(100))
fig = plots.densities(
    line,
    {"exact, log p": log_p, "log 7p": log_p + torch.tensor(7.0).log()},
    ylabel="log density",
)
plots.show(
    fig,
    alt="Two curves with two hills each, the upper one a copy of the "
    "lower, moved up by the same amount everywhere.",
    caption="The density times 7: its logarithm is larger by log 7 "
    "everywhere, and its slope is the same.",
)


# %% tags=["check", "L6-35", "DS-25", "skip"]
def autograd_score(log_prob, x):
    """grad_x log p at each point of x (B, d); log_prob: (B, d) -> (B,)."""
    x = x.detach().requires_grad_()
    total = log_prob(x).sum()  # each point occurs in one term only
    return torch.autograd.grad(total, x)[0]


world, t = mixtures.three_modes(), schedule.at(100)


def log_7p(x):
    return (7 * world.log_prob(x, t).exp()).log()


x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
h = torch.tensor([[1e-5, 0.0]], dtype=torch.float64)
slope = autograd_score(log_7p, x)[0, 0].item()
rise = (world.log_prob(x + h, t) - world.log_prob(x - h, t)).item()
print(f"gradient of log 7p along x1: {slope:.6f}")
print(f"log p, difference quotient:  {rise / 2e-5:.6f}")
assert abs(slope - rise / 2e-5) < 1e-6

# %% [markdown]
# **Remember:** the score is the gradient of the log density, and it needs no normalising constant.

# %% [markdown] tags=["formula", "slide"]
# ## 2. The score when the clean point is known
#
# **Nobody can write down the density of all noisy photographs. What about the noisy versions of one?**
#
# They are Gaussian (lesson 03), with mean signal · $x_0$ and standard deviation "noise". The difference
# from the mean is $x_t - \text{signal}\cdot x_0 = \text{noise}\cdot\epsilon$. So
#
# $$\log p(x_t \mid x_0) = -\frac{\lVert x_t - \text{signal}\cdot x_0\rVert^2}{2\,\text{noise}^2} + \text{const},
# \qquad
# \nabla\log p(x_t \mid x_0) = -\frac{x_t - \text{signal}\cdot x_0}{\text{noise}^2} = -\frac{\epsilon}{\text{noise}} .$$

# %% [markdown] tags=["notes"]
# **7 min, for the lecturer,** derivation on the board. *Ask:* the noise goes to zero; does the score become
# small or large? *Expect:* "small". *In fact* its length is about √d / noise, so it grows without bound.
# Leave out the code.

# %% tags=["draw", "fragment"]
t = schedule.at(150)
x0 = torch.tensor([1.5, 1.0]).expand(30, 2)
xt = add_noise(x0, torch.randn(30, 2), t).float().requires_grad_()
law = torch.distributions.Normal(t.signal * x0, t.noise)
law.log_prob(xt).sum().backward()  # the score, by autograd
start = xt.detach()
end = start + t.noise**2 * xt.grad
grey, blue = (plots.ROLE[role]["color"] for role in ("noise", "data"))
fig, (ax,) = plots.panels(size=(4.8, 3.4))
ax.plot(*torch.stack([start, end]).unbind(2), "k-", lw=0.5, alpha=0.5)
look = {"angles": "xy", "scale_units": "xy", "scale": 2, "width": 0.006}
ax.quiver(*start.T, *(end - start).T, zorder=3, **look)
ax.plot(*start.T, "o", color=grey, label="noisy, xt")
ax.plot(1.5, 1.0, "o", ms=7, color=blue, label="clean, x0")
ax.plot(*(t.signal * x0[0]), "kx", ms=9, mew=2, label="signal · x0")
ax.set(xlabel="x₁", ylabel="x₂", aspect="equal")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plots.show(
    fig,
    alt="Thirty grey noisy points around a centre. From each a thin line "
    "leads to the same cross, a little nearer to the origin than the blue "
    "clean point; black arrows cover the first half of each line.",
    caption="Thirty noisy versions of one point at k = 150. Thin lines: "
    "noise² times the score, by autograd; arrows: half of it.",
)


# %% tags=["check", "L6-42", "L6-45", "skip"]
def conditional_score(xt, x0, t):
    """grad log p(xt | x0) = -(xt - signal * x0) / noise^2."""
    return -(xt - t.signal * x0) / t.noise**2


t = schedule.at(100)
x0, eps = torch.randn(2, 1000, 3, dtype=torch.float64)
xt = add_noise(x0, eps, t).requires_grad_()
law = torch.distributions.Normal(t.signal * x0, t.noise)
law.log_prob(xt).sum().backward()
print(f"gradient of the log density: {xt.grad[0, 0]:.6f}")
print(f"-eps / noise:                {-eps[0, 0] / t.noise:.6f}")
assert (xt.grad + eps / t.noise).abs().max() < 1e-9
assert (xt.grad - conditional_score(xt, x0, t)).abs().max() < 1e-9

# %% [markdown] tags=["exercise"]
# **Remember:** if the clean point is known, the score is −ε / noise. It points from $x_t$ to
# signal · $x_0$.
#
# **Exercise 1** (easy). A colour image has $32 \times 32$ pixels. At $k = 10$ noise is 0.0435. How long
# is the score of $x_t$ given $x_0$, and how far is it from $x_t$ to signal · $x_0$?
#
# <details><summary>Answer</summary>
# The image has d = 3 · 32 · 32 = 3072 numbers, and d standard normal numbers have length about √d. So the
# score has length about √3072 / 0.0435, or 1270. The distance is about noise · √d, or 2.4.
# </details>

# %% [markdown] tags=["formula", "slide"]
# ## 3. The score when the clean point is unknown
#
# **A sampler starts from noise and knows no $x_0$. What is the score then?**
#
# It is that of the *marginal* density $p_t(x) = \int p(x \mid x_0)\, p(x_0)\, dx_0$. We use the
# chain rule, $\nabla p = p\,\nabla\log p$, and Bayes' rule:
#
# $$\nabla\log p_t(x)
# = \frac{\int \nabla p(x \mid x_0)\, p(x_0)\, dx_0}{p_t(x)}
# = \int \underbrace{\frac{p(x \mid x_0)\, p(x_0)}{p_t(x)}}_{p(x_0 \mid x)}
# \,\nabla\log p(x \mid x_0)\, dx_0 .$$
#
# This is an average: $\;\nabla\log p_t(x) = \mathbb E\big[\nabla\log p(x_t \mid x_0) \,\big|\, x_t = x\big]$.
# Every clean point pulls towards signal · $x_0$, with the weight $p(x_0 \mid x)$.

# %% [markdown] tags=["notes"]
# **10 min, for the lecturer.** *Ask before the slider:* the data are two bumps, at −1 and +1. What is the
# score at 0? *Expect:* "large, there are no data". *In fact* it is zero: both sides pull equally hard. At
# k = 100 the curve rises through 0: points left of 0 go left, points right of it go right. Leave out the
# code that follows.

# %% [markdown] tags=["formula", "subslide"]
# The derivation holds for any hidden variable in place of $x_0$. Take a mixture of Gaussians in one
# dimension, and let $j$ be the component that $x_0$ came from, with mean $m_j$ and standard deviation
# $\sigma_j$. Given $j$, $x_t$ is Gaussian with variance $V_j = (\text{signal}\cdot \sigma_j)^2 +
# \text{noise}^2$. So the average is a short sum,
#
# $$s(x, t) = \sum_j p(j \mid x)\; \frac{\text{signal}\cdot m_j - x}{V_j} .$$
#
# **Move the slider.** The data are two bumps, at ±1 with $\sigma_j = 0.3$. The blue lines are the scores if
# the bump is known, times $V$, and the dashed curve is the marginal score times $V$. As an average it lies
# between the lines, in the shaded band. From which step on has it only one zero?


# %% tags=["play", "draw", "skip"]
def pulls(world, schedule, x):
    """The slider's callback: V times the score at places x (n,)."""
    fig, (ax,) = plots.panels(size=(4.4, 3.3))
    blue = plots.ROLE["data"]["color"]
    names = "bump at +1", "bump at −1", "unknown (exact)"

    def frames(k):
        t = schedule.at(k)
        variance = (0.3 * t.signal) ** 2 + t.noise**2
        pull = variance * world.score(x[:, None], t)[:, 0]
        right, left = t.signal - x, -t.signal - x
        ax.clear()
        ax.fill_between(x, left, right, color=blue, alpha=0.1)
        ax.plot(x, right, color=blue, ls="-", label=names[0])
        ax.plot(x, left, color=blue, ls=":", lw=2.2, label=names[1])
        ax.plot(x, pull, "k--", lw=2.4, label=names[2])
        ax.set(xlabel="noisy point x", ylabel="V · score")
        ax.set(ylim=(-3.2, 3.2))
        ax.legend(loc="upper right", fontsize=11)
        zeros = int((pull.sign().diff() != 0).sum())
        words = f"signal {t.signal:.2f}, noise {t.noise:.2f}"
        words += f"; places where the score is zero: {zeros}"
        yield widgets.Frame(plots.png(fig), words)

    return frames


# %% tags=["play", "draw", "subslide"]
explorer = widgets.Explorer(
    pulls(
        mixtures.bimodal(),
        schedule,
        torch.linspace(-2, 2, 200, dtype=torch.float64),
    ),
    {"k": widgets.slider("step k =", 10, 1000, value=100, step=10)},
    width=430,
)
explorer.show(
    alt="Two parallel falling lines with the band between them shaded, and "
    "the dashed curve of the marginal score. At k = 100 it follows one "
    "line at the left, the other at the right, and rises through zero "
    "between them. With more noise it becomes a single falling line.",
    still_over="k",
    values=[10, 30, 60, 100, 150, 200, 250, 260, 300, 500, 1000],
)


# %% tags=["twin:didiff.mixtures.Mixture.score", "skip"]
def score(mixture, x, t):
    """grad_x log p_t(x) of a mixture in one dimension, x (B, 1)."""
    mean = t.signal * mixture.means.T  # (1, J)
    variance = (t.signal * mixture.std) ** 2 + t.noise**2
    log_p = -((x - mean) ** 2) / (2 * variance) - variance.log() / 2
    share = (mixture.log_weights + log_p).softmax(1)  # p(j | x), (B, J)
    return (share * (mean - x) / variance).sum(1, keepdim=True)


# %% tags=["check", "L6-46", "L6-47", "skip"]
world, t = mixtures.bimodal(), schedule.at(100)
x = torch.tensor([[0.5]], dtype=torch.float64)
x0 = torch.linspace(-4, 4, 4001, dtype=torch.float64)
away = x - t.signal * x0
log_prior = world.log_prob(x0[:, None], schedule.at(0))
posterior = (log_prior - away**2 / (2 * t.noise**2)).softmax(1)
average = (posterior * -away / t.noise**2).sum()
print(f"by the formula, at x = 0.5:    {score(world, x, t).item():.6f}")
print(f"as an average over 4,001 x0:   {average:.6f}")
assert (score(world, x, t) - average).abs() < 1e-8
assert (score(world, x, t) - world.score(x, t)).abs() < 1e-8
assert (world(x, t).x0 - (posterior * x0).sum()).abs() < 1e-8

# %% [markdown] tags=["formula", "subslide"]
# Given $x_0$ the score is $(\text{signal}\cdot x_0 - x_t) / \text{noise}^2$. So its average is
# $(\text{signal}\cdot\mathbb E[x_0 \mid x_t] - x_t) / \text{noise}^2$, or
#
# $$\text{signal}\cdot\mathbb E[x_0 \mid x_t] = x_t + \text{noise}^2\, s(x_t, t), \qquad
# \mathbb E[\epsilon \mid x_t] = -\text{noise}\cdot s(x_t, t) .$$
#
# These two averages are the **best denoiser**: no function of $x_t$ guesses $x_0$ or ε with a smaller mean
# squared error.
#
# **Remember:** the score is the average of the scores for known $x_0$, weighted with $p(x_0 \mid x_t)$.

# %% [markdown] tags=["exercise", "skip"]
# **Exercise 2** (medium). The slider says: from k = 260 on the two bumps have only one hill. Find the exact
# step: a condition on the level, then $k$ with `schedule.alpha_bar`.
#
# <details><summary>Answer</summary>
# At distance r from its centre the second derivative of a Gaussian is its height times (r²/V − 1)/V. At
# x = 0 both have r = signal, so there is no valley if signal² ≤ V. This says ᾱ ≤ 1 / 1.91, and
# <code>int((schedule.alpha_bar > 1 / 1.91).sum())</code> gives k = 251.
# </details>

# %% [markdown] tags=["formula", "slide"]
# ## 4. Why a network that guesses noise learns the score
#
# **We cannot show a network the score, because we do not know it. What can we show it?**
#
# The score for known $x_0$, −ε / noise. For any model $s_\theta$ and any fixed level,
#
# $$\underbrace{\tfrac1d\,\mathbb E\lVert \nabla\log p(x_t \mid x_0) - s_\theta(x_t)\rVert^2}_{\text{we can estimate this}}
# = \underbrace{\tfrac1d\,\mathbb E\lVert \nabla\log p_t(x_t) - s_\theta(x_t)\rVert^2}_{\text{we want this}}
# + C_t .$$
#
# *Why?* Split the difference into (target − true score) + (true score − model). Given $x_t$, the second part
# is fixed, and the first has mean zero (section 3). So the mixed term of the square vanishes, and $C_t$, the
# mean square of the first part, does not depend on the model.
#
# Both sides have the same gradient and the same minimiser. This is **denoising score matching**
# ([Vincent 2011](https://doi.org/10.1162/NECO_a_00142)). In terms of noise, the minimiser is
# $\epsilon^*(x_t) = \mathbb E[\epsilon \mid x_t]$ (section 3).

# %% [markdown] tags=["notes"]
# **8 min, for the lecturer.** *Ask before the picture:* what should the network answer at xt = 0, and how
# wrong is it there? *Expect:* "zero" and "not at all". *In fact* zero is the best answer, and it is wrong by
# about 1.7 on average: the true ε lies around +1.7 or −1.7. Leave out the check.


# %% tags=["check", "L6-51", "skip"]
def near(place, xt, values, width=0.05):
    """The values of all pairs whose noisy point is near a place."""
    return values[(xt - place).abs() < width]


world, t = mixtures.bimodal(), schedule.at(100)
x0 = world.sample(200_000)[0]
eps = torch.randn_like(x0)
xt = add_noise(x0, eps, t)
found = near(0.5, xt, eps)
exact = near(0.5, xt, -t.noise * world.score(xt, t)).mean()
error = found.std() / len(found) ** 0.5
print(f"mean eps near xt = 0.5: {found.mean():.3f} +- {error:.3f}")
print(f"-noise * exact score:   {exact:.3f}")
assert (found.mean() - exact).abs() < 4 * error

# %% tags=["draw", "subslide"]
places = torch.linspace(-1.8, 1.8, 25, dtype=torch.float64)
means = [near(place, xt, eps).mean() for place in places]
line = torch.linspace(-2.2, 2.2, 200, dtype=torch.float64)[:, None]
curve = {"−noise · exact score": -t.noise * world.score(line, t)}
fig = plots.densities(
    line, curve, xlabel="noisy point xt", ylabel="noise ε"
)
grey, blue = (plots.ROLE[role]["color"] for role in ("noise", "data"))
ax = fig.axes[0]
ax.lines[0].set(color="black", linestyle="--", zorder=3)
ax.plot(xt[:2000], eps[:2000], ".", color=grey, ms=2, label="2,000 pairs")
ax.plot(places, means, "o", color=blue, label="averages of 200,000 pairs")
ax.set(ylim=(-3.8, 5.2))
ax.legend(fontsize=8, loc="upper left")
plots.show(
    fig,
    alt="Noise against noisy point: a cloud of grey points in two rising "
    "bands around -0.95 and +0.95. A dashed curve rises through both bands "
    "and falls steeply between them; the blue averages lie on it.",
    caption="Grey: what a network is shown, at k = 100. Blue: averages of "
    "ε over narrow ranges of xt. Dashed: the exact score, times −noise.",
)

# %% [markdown]
# **Remember:** least squares learns the average, and the average of ε given $x_t$ is the score times −noise.

# %% [markdown] tags=["formula", "slide"]
# ## 5. Train a network and compare it with the truth
#
# **Is 0.2 a good loss?**
#
# Write the model as $s_\theta = -\epsilon_\theta / \text{noise}$. Times noise², its loss is that of lesson
# 05: guess which ε was added. Averaged over levels, the equation of section 4 becomes
#
# $$\underbrace{\tfrac1d\,\mathbb E\lVert \epsilon - \epsilon_\theta\rVert^2}_{\text{loss}}
# = \underbrace{\tfrac1d\,\mathbb E\lVert \epsilon - \epsilon^*\rVert^2}_{\text{floor: the average of noise}^2\, C_t}
# + \underbrace{\tfrac1d\,\mathbb E\lVert \epsilon^* - \epsilon_\theta\rVert^2}_{\text{mean squared difference from } \epsilon^*} .$$
#
# Even the best guess $\epsilon^*$ does not reach zero. Where $\epsilon^*$ is known, all three can be measured.

# %% [markdown] tags=["notes"]
# **6 min, for the lecturer.** Training takes 5 to 10 s. *Ask before the numbers:* the loss
# no longer falls below 0.2. Is training stuck? *Expect:* "yes". *In fact* only the floor can tell. Show the
# numbers and the picture; of the code, only `train`.


# %% tags=["subslide"]
def batches(world, n, schedule):
    """Fresh clean points (n, d), each with a random level, endlessly."""
    while True:
        yield world.sample(n)[0].float(), random_steps(schedule, n)


def train(world, schedule, steps=120):
    """A network that guesses noise; the learning rate falls in stages."""
    net = networks.MLP(world.means.shape[1:], width=64, depth=2)
    denoiser = Denoiser(net, target="eps")
    supply = batches(world, 512, schedule)
    for lr in (1e-2, 5e-3, 2e-3, 7e-4, 2e-4):
        for _ in fit(denoiser, loss, supply, steps, lr):
            pass  # one step of training
    return denoiser


world = mixtures.three_modes()
network = train(world, schedule)


# %% tags=["skip"]
@torch.no_grad()
def compare(denoiser, world, schedule, n=100_000):
    """Loss, floor and difference on the same fresh points, (n,) each."""
    x0, t = next(batches(world, n, schedule))
    eps = torch.randn_like(x0)
    xt = add_noise(x0, eps, t)
    guess, best = denoiser(xt, t).eps, world(xt, t).eps
    parts = eps - guess, eps - best, best - guess
    return [part.square().mean(1) for part in parts]


# %% tags=["check", "L6-51", "L6-52", "E-12", "T-26", "subslide"]
measured, floor, difference = compare(network, world, schedule)
excess = measured - floor
print(f"loss {measured.mean():.3f}, floor {floor.mean():.3f}")
print(f"loss minus floor:                  {excess.mean():.4f}")
print(f"mean squared difference from best: {difference.mean():.4f}")
error = (excess - difference).std() / len(excess) ** 0.5
assert (excess - difference).mean().abs() < 4 * error
assert difference.mean() < 0.02 * floor.mean()

# %% tags=["draw", "subslide"]
levels, t = grid(schedule, 100), schedule.at(100)
line = torch.linspace(-2.7, 2.7, 13)
places = torch.cartesian_prod(line, line)
seed = torch.Generator().manual_seed(5)
start = initial_noise((12, 2), levels[0], seed).float()
green = plots.OTHERS[0]["color"]
fig, axes = plots.panels(2, size=(3.7, 3.6))
for ax, role in zip(axes, ("exact", "model"), strict=True):
    denoiser = world if role == "exact" else network
    walk = [state.x.detach() for state in ddim(denoiser, start, levels)]
    arrows = -denoiser(places, t).eps.detach()
    plots.field(places, arrows, role=role, ax=ax)
    plots.contours(
        lambda x: world.log_prob(x, levels[-1]).exp(), 2.9, ax=ax
    )
    ax.plot(*torch.stack(walk).unbind(2), color=green, ls="-")
    ax.plot(*start.unbind(1), "o", color=green)
    ax.set(xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), title=role)
plots.show(
    fig,
    alt="Left the exact arrows, right those of the network: hard to tell "
    "apart. Twelve paths run from the same starts in both, and end alike.",
    caption="Arrows: noise times the score at k = 100 alone. Rings: data. "
    "Green: walks with DDIM, from noise (dots) through all levels.",
)

# %% [markdown]
# The network saw noisy points and their ε, never a score. It learned $\epsilon^*$, on average over levels;
# at which levels it is worse, the average does not say. Near the data a small error of ε is a large error of
# −ε / noise ([deeper/06](deeper/06_score_and_noise.ipynb) measures it). For real data the floor is unknown;
# one compares networks with each other, on held-out data.
#
# **Remember:** a loss alone does not say how good a network is. Loss minus floor is the mean squared
# difference from $\epsilon^*$.

# %% [markdown] tags=["formula", "slide"]
# ## 6. What the exact score of a training set draws
#
# **What if a network reached the minimum of its loss on a training set?**
#
# Section 5 drew fresh points without end, so its minimum was the score of the population. A training set is
# finite: $N$ pictures $x^{(i)}$, a mixture of $N$ components of width zero. Section 3 gives its best denoiser,
#
# $$x_0^* = \sum_i w_i\, x^{(i)}, \qquad
# w_i \propto \exp\Big(\!-\frac{\lVert x_t - \text{signal}\cdot x^{(i)}\rVert^2}{2\,\text{noise}^2}\Big),
# \qquad \epsilon^* = \frac{x_t - \text{signal}\cdot x_0^*}{\text{noise}} .$$
#
# Our training set is 60 digits. A network that ships with the course drew them, and 60 others (12 steps,
# guidance scale ω = 2, as in lesson 11).

# %% [markdown] tags=["notes"]
# **6 min, for the lecturer.** Drawing takes 3 s. *Ask before the code:* what does the
# ideal denoiser answer at k = 1000? *Expect:* "one of the digits". *In fact* the mean of all 60: their
# weights are nearly equal. Show `ideal_denoiser`, the numbers and the picture.


# %% tags=["subslide"]
def ideal_denoiser(pictures):
    """The best denoiser of a training set (N, 1, 28, 28)."""
    flat = pictures.flatten(1)

    def guess(xt, t):
        far = torch.cdist(xt.flatten(1), t.signal * flat) ** 2
        weight = (-far / (2 * t.noise**2)).softmax(1)
        x0 = (weight @ flat).reshape(xt.shape)
        return Prediction(x0, (xt - t.signal * x0) / t.noise)

    return guess


# %% tags=["skip"]
def draw(denoiser, n, levels, seed):
    """n pictures of 28 x 28 by DDIM, from noise of this seed."""
    source = torch.Generator().manual_seed(seed)
    noise = initial_noise((n, 1, 28, 28), levels[0], source)
    with torch.no_grad():
        return last(ddim(denoiser, noise, levels)).clamp(-1, 1)


shipped = weights.load("mnist_guided")
told = guidance.learned(shipped, torch.arange(120) % 10, omega=2.0)
made = draw(told, 120, grid(DDPMSchedule(1000, cosine), 12), seed=0)
training, unseen = made.split(60)


# %% tags=["check", "L6-47", "L6-52", "E-10", "subslide"]
def nearest(x, pictures):
    """Distance of each x to the nearest picture, and which one it is."""
    x, pictures = (each.flatten(1).double() for each in (x, pictures))
    return torch.cdist(x, pictures).min(1)


copies = draw(ideal_denoiser(training), 200, grid(schedule, 50), seed=1)
distance, which = nearest(copies, training)
others = nearest(unseen, training)[0]
print("distance to the nearest training picture")
print(f"200 pictures of the ideal denoiser, largest: {distance.max():.2f}")
print(f"60 other digits of the network, smallest:    {others.min():.2f}")
print(f"60 other digits of the network, median:      {others.median():.2f}")
assert distance.max() < 0.01
assert distance.max() < 0.01 * others.min()

# %% tags=["draw", "fragment"]
pairs = torch.cat([copies[:10], training[which[:10]]])
plots.show(
    plots.images(pairs, 10, rows=("drawn", "nearest"), scale=2),
    alt="Two rows of ten handwritten digits; each drawn digit in the upper "
    "row is identical to the training digit below it.",
    caption="Ten pictures drawn by the ideal denoiser, and the training "
    "pictures nearest to them.",
)

# %% [markdown]
# *Why copies?* As the noise goes to zero, one weight goes to 1, and $x_0^*$ becomes that one picture.
#
# We want the best denoiser of the *population*. Nobody can compute it, because $p(x_0)$ is unknown. Networks
# that draw new pictures have not reached the minimum on their training set. In experiments this depends on
# architecture, training and the amount of data: with few pictures networks copy
# ([Kadkhodaie et al. 2024](https://arxiv.org/abs/2310.02557)).
#
# **Remember:** a sampler with the exact score of a training set copies it.

# %% [markdown] tags=["slide"]
# ## Summary
#
# $$s(x_t, t) \;=\; \nabla\log p_t(x_t) \;=\; \mathbb E\big[-\epsilon / \text{noise} \,\big|\, x_t\big]
# \;=\; -\epsilon^*(x_t) / \text{noise}$$
#
# - The score is an average, and least squares learns averages. So guessing ε is learning the score.
# - Loss minus floor is the mean squared difference from $\epsilon^*$.
# - A sampler with the exact score of a training set copies it.

# %% [markdown] tags=["notes"]
# **3 min, for the lecturer.** Read the summary and ask question 1 or 4. The others are homework.

# %% [markdown] tags=["skip"]
# ## Five questions
#
# 1. In one dimension $\log p(x) = -x^4 + c$, with $c$ unknown. What is the score at $x = 1$?
#    <details><summary>Answer</summary>It is −4x³ = −4. The constant c is not needed.</details>
# 2. In one dimension signal is 0.8 and noise 0.6. A point $x_0 = 1$ became $x_t = 2$. What was ε, and
#    what is the score given $x_0$?
#    <details><summary>Answer</summary>ε = (2 − 0.8) / 0.6 = 2. The score is −2 / 0.6 = −3.3.</details>
# 3. At the same level the data are −1 or +1. Given $x_t = 0.5$, $x_0$ is +1 with probability 0.9. What is
#    the best guess of $x_0$, and what is the score?
#    <details><summary>Answer</summary>The best guess is 0.9 − 0.1 = 0.8. The score is
#    (0.8 · 0.8 − 0.5) / 0.36 = 0.39.</details>
# 4. A network has loss 0.23, and the floor is 0.21. What do you know, and what not?
#    <details><summary>Answer</summary>The mean squared difference from ε* is 0.02, on average over levels. At
#    which levels, you do not know.</details>
# 5. A training set is a single picture. What does its best denoiser answer, and what does DDIM draw with it?
#    <details><summary>Answer</summary>Its only weight is 1, so it always answers with this picture, and DDIM
#    draws it from any noise.</details>
#
# **Where next.** [Lesson 07](07_samplers.ipynb) walks along the score, from noise to data. Read also
# [Song & Ermon 2019](https://arxiv.org/abs/1907.05600).
