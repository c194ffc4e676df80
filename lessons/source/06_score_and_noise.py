# %% [markdown] tags=["slide"]
# # 06 · Score and noise
#
# **Why is guessing the noise the same as knowing the score?**
#
# Run the next cells, then move the slider. The lines are contours of a density in the plane: data in
# three bumps, with noise added. Each arrow is the **score** at its place. It points in the direction in
# which the logarithm of the density grows fastest, and its length says how fast. (A score of length
# $|s|$ is drawn with length $|s| / (1 + |s|)$.)

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
torch.set_num_threads(1)  # for small networks a second one only waits
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
    {"k": widgets.slider("noise level k =", 10, 1000, value=100, step=10)},
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

# %% [markdown] tags=["notes"]
# **6 min.** *Ask before you move it:* how many hills are left at k = 300? Where do the arrows point at
# k = 1000? *Expect:* "three smaller ones" and "nowhere". *In fact* there is one hill at k = 300. At
# k = 1000 the density is almost a standard normal, and every arrow points to the middle.

# %% [markdown] tags=["slide"]
# **The answer in five lines**
#
# 1. The score is the gradient of the log density. The normalising constant drops out of it.
# 2. If the clean point is known, the score is −ε / noise, where ε is the noise that was added.
# 3. If it is unknown, the score is the average of −ε / noise over all clean points that fit.
# 4. Least squares learns averages. So a network that learns to guess ε learns the score.
# 5. The exact score of a training set only copies its pictures. A useful network must stay away from it.

# %% [markdown] tags=["skip"]
# **You need** the formula `xt = signal * x0 + noise * eps` ([lesson 03](03_forward_process.ipynb)), the
# training loop ([05](05_training_objective.ipynb)), gradients, Bayes' rule, conditional expectation.
#
# **You will be able to** derive the score for known and for unknown clean points, explain why a network
# that guesses noise learns it, and measure how far a network is from the truth.
#
# **Time:** 45 minutes. Each section runs on its own after the setup cell. Proofs, more checks and famous
# bugs are in [deeper/06](deeper/06_score_and_noise.ipynb). Cells that begin with minutes are notes for a
# lecture.
#
# | formula | code | meaning |
# |---|---|---|
# | $k$, $t$ | `t = schedule.at(k)` | a step from 0 (data) to 1000, and its noise level |
# | signal, noise | `t.signal`, `t.noise` | $\sqrt{\bar\alpha_k}$ and $\sqrt{1-\bar\alpha_k}$ |
# | $x_0,\ \epsilon,\ x_t$ | `x0`, `eps`, `xt` | clean point, standard normal noise, noisy point |
# | $p_t$, $s$ | `world.log_prob(x, t).exp()`, `world.score(x, t)` | density of noisy points and its score, exact |
# | $\frac1d\lVert u\rVert^2$ | `u.square().mean(1)` | a loss is a *mean* of squares over the $d$ numbers of a sample |

# %% [markdown] tags=["formula", "slide"]
# ## 1. The slope of a landscape
#
# **What is a score, and why do we want it instead of the density?**
#
# $$s(x, t) \;=\; \nabla_x \log p_t(x)$$
#
# A density must integrate to one. The
# [normalising constant](https://en.wikipedia.org/wiki/Normalizing_constant) that ensures it is an
# integral that nobody can compute for pictures. The score does not contain it:
# $\log(7p) = \log 7 + \log p$, and the constant $\log 7$ has gradient zero. Where the density can be
# written down, automatic differentiation finds the score.

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
    caption="The density times 7: higher everywhere, and nowhere steeper.",
)


# %% tags=["subslide"]
def autograd_score(log_prob, x):
    """grad_x log p at each point of x (B, d); log_prob: (B, d) -> (B,)."""
    x = x.detach().requires_grad_()
    total = log_prob(x).sum()  # each point occurs in one term only
    return torch.autograd.grad(total, x)[0]


# %% tags=["check", "L6-35", "DS-25"]
world, t = mixtures.three_modes(), schedule.at(100)
x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
h = torch.tensor([[1e-5, 0.0]], dtype=torch.float64)


def log_7p(x):
    return (7 * world.log_prob(x, t).exp()).log()


slope = autograd_score(log_7p, x)[0, 0].item()
rise = (world.log_prob(x + h, t) - world.log_prob(x - h, t)).item()
print(f"gradient of log 7p along x1: {slope:.6f}")
print(f"log p, difference quotient:  {rise / 2e-5:.6f}")
assert abs(slope - rise / 2e-5) < 1e-6

# %% [markdown]
# **Remember:** the score is the gradient of the log density, and it needs no normalising constant.

# %% [markdown] tags=["notes"]
# **8 min,** with the answer above. *Ask:* a density integrates to 7 by mistake. Is its score wrong?
# *Expect:* "yes, seven times too large". *In fact* it is right: the logarithm makes the factor a constant.

# %% [markdown] tags=["formula", "slide"]
# ## 2. The score when the clean point is known
#
# **Nobody can write down the density of all noisy photographs. What about the noisy versions of one?**
#
# They are Gaussian (lesson 03), with mean signal · $x_0$ and standard deviation "noise". The difference
# from the mean is $u = x_t - \text{signal}\cdot x_0 = \text{noise}\cdot\epsilon$. So
#
# $$\log p(x_t \mid x_0) = -\frac{\lVert u\rVert^2}{2\,\text{noise}^2} + \text{const},
# \qquad
# \nabla\log p(x_t \mid x_0) = -\frac{u}{\text{noise}^2} = -\frac{\epsilon}{\text{noise}} .$$

# %% tags=["draw", "fragment"]
t = schedule.at(150)
x0 = torch.tensor([1.5, 1.0]).expand(40, 2)
eps = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
xt = add_noise(x0, eps, t)
way = t.noise**2 * (-eps / t.noise)
grey, blue = (plots.ROLE[role]["color"] for role in ("noise", "data"))
fig, (ax,) = plots.panels(size=(4.8, 3.4))
look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004}
ax.quiver(xt[:, 0], xt[:, 1], way[:, 0], way[:, 1], **look)
ax.plot(xt[:, 0], xt[:, 1], "o", color=grey, label="noisy, xt")
ax.plot(1.5, 1.0, "o", color=blue, label="clean, x0")
ax.plot(0, 0, "k+", label="origin")
ax.set(xlabel="x₁", ylabel="x₂", aspect="equal")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plots.show(
    fig,
    alt="Forty grey noisy points around a centre. A black arrow leads from "
    "each to exactly the same place, a little closer to the origin than "
    "the blue clean point.",
    caption="Forty noisy versions of one point at k = 150. Each arrow is "
    "noise² times the score. All end at signal · x0.",
)


# %% tags=["subslide"]
def conditional_score(xt, x0, t):
    """grad log p(xt | x0) = -(xt - signal * x0) / noise^2."""
    return -(xt - t.signal * x0) / t.noise**2


# %% tags=["check", "L6-42", "L6-45"]
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
# **Remember:** if the clean point is known, the score is −ε / noise. To go up, move against the noise.
#
# **Exercise 1** (easy). A colour image has $32 \times 32$ pixels. At $k = 10$ noise is 0.0435. How long
# is the score of $x_t$ given $x_0$, and how far is it from $x_t$ to signal · $x_0$?
#
# <details><summary>Answer</summary>
# The image has d = 3 · 32 · 32 = 3072 numbers, and d standard normal numbers have length about √d. So the
# score has length √3072 / 0.0435 = 1270. The distance is noise · √d = 2.4: a steep slope, a short way.
# </details>

# %% [markdown] tags=["notes"]
# **8 min,** derivation on the board. *Ask:* the noise goes to zero; does the score become small or large?
# *Expect:* "small". *In fact* its length is about √d / noise, so it grows without bound. The way back,
# noise² times the score, becomes short.

# %% [markdown] tags=["formula", "slide"]
# ## 3. The score when the clean point is unknown
#
# **A sampler starts from noise and has no $x_0$ to return to. Which way is up for it?**
#
# It needs the score of the *marginal* density $p_t(x) = \int p(x \mid x_0)\, p(x_0)\, dx_0$. We use the
# chain rule, $\nabla p = p\,\nabla\log p$, and Bayes' rule:
#
# $$\nabla\log p_t(x)
# = \frac{\int \nabla p(x \mid x_0)\, p(x_0)\, dx_0}{p_t(x)}
# = \int \underbrace{\frac{p(x \mid x_0)\, p(x_0)}{p_t(x)}}_{p(x_0 \mid x)}
# \,\nabla\log p(x \mid x_0)\, dx_0 .$$
#
# This is an average: $\;\nabla\log p_t(x) = \mathbb E\big[\nabla\log p(x_t \mid x_0) \,\big|\, x_t = x\big]$.
# Every clean point pulls towards itself, with the weight $p(x_0 \mid x)$.
#
# **Move the slider.** The data are two bumps, at −1 and +1. The blue lines are the scores for these two
# $x_0$, times noise². The dashed curve is the marginal score. Left of 0 it follows the pull to −1, right
# of 0 the pull to +1, and at 0 the two cancel. From which step on has it only one zero?


# %% tags=["play", "draw", "skip"]
def ways_back(world, schedule, x):
    """The slider's callback: noise² times the score at places x (n,)."""
    fig, (ax,) = plots.panels(size=(5.2, 3.4))
    blue = plots.ROLE["data"]["color"]

    def frames(k):
        t = schedule.at(k)
        way = t.noise**2 * world.score(x[:, None], t)[:, 0]
        right, left = t.signal - x, -t.signal - x
        ax.clear()
        ax.fill_between(x, left, right, color=blue, alpha=0.1)
        ax.plot(x, right, color=blue, ls="-", label="if x0 = +1")
        ax.plot(x, left, color=blue, ls=":", label="if x0 = −1")
        ax.plot(x, way, "k--", lw=2.2, label="x0 unknown (exact)")
        ax.set(xlabel="noisy point x", ylabel="noise² · score")
        ax.set(ylim=(-3.2, 3.2))
        ax.legend(loc="upper right")
        zeros = int((way.sign().diff() != 0).sum())
        words = f"signal {t.signal:.2f}, noise {t.noise:.2f}"
        words += f"; places where the score is zero: {zeros}"
        yield widgets.Frame(plots.png(fig), words)

    return frames


# %% tags=["play", "draw", "subslide"]
explorer = widgets.Explorer(
    ways_back(
        mixtures.bimodal(),
        schedule,
        torch.linspace(-2, 2, 200, dtype=torch.float64),
    ),
    {"k": widgets.slider("noise level k =", 10, 1000, value=100, step=10)},
    width=500,
)
explorer.show(
    alt="Two parallel falling lines with the band between them shaded, and "
    "the dashed curve of the marginal score. At k = 100 it follows one "
    "line at the left, the other at the right, and rises through zero "
    "between them. With more noise it becomes a single falling line.",
    still_over="k",
    values=[10, 50, 100, 150, 200, 240, 250, 260, 300, 500, 1000],
)

# %% [markdown] tags=["formula", "subslide"]
# For a mixture of Gaussians on the line the average is a short sum. Given component $j$ with mean $m_j$
# and standard deviation $s_j$, $x_t$ is Gaussian with variance $V_j = (\text{signal}\cdot s_j)^2 +
# \text{noise}^2$. With the probability $p(j \mid x)$ of each component,
#
# $$s(x, t) = \sum_j p(j \mid x)\; \frac{\text{signal}\cdot m_j - x}{V_j} .$$
#
# We check it against the integral itself, as a sum over 4,001 values of $x_0$.


# %% tags=["twin:didiff.mixtures.Mixture.score"]
def score(mixture, x, t):
    """grad_x log p_t(x) of a mixture on the line, x (B, 1)."""
    mean = t.signal * mixture.means.T  # (1, J)
    variance = (t.signal * mixture.std) ** 2 + t.noise**2
    log_p = -((x - mean) ** 2) / (2 * variance) - variance.log() / 2
    share = (mixture.log_weights + log_p).softmax(1)  # p(j | x), (B, J)
    return (share * (mean - x) / variance).sum(1, keepdim=True)


# %% tags=["check", "L6-46", "L6-47"]
world, t = mixtures.bimodal(), schedule.at(100)
x = torch.tensor([[0.5]], dtype=torch.float64)
x0 = torch.linspace(-4, 4, 4001, dtype=torch.float64)
u = x - t.signal * x0
log_prior = world.log_prob(x0[:, None], schedule.at(0))
posterior = (log_prior - u**2 / (2 * t.noise**2)).softmax(1)
average = (posterior * -u / t.noise**2).sum()
print(f"by the formula, at x = 0.5:    {score(world, x, t).item():.6f}")
print(f"as an average over 4,001 x0:   {average:.6f}")
assert (score(world, x, t) - average).abs() < 1e-8

# %% [markdown] tags=["exercise"]
# **Remember:** the score of a noisy point is the average of the scores for known $x_0$, over all $x_0$
# that may lie under it.
#
# **Exercise 2** (medium). The slider says: from k = 260 on the two bumps (standard deviation 0.3) have only
# one hill. Find the exact step: a condition on the level, then $k$ with `schedule.alpha_bar`.
#
# <details><summary>Answer</summary>
# Both Gaussians have variance V = (0.3 signal)² + noise². At distance u from its centre the second
# derivative of a Gaussian is its height times (u²/V − 1)/V. At x = 0 both have u² = signal², so there is no
# valley if signal² ≤ V. This says ᾱ ≤ 1 / 1.91, and
# <code>int((schedule.alpha_bar > 1 / 1.91).sum())</code> gives k = 251.
# </details>

# %% [markdown] tags=["notes"]
# **9 min.** *Ask before the picture:* the data lie at −1 and +1. What is the score at 0? *Expect:* "large,
# there are no data". *In fact* it is zero: both sides pull equally hard. Just beside 0 one side wins.

# %% [markdown] tags=["formula", "slide"]
# ## 4. Why a network that guesses noise learns the score
#
# **We cannot show a network the score, because we do not know it. What can we show it?**
#
# We show it the score for known $x_0$, −ε / noise. In a single example this target is wrong. On average it
# is right, and least squares learns averages. For any model $s_\theta$,
#
# $$\underbrace{\tfrac1d\,\mathbb E\lVert \nabla\log p(x_t \mid x_0) - s_\theta(x_t)\rVert^2}_{\text{we can compute this}}
# = \underbrace{\tfrac1d\,\mathbb E\lVert \nabla\log p_t(x_t) - s_\theta(x_t)\rVert^2}_{\text{we want this}}
# + C_t ,$$
#
# and $C_t$ does not depend on the model. Both losses have the same gradient and the same minimum. This is
# **denoising score matching** ([Vincent 2011](https://doi.org/10.1162/NECO_a_00142)). In terms of noise:
# the best guess is $\epsilon^*(x_t) = \mathbb E[\epsilon \mid x_t] = -\text{noise}\cdot\nabla\log p_t(x_t)$.
#
# *Why?* The target minus the true score has mean zero for every $x_t$ (section 3). So the mixed term of
# the square vanishes.


# %% tags=["check", "L6-51", "subslide"]
def average_near(place, xt, eps, width=0.05):
    """The mean noise of all pairs whose noisy point is near a place."""
    return eps[(xt - place).abs() < width].mean()


world, t = mixtures.bimodal(), schedule.at(100)
x0 = world.sample(200_000)[0]
eps = torch.randn_like(x0)
xt = add_noise(x0, eps, t)
exact = -t.noise * world.score(xt, t)
mean, wanted = (average_near(0.5, xt, each) for each in (eps, exact))
print(f"mean noise near xt = 0.5: {mean:.2f} +- 0.01")
print(f"-noise * exact score:     {wanted:.2f}")
assert (mean - wanted).abs() < 0.05  # 5 standard errors

# %% tags=["draw", "fragment"]
places = torch.linspace(-1.8, 1.8, 25, dtype=torch.float64)
means = [average_near(place, xt, eps) for place in places]
line = torch.linspace(-2.2, 2.2, 200, dtype=torch.float64)[:, None]
curve = {"−noise · exact score": -t.noise * world.score(line, t)}
fig = plots.densities(
    line, curve, xlabel="noisy point xt", ylabel="noise ε"
)
grey, blue = (plots.ROLE[role]["color"] for role in ("noise", "data"))
ax = fig.axes[0]
ax.lines[0].set(color="black", linestyle="--", zorder=3)
ax.plot(xt[:2000], eps[:2000], ".", color=grey, ms=2, label="2,000 pairs")
ax.plot(places, means, "o", color=blue, label="their averages")
ax.legend(fontsize=7, loc="upper left")
plots.show(
    fig,
    alt="Noise against noisy point: a cloud of grey points in two rising "
    "bands around -0.95 and +0.95. A dashed curve rises through both bands "
    "and falls steeply between them; the blue averages lie on it.",
    caption="Grey: what a network is shown, at k = 100. Blue: what least "
    "squares makes of it. Dashed: the exact score, rescaled.",
)

# %% [markdown]
# **Remember:** least squares answers with the average, and the average noise is the score times −noise.

# %% [markdown] tags=["notes"]
# **8 min.** *Ask:* what should the network answer at xt = 0, and how wrong is it there? *Expect:* "zero"
# and "not at all". *In fact* zero is the best answer, and always wrong: the true noise is near +1.7 or
# near −1.7. So the loss has a floor.

# %% [markdown] tags=["formula", "slide"]
# ## 5. Train a network and compare it with the truth
#
# **Is 0.2 a good loss?**
#
# Write the model of the score as $s_\theta = -\epsilon_\theta / \text{noise}$. Up to the factor
# $1/\text{noise}^2$ its loss is the one of lesson 05: guess which noise was added. Even the best guess
# $\epsilon^*$ has errors, because many $x_0$ fit the same $x_t$. So the loss splits:
#
# $$\underbrace{\tfrac1d\,\mathbb E\lVert \epsilon - \epsilon_\theta\rVert^2}_{\text{loss}}
# = \underbrace{\tfrac1d\,\mathbb E\lVert \epsilon - \epsilon^*\rVert^2}_{\text{floor}}
# + \underbrace{\tfrac1d\,\mathbb E\lVert \epsilon^* - \epsilon_\theta\rVert^2}_{\text{distance from the truth}} .$$
#
# In a world whose $\epsilon^*$ is known, all three can be measured.


# %% tags=["subslide"]
def batches(world, n, schedule):
    """Fresh clean points (n, d), each with a random level, for ever."""
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


# %%
@torch.no_grad()
def compare(denoiser, world, schedule, n=100_000):
    """Loss, floor and distance on the same fresh points, (n,) each."""
    x0, t = next(batches(world, n, schedule))
    eps = torch.randn_like(x0)
    xt = add_noise(x0, eps, t)
    guess, exact = denoiser(xt, t).eps, world(xt, t).eps
    parts = eps - guess, eps - exact, exact - guess
    return [part.square().mean(1) for part in parts]


# %% tags=["check", "L6-51", "L6-52", "E-12", "T-26"]
measured, floor, distance = compare(network, world, schedule)
excess = measured - floor
print(f"loss {measured.mean():.3f}, floor {floor.mean():.3f}")
print(f"loss minus floor:        {excess.mean():.4f}")
print(f"distance from the truth: {distance.mean():.4f}")
error = (excess - distance).std() / len(excess) ** 0.5
assert (excess - distance).mean().abs() < 4 * error
assert distance.mean() < 0.02 * floor.mean()

# %% tags=["draw", "subslide"]
levels, t = grid(schedule, 100), schedule.at(100)
line = torch.linspace(-2.7, 2.7, 13)
places = torch.cartesian_prod(line, line)
seed = torch.Generator().manual_seed(5)
start = initial_noise((12, 2), levels[0], seed).float()
orange = plots.ROLE["highlight"]["color"]
fig, axes = plots.panels(2, size=(3.7, 3.6))
for ax, role in zip(axes, ("exact", "model"), strict=True):
    denoiser = world if role == "exact" else network
    walk = [state.x.detach() for state in ddim(denoiser, start, levels)]
    arrows = -denoiser(places, t).eps.detach()
    plots.field(places, arrows, role=role, ax=ax)
    plots.contours(
        lambda x: world.log_prob(x, levels[-1]).exp(), 2.9, ax=ax
    )
    ax.plot(*torch.stack(walk).unbind(2), color=orange, ls="-")
    ax.plot(*start.unbind(1), "o", color=orange)
    ax.set(xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), title=role)
plots.show(
    fig,
    alt="Left the exact arrows, right those of the network: hard to tell "
    "apart. Twelve paths run from the same starts in both, and end alike.",
    caption="Arrows: noise times the score at k = 100. Rings: the data. "
    "Dots: twelve starts from noise. Lines: their walks with DDIM.",
)

# %% [markdown] tags=["fragment"]
# The network saw pairs of noise and noisy points, and it learned the score.
#
# *Two warnings,* with numbers in [deeper/06](deeper/06_score_and_noise.ipynb). The score is −ε / noise, so near the data a small error of the noise is a large error
# of the score. And DDPM drops the factor $1/\text{noise}^2$, which falls from 10,000 at the first step to 1
# at the last. Weights in the loss matter only if the network must compromise between levels. A network
# that is exact at every level minimises every weighted sum.
#
# **Remember:** a loss means nothing by itself. Its excess over the floor is the distance from the truth.

# %% [markdown] tags=["notes"]
# **6 min.** *Ask:* the loss stands still at 0.2. Is training stuck? *Expect:* "yes". *In fact* only the
# floor can tell. Here it is 0.2 as well, and the network is within 2 % of it.

# %% [markdown] tags=["formula", "slide"]
# ## 6. The exact score of a training set copies it
#
# **What if a network reached the minimum of its loss on the training set?**
#
# A training set of $N$ pictures $x^{(i)}$ is a mixture of $N$ components of width zero. By section 3 the
# best guess of $x_0$ is a weighted mean of the pictures, and the best guess of the noise follows:
#
# $$x_0^* = \sum_i w_i\, x^{(i)}, \qquad
# w_i \propto \exp\Big(\!-\frac{\lVert x_t - \text{signal}\cdot x^{(i)}\rVert^2}{2\,\text{noise}^2}\Big),
# \qquad \epsilon^* = \frac{x_t - \text{signal}\cdot x_0^*}{\text{noise}} .$$
#
# The training set here is 60 digits. A model that ships with the course draws them, and 60 unseen ones.


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


# %%
def draw(denoiser, n, levels, seed):
    """n pictures of 28 x 28 by DDIM, from noise of this seed."""
    source = torch.Generator().manual_seed(seed)
    noise = initial_noise((n, 1, 28, 28), levels[0], source)
    with torch.no_grad():
        return last(ddim(denoiser, noise, levels)).clamp(-1, 1)


def nearest(x, pictures):
    """Distance of each x to the nearest picture, and which one it is."""
    x, pictures = (each.flatten(1).double() for each in (x, pictures))
    return torch.cdist(x, pictures).min(1)


# %% tags=["check", "L6-47", "L6-52", "E-10"]
shipped = weights.load("mnist_guided")  # of lesson 11: told the digit
told = guidance.learned(shipped, torch.arange(120) % 10, omega=2.0)
made = draw(told, 120, grid(DDPMSchedule(1000, cosine), 12), seed=0)
training, unseen = made.split(60)
copies = draw(ideal_denoiser(training), 200, grid(schedule, 50), seed=1)
distance, which = nearest(copies, training)
print("distance to the nearest training picture")
print(f"200 pictures of the ideal denoiser, largest: {distance.max():.2f}")
new = nearest(unseen, training)[0].median()
print(f"60 unseen pictures, median:                  {new:.2f}")
assert distance.max() < 0.01
assert new > 1

# %% tags=["draw"]
pairs = torch.cat([copies[:10], training[which[:10]]])
plots.show(
    plots.images(pairs, 10, rows=("drawn", "nearest"), scale=2),
    alt="Two rows of ten handwritten digits; each drawn digit in the upper "
    "row is identical to the training digit below it.",
    caption="Ten pictures drawn by the ideal denoiser, and the training "
    "pictures nearest to them.",
)

# %% [markdown] tags=["exercise"]
# The best denoiser of the training set has a formula, and it copies training pictures. We want the best
# denoiser of the *population*. It has no formula. A network draws new pictures because its architecture
# and its training keep it away from the minimum of its own loss. Why this suits pictures so well is an
# open question ([Kadkhodaie et al. 2024](https://arxiv.org/abs/2310.02557)).
#
# **Remember:** the exact score of a training set copies it. We want the score of the population.
#
# **Exercise 3** (hard). Smear the training set: `mixtures.Mixture(training, 0.8)`. Draw from it as above.
# Are these new digits?
#
# <details><summary>Answer</summary>
# No. They are 15 away from the training set, further than unseen digits. But each is a training digit
# plus Gaussian noise. Distance alone does not prove novelty. A good model smooths along the few
# directions in which digits vary, such as slant and width.
# </details>

# %% [markdown] tags=["notes"]
# **5 min.** *Ask before the picture:* the best possible denoiser of 60 pictures draws 200. How many are
# new? *Expect:* "about 140". *In fact* none.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - The score $\nabla_x \log p_t(x)$ needs no normalising constant.
# - For known $x_0$ it is −ε / noise. For unknown $x_0$ it is the average of this over $p(x_0 \mid x_t)$.
# - Least squares finds averages. So the best guess of the noise gives the score, $s = -\epsilon^* / \text{noise}$.
# - The excess of a loss over its floor is the distance from $\epsilon^*$.
# - The exact score of a training set copies it.
#
# ## Five questions
#
# 1. A density is known up to a constant factor. Can you compute its score?
#    <details><summary>Answer</summary>Yes. The logarithm turns the factor into a constant, and that has
#    gradient zero.</details>
# 2. On the line signal is 0.8 and noise 0.6. A point $x_0 = 1$ became $x_t = 2$. What was the noise, and
#    what is the score given $x_0$?
#    <details><summary>Answer</summary>ε = (2 − 0.8) / 0.6 = 2. The score is −2 / 0.6 = −3.3.</details>
# 3. How is the score of a noisy point related to the scores given $x_0$?
#    <details><summary>Answer</summary>It is their average, weighted with p(x0 | xt).</details>
# 4. A network has loss 0.23, and the floor is 0.21. What do you know?
#    <details><summary>Answer</summary>Its guess is 0.02 away from the best one, as a mean square over all
#    levels. You do not know at which levels it is wrong.</details>
# 5. A network reaches the minimum of its loss on the training set. What does it draw?
#    <details><summary>Answer</summary>Copies of training pictures.</details>
#
# ## References and where next
#
# - Hyvärinen 2005, [score matching](https://jmlr.org/papers/v6/hyvarinen05a.html)
# - Vincent 2011, [denoising score matching](https://doi.org/10.1162/NECO_a_00142)
# - Song & Ermon 2019, [generation by scores](https://arxiv.org/abs/1907.05600)
# - Ho et al. 2020, [DDPM](https://arxiv.org/abs/2006.11239), section 3.2
# - Karras et al. 2022, [design space](https://arxiv.org/abs/2206.00364), appendix B.3
# - Kadkhodaie et al. 2024, [generalisation](https://arxiv.org/abs/2310.02557)
#
# **Where next.** [Lesson 07](07_samplers.ipynb) walks along the score, from noise to data.
