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
# **Time** an hour of reading and playing; about 15 seconds of computing on two CPU cores.
#
# **The codes.** The course follows a series of lectures and tests what they say. (L6-44) names a slide, E-33 a slip
# on a slide, which a number puts right, and T-16 a mistake that students make.
#
# **The black box.** Today we *use* the library `didiff`; every piece of it is written out in a later lesson.
# Three words are enough for now. A *schedule* is a list of levels, from data to pure noise. A *denoiser* looks at a noisy
# point, is told its level, and guesses the clean point it was made from. A *sampler* (`ddim`) moves the point a
# little towards that guess, and asks again. So
#
# `last(ddim(denoiser, noise, grid(schedule, 20)))`
#
# reads: begin at `noise`, walk down the schedule in 20 steps, ask the denoiser at each, and return where it ends.

# %% tags=["setup"]
import math
from itertools import pairwise

import torch

from didiff import data, guidance, mixtures, networks, training
from didiff.denoiser import Denoiser
from didiff.notebook import museum, plots
from didiff.notebook.museum import Check
from didiff.notebook.widgets import Explorer, Frame, slider
from didiff.process import NoiseLevel, add_noise, from_x0
from didiff.samplers import ddim, last
from didiff.schedules import DDPMSchedule, constant, cosine, grid
from didiff.training import metrics, weights

torch.manual_seed(0)
torch.set_num_threads(1)  # our tensors are small: a second thread costs more than it gives
plots.style()

# %% [markdown] tags=["L22-01", "L22-02"]
# ## The map of the course
#
# The story in one breath (L22-02): *add noise to data, step by step, until nothing is left; teach a network to
# guess the noise in what it sees; then start from noise and walk back.* (To guess the noise or the clean point is
# the same: who knows one can work out the other.) Each line of the map is a skill, and a checklist to come back to.
# The six that the lecture announces (L22-01) have a star.
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
# function $G$ that turns such numbers into data (DS-01). Suppose the data are single numbers: half of them in a
# bump around $-1$, half around $+1$, each of standard deviation 0.3. Which $G$ makes them?
#
# **Formula.** Let $\Phi(z)$ be the share of the bell below $z$, and $F(x)$ the share of the data below $x$. Send the
# number that is larger than 30 % of the noise to the one that is larger than 30 % of the data, and so for every
# share:
#
# $$G(z)=F^{-1}(\Phi(z)).$$
#
# It works because then $G(z)\le x$ exactly if $\Phi(z)\le F(x)$, and $\Phi(z)$ lies below any share $p$ with
# probability $p$.
#
# **Code.** $F$ rises, so we find $F^{-1}$ by halving the interval $[-4,4]$ again and again.

# %%
Phi = torch.special.ndtr  # the share of the bell curve below z


def two_bumps(x):
    """F(x), the share of the data below x."""
    return (Phi((x + 1) / 0.3) + Phi((x - 1) / 0.3)) / 2


# %% tags=["formula", "DS-01"]
def quantile_map(z, F):
    """G(z) = F^-1(Phi(z)), for data within [-4, 4]. z (n,) -> (n,)."""
    low, high = torch.full_like(z, -4.0), torch.full_like(z, 4.0)
    for _ in range(60):
        middle = (low + high) / 2
        too_far = F(middle) > Phi(z)
        low, high = torch.where(too_far, low, middle), torch.where(too_far, middle, high)
    return low


# %% tags=["DS-01"]
n = 20_000
made = quantile_map(torch.randn(n, dtype=torch.float64), two_bumps)
x = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
(density,) = torch.gradient(two_bumps(x), spacing=(x,))  # the slope of F

# %% tags=["DS-01"]
figure = plots.densities(x, {"exact density": density}, samples={"model G": made})
figure.axes[0].set(ylim=(0, 0.85))  # room for the legend
figure.axes[0].legend(loc="upper center", ncols=2)
plots.show(
    figure,
    alt="A histogram with two bumps, at -1 and +1, that fills the dashed exact density",
    caption="20,000 bell-shaped random numbers, sent through G.",
)

# %% [markdown]
# **Check.** The share of samples in $[0.7,1.3]$, one standard deviation around $+1$, must be half of 68.3 %. A share
# $p$ of $n$ draws has standard deviation $\sqrt{p(1-p)/n}$. We allow four of them, which luck exceeds once in 16,000
# times; so do all checks of the course that depend on chance.

# %% tags=["check", "DS-01"]
share = ((made > 0.7) & (made < 1.3)).double().mean().item()
expected = math.erf(1 / math.sqrt(2)) / 2
allowed = 4 * math.sqrt(expected * (1 - expected) / n)
print(f"share in [0.7, 1.3]: {share:.3f}   expected {expected:.3f} ± {allowed:.3f}")
assert abs(share - expected) < allowed

# %% [markdown] tags=["DS-32"]
# So in one dimension the problem is solved in one step. Why a whole course, then? Because a picture of
# $100\times100$ pixels in three colours is a list of 30,000 numbers (DS-32). "Below" means nothing for such lists,
# so there is no $F$ to invert. Nor can one make a table of them all. Suppose each number could only be dark or
# bright: how many digits has the number of pictures?

# %% tags=["check", "DS-32"]
numbers = torch.zeros(3, 100, 100).numel()
print(f"{numbers} numbers; dark or bright alone makes 10^{numbers * math.log10(2):.0f} pictures")
assert numbers == 30_000

# %% [markdown] tags=["DS-34", "L19-49"]
# ## 2. The obvious attempt
#
# **Story.** So $G$ must be *learned* from examples. We have noise $z$ and examples $x_0$. Draw one of each, show $z$
# to a function $g$, and punish the squared distance of $g(z)$ from $x_0$. *Predict before you read on:* draw $g$ for
# the two bumps, over $z$ from $-2$ to 2.

# %% [markdown] tags=["DS-34", "L19-49"]
# **Formula.** Fix a $z$. Of all numbers $c$, which has the least squared distance from the $x_0$ that come with it?
# $\mathbb E\,(c-x_0)^2$ is the variance of $x_0$ plus the square of $c-\mathbb E\,x_0$: the mean is best. So
#
# $$\arg\min_g\;\mathbb E\,(g(z)-x_0)^2=\mathbb E[x_0\mid z].$$
#
# **Code.** We need no network to see it: cut the noise into 16 bins and average the $x_0$ in each. That is the
# best that any learner can do, up to the width of a bin. We do it for two ways to pair noise with data.


# %% tags=["formula", "DS-34"]
def bin_means(z, x, bins=16):
    """Means of z and of x in bins of equally many z: the best guess of x from z. (bins,) each."""
    order = z.argsort()
    return tuple(v[order].reshape(bins, -1).mean(1) for v in (z, x))


# %% tags=["DS-34"]
n = 16_000
pair = mixtures.bimodal()  # the library's two bumps: it draws examples, and knows more (section 3)
z, (points, _) = torch.randn(n, dtype=torch.float64), pair.sample(n)
x0 = points[:, 0]  # from (n, 1) to (n,)
pairings = {"drawn at random": (z, x0), "smallest with smallest": (z.sort()[0], x0.sort()[0])}

# %% tags=["DS-34"]
figure, axes = plots.panels(2, size=(3.4, 2.8))
for ax, (name, (a, b)) in zip(axes, pairings.items(), strict=True):
    best = torch.stack(bin_means(a, b), 1)
    plots.scatter({"data": torch.stack([a, b], 1)[::80], "model, best guess": best}, ax=ax)
    ax.set(title=name, xlabel="noise z", ylabel="x₀", aspect="auto", xlim=(-3, 3), ylim=(-2.2, 2.2))
line = torch.linspace(-3, 3, 201, dtype=torch.float64)
axes[1].plot(line, quantile_map(line, two_bumps), "k--", lw=0.8, label="G")
axes[1].legend()
axes[0].get_legend().remove()
plots.show(
    figure,
    alt="Two panels of points over the noise z. At random: two bands at +1 and -1, the best guess "
    "is a flat line at 0 between them. Sorted: points and best guess lie on the S-shaped G.",
    caption="The same noise and the same data, paired in two ways (one pair in 80 is drawn).",
)

# %% [markdown]
# **Check.** In a bin are $n/16$ draws. At random, the guesses must be 0 but for chance. Sorted, they must keep
# nearly all of the variance of the data, $0.3^2$ within a bump and 1 between the bumps.

# %% tags=["check", "DS-34"]
variance = 0.3**2 + 1
flat, risen = (bin_means(*both)[1] for both in pairings.values())
allowed, kept = 4 * (variance / (n / 16)) ** 0.5, risen.var(correction=0)
print(f"at random: the best guesses lie within {flat.abs().max():.2f} of 0, allowed {allowed:.2f}")
print(f"sorted: their variance is {kept:.2f}, that of the data {variance:.2f}")
assert flat.abs().max() < allowed
assert kept > 0.9 * variance

# %% [markdown] tags=["DS-34"]
# Random pairs tell nothing about each other, so $\mathbb E[x_0\mid z]=\mathbb E[x_0]$: **one point, the mean**,
# and between the bumps where there are hardly any data. The squared error is not to blame: with sorted pairs the
# same average finds $G$. *One-step maps are learnable if the pairing is right*; in one dimension we can sort, in
# 30,000 we cannot. (Lesson 16 lets a diffusion model make the pairs. A GAN, in section 6, needs none: it judges
# the outputs, not pairs.)

# %% [markdown] tags=["L19-49", "DS-36"]
# **Now a network.** The data are two half moons in the plane, the network has some 13,000 weights, and we train it
# twice with the same squared error. First in one shot: it sees pure noise. Then as a denoiser: it sees the very
# example, *faded* by a random amount (section 3 says how), and is told how much.


# %% tags=["DS-34"]
def moons():
    """Two half circles, centred and scaled to standard deviation 1, and blurred."""
    turn = torch.linspace(0, math.pi, 50, dtype=torch.float64)
    upper = torch.stack([turn.cos(), turn.sin()], 1)
    points = torch.cat([upper, torch.tensor([1.0, 0.2]) - upper])
    return mixtures.Mixture((points - points.mean(0)) / points.std(0), std=0.1)


# %% tags=["DS-34", "L19-49"]
def one_shot_loss(net, x0):
    """|net(z) - x0|² per coordinate, with z drawn independently of x0. x0 (B, 2) -> (B,)."""
    z = torch.randn_like(x0)
    guess = net(z, torch.ones(len(x0)))  # 1: all is noise
    return (guess - x0).square().mean(1)


# %% tags=["DS-34", "L19-49", "DS-36"]
def denoising_loss(denoiser, x0, schedule):
    """|guess of x0 - x0|² per coordinate, seen at random levels. x0 (B, 2) -> (B,)."""
    t = training.random_steps(schedule, len(x0))  # one of the 1000 levels for each point
    guess = denoiser(add_noise(x0, torch.randn_like(x0), t), t).x0
    return (guess - x0).square().mean(1)


# %% tags=["DS-34", "L19-49", "DS-36"]
def train(model, loss_of, world, steps):
    """Minimises the mean of loss_of(model, x0) over fresh examples x0 of the world."""
    supply = ((world.sample(512)[0].float(),) for _ in range(steps))
    *_, end = training.fit(model, loss_of, supply, steps, lr=0.01, ema=0.99)
    return end.ema  # the average of the latest models, steadier than the very last (lesson 06)


# %% tags=["DS-34", "L19-49", "DS-36"]
world, fading = moons(), DDPMSchedule(1000, cosine)  # a schedule of 1000 levels: lesson 03
one_shot = train(networks.MLP((2,), width=32, depth=3), one_shot_loss, world, steps=200)
walker = train(
    Denoiser(networks.MLP((2,), width=32, depth=3), target="x0"),
    lambda denoiser, x0: denoising_loss(denoiser, x0, fading),
    world,
    steps=600,
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
    alt="Three panels. The data are two half moons. One shot gives a single dot in the middle, "
    "between the moons. Twenty steps give the two moons and some stray points.",
    caption="The same network, the same error, two tasks. (The strays: section 4.)",
)

# %% [markdown] tags=["T-26"]
# **Check.** Is a loss that stops at 1 a failure of training (T-26)? Compare it not with 0, but with the least that
# is possible. Here that is the variance of the data, 1, reached by a function that always returns the mean, 0. Any
# other function of the noise lies above it by the mean square of its outputs. So we see how much could still be gained,
# say by the 400 more steps of training that the denoiser has had.

# %% tags=["check", "DS-34", "L19-49", "T-26"]
n = 20_000
losses = one_shot_loss(one_shot, world.sample(n)[0].float())
outputs = one_shot(torch.randn(n, 2), torch.ones(n))
print(f"loss {losses.mean():.2f}, least possible 1.00")
print(f"standard deviation of the outputs {outputs.std(0).max():.2f}, of the data 1.00")
print(f"could still be gained: {outputs.square().mean():.4f}")
assert losses.mean() > 1 - 4 * losses.std() / n**0.5  # nothing beats the mean
assert outputs.std(0).max() < 0.1
assert outputs.square().mean() < 0.01

# %% [markdown] tags=["DS-36"]
# **One network, not a thousand (DS-36).** The walk asked about twenty levels, and training about a thousand, but it
# is *one* network: the level is one of its inputs. The lecture counts that as a saving. So it is, against a network
# for each level. Against the one-shot network nothing is saved: the two are equally large.

# %% tags=["check", "DS-36"]
sizes = [sum(p.numel() for p in model.parameters()) for model in (one_shot, walker)]
print(f"one shot: {sizes[0]:,} weights; all levels: {sizes[1]:,}")
print(f"a network for each level: {1000 * sizes[1]:,}")
assert sizes[0] == sizes[1]

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Somebody blames the square and trains on $|g(z)-x_0|$ instead. What does the one-shot generator
# of the two bumps make now? And of two bumps with weights 0.7 (at $-1$) and 0.3?
#
# <details><summary>Answer</summary>
#
# Absolute error is smallest at the *median*: again one point. With equal weights it is 0, between the bumps. With
# 0.7 and 0.3 half of the data lie below the $m$ with $0.7\,\Phi((m+1)/0.3)=0.5$ (the right bump does not reach so
# far), at $m=-1+0.3\,\Phi^{-1}(0.5/0.7)=-0.83$, within the left bump; the right one is never drawn. Another
# distance moves the point, it does not make it two.
# </details>

# %% [markdown] tags=["DS-06"]
# ## 3. Destroy slowly, return slowly
#
# **Story.** Diffusion chooses a detour. Fade the data into noise in many small steps, a *fixed* process with
# nothing to learn; then learn to undo it (DS-06). Step $k$ of $T=1000$ shrinks the point a little and adds a little
# noise, of variance $\beta_k$ between 0.0001 and 0.02:
#
# $$x_k=\sqrt{1-\beta_k}\;x_{k-1}+\sqrt{\beta_k}\;\epsilon_k,\qquad\epsilon_k\sim N(0,1).$$
#
# Of $k$ steps in a row one only needs the product $\bar\alpha_k=(1-\beta_1)\cdots(1-\beta_k)$, which falls from 1 to
# nearly 0 (lesson 03 shows why):
#
# $$x_k=\sqrt{\bar\alpha_k}\;x_0+\sqrt{1-\bar\alpha_k}\;\epsilon.$$
#
# In code: `t = schedule.at(k)`, and the two square roots are `t.signal` and `t.noise`.
#
# **Check.** Does it end in the bell, wherever it starts? Take the two bumps, and one bump far off at 3. We measure
# how far their densities $p_k$ are from the bell $p$ by $\int p_k\ln(p_k/p)$, the *Kullback-Leibler divergence* in
# *nats* (lesson 05): 0 means equal. It can only fall, as noising leaves the bell a bell and makes any two densities
# harder to tell apart.

# %%
schedule = DDPMSchedule()  # 1000 levels, 0 the data: the first schedule of the lectures

# %% tags=["check", "DS-06"]
line = torch.linspace(-8, 8, 3201, dtype=torch.float64)
bell = torch.distributions.Normal(0.0, 1.0).log_prob(line)
ks, columns = range(0, 1001, 50), []
for start in (pair, mixtures.gaussian(mean=3.0, std=0.3)):
    logs = [start.log_prob(line[:, None], schedule.at(k)) for k in ks]
    columns.append([torch.trapezoid(log.exp() * (log - bell), line).item() for log in logs])
    assert all(later < earlier for earlier, later in pairwise(columns[-1]))
    assert columns[-1][-1] < 1e-3
rows = [[k, *(f"{c[k // 50]:.1g}" for c in columns)] for k in (0, 250, 500, 750, 1000)]
plots.table(rows, header=["k", "two bumps", "one bump at 3"], caption="Nats from the bell")

# %% [markdown] tags=["DS-35"]
# **Why is the way back easier?** Stand at a noisy point, $x_{200}=0.2$. Ask two questions: where were you one
# step ago, and where were you at the very beginning? Bayes' rule answers both on a grid.


# %% tags=["formula", "DS-35"]
def looking_back(density, z, x, signal, noise):
    """p(z | x) if x = signal * z + noise * N(0, 1). density (Z,) on the even grid z -> (X, Z)."""
    joint = density * torch.exp(-(((x[:, None] - signal * z) / noise) ** 2) / 2)
    return joint / joint.sum(1, keepdim=True) / (z[1] - z[0])


# %% tags=["DS-35"]
def one_step_and_all(k, z, x):
    """p(x_{k-1} | x_k = x) and p(x_0 | x_k = x) of the two bumps, on the grid z."""
    beta, t = schedule.beta[k - 1], schedule.at(k)  # the list of betas begins with beta_1
    before, start = (pair.log_prob(z[:, None], schedule.at(j)).exp() for j in (k - 1, 0))
    step = looking_back(before, z, x, (1 - beta).sqrt(), beta.sqrt())
    return step, looking_back(start, z, x, t.signal, t.noise)


# %% tags=["DS-35"]
z, here = torch.linspace(-4, 4, 1601, dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
dz = z[1] - z[0]
answers = one_step_and_all(200, z, here)
means = [(z * answer[0]).sum() * dz for answer in answers]
figure, axes = plots.panels(2, size=(3.4, 2.5))
for ax, answer, mean, when in zip(axes, answers, means, ("one step ago", "at first"), strict=True):
    plots.densities(z, {"exact": answer[0]}, xlabel=f"where it was {when}", ax=ax)
    ax.axvline(mean, color=plots.ROLE["model"]["color"])
    ax.set(xlim=(-2, 2), ylim=(0, None))
plots.show(
    figure,
    alt="Left, one narrow bell around 0.2 with an orange line, its mean, at the top. Right, two "
    "bumps at -1 and +1, and the orange line stands in the valley between them, where little is.",
    caption="Squared error learns means (orange): a good answer on the left, none on the right.",
)

# %% [markdown] tags=["DS-35"]
# **Check.** How much is unknown on average, over all points $x_k$? Of one step ago at most $\beta_k/(1-\beta_k)$:
# divide the first formula of this section by $\sqrt{1-\beta_k}$, and you see that $x_k/\sqrt{1-\beta_k}$ misses
# $x_{k-1}$ by a noise of that variance; the best guess can only be better. Of the beginning, up to the whole variance of
# the data, 1.09. *Small steps give clues*, says the lecture (DS-35).

# %% tags=["check", "DS-35"]
x, rows = torch.linspace(-4, 4, 401, dtype=torch.float64), []
for k in (100, 300, 600, 1000):
    density = pair.log_prob(x[:, None], schedule.at(k)).exp()  # how often each x_k comes
    unknown = []
    for answer in one_step_and_all(k, z, x):
        mean, square = ((z**power * answer).sum(1) * dz for power in (1, 2))
        unknown.append((density * (square - mean**2)).sum().item() * (x[1] - x[0]).item())
    bound = (schedule.beta[k - 1] / (1 - schedule.beta[k - 1])).item()
    assert unknown[0] < bound < unknown[1] < 1.09
    rows.append([k, f"{unknown[0]:.4f}", f"{bound:.4f}", f"{unknown[1]:.2f}"])
header = ["k", "one step ago", "at most", "at the beginning"]
plots.table(rows, header=header, caption="Mean variance of what is unknown, given the point x_k")

# %% [markdown] tags=["DS-35"]
# **But a denoiser guesses the beginning**, and that is the bad answer, in the valley! What is it good for? The
# good answer is *made* of it. Where the point was one step ago lies almost where it is, and a tiny part of the way
# towards the guess of the beginning (lesson 04 derives it):
#
# $$\mathbb E[x_{k-1}\mid x_k]=\frac{\sqrt{1-\beta_k}\,(1-\bar\alpha_{k-1})}{1-\bar\alpha_k}\;x_k+
# \frac{\sqrt{\bar\alpha_{k-1}}\,\beta_k}{1-\bar\alpha_k}\;\mathbb E[x_0\mid x_k].$$
#
# So the guess need not be right. It must point the right way for *one small step*; then we ask again, and know more.

# %% tags=["check", "DS-35"]
t, before, beta = schedule.at(200), schedule.at(199), schedule.beta[199]
stay = (1 - beta).sqrt() * before.noise**2 / t.noise**2
towards = before.signal * beta / t.noise**2
guess = pair(here[:, None], t).x0.item()  # the exact denoiser of the two bumps
by_formula = (stay * here + towards * guess).item()
print(f"guess of the beginning: {guess:.4f}; on the grid {means[1]:.4f}")
print(f"share of the guess in one step: {towards:.4f}")
print(f"mean one step ago: {by_formula:.5f}; on the grid {means[0]:.5f}")
assert abs(guess - means[1]) < 1e-6
assert abs(by_formula - means[0]) < 1e-6

# %% [markdown] tags=["DS-01", "DS-07"]
# ## 4. A thousand small maps are one big map
#
# **Story.** Each step of the sampler `ddim` is a small map $G_k$, without any chance in it. Put together they are
# one map, which first does $G_T$ and last $G_1$:
#
# $$G^*=G_1\circ G_2\circ\dots\circ G_T .$$
#
# Which map is it? If the paths never cross, they keep their order: who starts above 30 % of the noise ends above 30 %
# of the data. Then $G^*$ is the quantile map of section 1. Is it? Here are 21 walks with the *exact* denoiser of the
# two bumps.

# %% tags=["DS-07"]
starts = torch.linspace(-2.4, 2.4, 21, dtype=torch.float64)[:, None]
states = list(ddim(pair, starts, grid(schedule, 1000)))[::10]  # each has a point x and a guess x0
level = torch.arange(1000, -1, -10)
place, guesses = (torch.cat([getattr(s, name) for s in states], 1).T for name in ("x", "x0"))
figure, axes = plots.panels(2, size=(3.5, 2.8))
for ax, values, label in zip(axes, (place, guesses), ("point x", "guess of x₀"), strict=True):
    plots.paths(level, values, role="model", xlabel="level k", ylabel=label, ax=ax)
    ax.set(xlim=(1000, 0), ylim=(-2.6, 2.6))
plots.show(
    figure,
    alt="Left, twenty-one smooth threads from noise, evenly spread, to data, where they part into "
    "two bundles at -1 and +1. None crosses another. Right, the guesses along the same walks: all "
    "begin at 0 and fan out to the two bundles.",
    caption="Left: a thousand small steps. Right: what the denoiser says on the way. It begins "
    "with the mean and changes its mind.",
)

# %% tags=["check", "DS-01", "DS-07"]
assert (place.diff(dim=1) > 0).all()  # at all levels in the same order: no two cross
z = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)
G, gaps = quantile_map(z, two_bumps), {}
for S in (500, 1000):
    gaps[S] = (last(ddim(pair, z[:, None], grid(schedule, S)))[:, 0] - G).abs().max().item()
    print(f"{S} steps: largest distance from G {gaps[S]:.4f}")
assert abs(gaps[500] / gaps[1000] - 2) < 0.1  # half the steps, twice the error: it tends to 0

# %% [markdown] tags=["DS-07"]
# The chain *is* $F^{-1}\circ\Phi$, up to the size of its steps. So "one big $G^*$ or a thousand small ones" makes
# no difference **as a function** (DS-07). As a *learning problem* it makes all the difference: noise and example
# that are drawn apart know nothing of each other, but a faded point was made *from* its example, and the less faded
# it is, the more it knows.
#
# **Play.** The dots are the chain with few steps, the dashed line is $G$. With one step it gives the mean: section 2
# again! (The next two cells wire the slider and the third one moves it; nothing is lost if you skip them. A callback
# *yields* frames, a picture with a line of words; a `Stage` moves dots before a background.)


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
    values=[1, 2, 3, 5, 8, 12, 20, 30, 40, 60],
)

# %% tags=["check", "DS-33"]
distance = {}
for steps in (1, 60, 5):
    chain["steps"].value = steps
    chain.wait()
    print(chain.readout)
    distance[steps] = float(chain.readout.split()[-1])
assert distance[1] > distance[5] > distance[60]

# %% [markdown] tags=["T-16"]
# **Two ways to spoil it.** What makes the chain work, the number of steps or the questions? Take 60 steps, but
# (a) ask only at the start and keep that guess; (b) ask at each step a denoiser that is not told the level (T-16).
# The best that one can do then is to average over all levels it may be. Predict both pictures.
#
# Beside the picture we ask each version about $x_{100}=1$, where by Bayes' rule the right guess is 1.025. That is how
# such a mistake is found before anybody draws samples.


# %% tags=["T-16"]
def asked_once(denoiser):
    first = None

    def guess(x, t):
        nonlocal first
        first = denoiser(x, t).x0 if first is None else first
        return from_x0(x, t, first)  # with the noise that then explains x

    return guess


# %% tags=["T-16"]
def told_no_level(denoiser):
    levels = grid(schedule, 20)[:-1]  # that it may be, all equally likely

    def guess(x, t):
        share = torch.stack([denoiser.log_prob(x, s) for s in levels]).softmax(0)  # p(level | x)
        guesses = torch.stack([denoiser(x, s).x0 for s in levels])
        return from_x0(x, t, (share[:, :, None] * guesses).sum(0))

    return guess


# %% tags=["T-16"]
quantiles = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
even = torch.special.ndtri(quantiles)  # 200 numbers spread like the bell, without chance


def ends(version):
    return last(ddim(version(pair), even[:, None], grid(schedule, 60)))[:, 0]


def late_guess(version):
    """First a question at pure noise, then one at level 100, x = 1."""
    denoiser, one = version(pair), torch.ones(1, 1, dtype=torch.float64)
    denoiser(one, schedule.at(1000))
    return denoiser(one, schedule.at(100)).x0


# %% tags=["check", "T-16"]
_, posterior = one_step_and_all(100, line, torch.ones(1, dtype=torch.float64))
truth = torch.trapezoid(line * posterior[0], line).item()  # by Bayes' rule on the grid
exhibits = museum.inspect(
    {
        "right": lambda denoiser: denoiser,
        "asked only once": asked_once,
        "T-16: not told the level": told_no_level,
    },
    eye={"std of ends": Check(lambda v: ends(v).std(), math.sqrt(1.09), slack=0.05)},
    units={"guess at k = 100": Check(late_guess, truth, slack=1e-6)},
)


# %% tags=["T-16"]
def over_noise(exhibit, ax):
    ax.plot(even, quantile_map(even, two_bumps), **{**plots.ROLE["exact"], "marker": None}, lw=1)
    ax.plot(even, ends(exhibit.version), ".", color=plots.ROLE["model"]["color"], markersize=3)
    ax.set(xlabel="noise z", ylabel="end of the walk")


museum.show(
    exhibits,
    caption="Behind ±: what is allowed, for the std because 60 steps are not infinitely many",
    draw=over_noise,
    alt="Three panels of ends over noise, each with the S-shaped map G, dashed. Right: the ends "
    "lie on it. Asked only once: a flat line at 0. Not told the level: much flatter than the S.",
)

# %% [markdown] tags=["DS-33"]
# Sixty steps with one answer are one step. And a denoiser that does not know how much is noise shrinks everything
# towards the middle, a little in each step. *The small steps buy new questions*, no more and no less.
#
# **How many, then?** So far one process had 1000 levels, and a walk left some out. Now each *process* has its own
# number of steps $T$, all with the same $\beta$, such that $(1-\beta)^T=\bar\alpha_T$ is always the same (DS-33). We
# measure $W_2$, how far samples must be carried to become data (root mean square; on a line the smallest goes to the
# smallest). One step must give $\sqrt{1.09}=1.04$: everything sits at the mean.

# %% tags=["check", "DS-33"]
quantiles = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
z, remains = torch.special.ndtri(quantiles), schedule.alpha_bar[-1].item()
G, W2 = quantile_map(z, two_bumps), {}
for T in (1, 5, 10, 20, 50, 200, 1000):
    equal = DDPMSchedule(T, constant(T, 1 - remains ** (1 / T)))
    end = last(ddim(pair, z[:, None], grid(equal, T)))[:, 0]
    W2[T] = (end.sort()[0] - G).square().mean().sqrt().item()
    print(f"T = {T:4}: W₂ = {W2[T]:.3f}")
# the share √remains of the data is left in the noise: the one guess is not quite the mean
assert abs(W2[1] - math.sqrt(1.09)) < 1.1 * math.sqrt(remains)
assert sorted(W2.values(), reverse=True) == list(W2.values())

# %% tags=["DS-33"]
plots.show(
    plots.lines({"model": (list(W2), list(W2.values()))}, xlabel="steps T", ylabel="W₂", log=True),
    alt="W2 against the number of steps, both logarithmic: a line that falls from 1 at one step to "
    "0.02 at a thousand",
    caption="The denoiser is exact: all of this error comes from the size of the steps.",
)

# %% [markdown] tags=["L6-01", "L19-49"]
# **Is a thousand needed?** One lecture says "1000 tiny steps" (L19-49); another, about 1000 for the sampler DDPM,
# which adds fresh noise in each step, and 20 to 50 for DDIM, which does not (L6-01). Back to the moons: the network
# against the exact denoiser of the same moons, with $S$ steps of DDIM. We compare samples $x$ with data $y$ by the
# *energy distance* $2\,\mathbb E|x-y|-\mathbb E|x-x'|-\mathbb E|y-y'|$, which is 0 for equal laws. Two samples of
# the *data* differ as well, by chance. That is the floor: nothing below it, or even below 0, means anything.

# %% tags=["check", "L6-01", "L19-49"]
noise, truth, *others = torch.randn(2000, 2), *(world.sample(2000)[0] for _ in range(5))
floor = max(abs(metrics.energy_distance(other, truth)) for other in others)
energy = {}
for S in (1, 2, 5, 10, 20, 50):
    for name, denoiser in (("network", walker), ("exact", world)):
        made = last(ddim(denoiser, noise, grid(fading, S)))
        energy[name, S] = metrics.energy_distance(made, truth)

# %% tags=["check", "L6-01", "L19-49"]
steps = (1, 2, 5, 10, 20, 50)
rows = [[S, *(f"{energy[name, S]:.3f}" for name in ("network", "exact"))] for S in steps]
rows += [["floor", f"{floor:.3f}", f"{floor:.3f}"]]
plots.table(rows, header=["steps", "network", "exact"], caption="Energy distance from the moons")
for name in ("network", "exact"):
    falling = [energy[name, S] for S in steps[:4]]
    assert falling == sorted(falling, reverse=True)
    assert energy[name, 20] < energy[name, 1] / 50
assert energy["exact", 50] < energy["network", 50]  # what more steps cannot mend

# %% [markdown] tags=["L6-01", "L19-49"]
# So 1000 is the number of levels in *training*; a sampler may visit few of them. With the exact denoiser 20 steps
# reach the floor. Our network stays a little above, with 50 steps too: that is the fault of its size and its short
# training, and so are the strays in section 2. How many steps are enough is a question of tolerance.
#
# **Deterministic?** `ddim` has a dial $\eta$: how much of the noise is drawn anew in each step, from 0 (none) to 1
# (DDPM). *Predict:* same start, twice, with $\eta=0$ and with $\eta=1$. How far apart do two runs end?

# %% tags=["check", "L6-01"]
for eta in (0.0, 1.0):
    first, second = (last(ddim(walker, noise, grid(fading, 20), eta)) for _ in range(2))
    print(f"η = {eta:g}: mean distance of two runs {(first - second).norm(dim=1).mean():.1f}")
    assert torch.equal(first, second) == (eta == 0)
print(f"mean distance of two data points {(truth - others[0]).norm(dim=1).mean():.1f}")

# %% [markdown] tags=["L6-01"]
# With $\eta=0$ the start decides everything, and the sampler is the map $G^*$. With $\eta=1$ two runs end nearly as
# far apart as any two data points: the start is almost forgotten. So "DDIM is deterministic" means $\eta=0$.

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
# **Story.** Now handwritten digits, 8 by 8 pixels, values from $-1$ (black) to 1 (white). The library brings a small
# network trained on half of them (lesson 11 shows how), on the schedule that the moons had, too. We take ten digits
# it has *never seen*, and show three rows: the digits, noised to level $k$; the network's guess of the clean ones,
# asked once; and where (up to) 20 small steps lead. A *judge* counts how many come back as what they were: a classifier
# of another kind, trained on the other half (these ten among them).
#
# Predict: up to which level do they? And what will the middle row show at level 1000?

# %%
denoiser = weights.load("digits")
pictures, labels = data.digits("test")
ten = torch.stack([pictures[labels == digit][2] for digit in range(10)])  # the third of each


# %% tags=["play", "L22-02"]
def dissolve(k, seed):
    """A slider's callback. Rows: ten digits at level k, the guess asked once, 20 steps back."""
    eps = torch.randn(ten.shape, generator=torch.Generator().manual_seed(seed))
    noisy = add_noise(ten, eps, fading.at(k))
    first, *_, end = ddim(denoiser, noisy, grid(fading, min(k, 20), start=k / 1000))
    same = round(10 * metrics.recognised(end.x, torch.arange(10)))
    words = (
        f"level {k}, seed {seed}: top row {fading.at(k).alpha_bar:.1%} picture, middle the guess; "
    )
    words += f"{same} of 10 come back as what they were (bottom row)"
    yield Frame(plots.png(plots.mosaic(torch.cat([noisy, first.x0, end.x]), 10, 8)), words)


# %% tags=["play", "L22-02"]
levels = {
    "k": slider("level k", 10, 1000, value=500, step=10),
    "seed": slider("seed of the noise", 0, 20, value=0),
}
digit_slider = Explorer(dissolve, levels, width=720)
digit_slider.show(
    alt="Three rows of ten digits: noisy ones, the network's blurred guesses, and sharp digits "
    "after twenty steps. At low levels the same digits return, at high levels others",
    still_over="k",
    values=[10, *range(100, 1001, 50)],
)

# %% tags=["check", "L22-02"]
returned = {}
for k in (100, 1000, 500):
    digit_slider["k"].value = k
    digit_slider.wait()
    print(digit_slider.readout)
    returned[k] = int(digit_slider.readout.split("; ")[1].split()[0])
assert returned[100] >= 5  # far more than the one in ten that luck gives ...
assert returned[1000] <= 1 + 4 * math.sqrt(10 * 0.1 * 0.9)  # ... and here no more than luck

# %% [markdown] tags=["L22-02"]
# Move the slider to the right. The guess (middle row) turns into a grey average of all digits: section 2, in 64
# dimensions. The walk (bottom row) does not; it arrives at *some* digit. At $k=1000$ nothing of the original is
# left, so what returns is new: that is **generation**.
#
# And the same without any picture to begin with. Eight canvases of pure noise; the rows show what the network
# *guesses* in the course of the walk. Not all of them become a clear digit: it is a small network, and it learnt
# from 898 pictures.

# %% tags=["play", "L22-02"]
static = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
walk = list(ddim(denoiser, static, grid(fading, 20)))
stops = (0, 3, 6, 9, 12, 20)
plots.show(
    plots.images(
        torch.cat([walk[i].x0 for i in stops]), 8, rows=[f"step {i}" for i in stops], scale=6
    ),
    alt="Six rows of eight digits from the first step to the last: the same grey blur, soft "
    "shapes, then strokes, more or less like digits",
    caption="Eight digits that nobody wrote: the guesses on the way from pure noise.",
)

# %% [markdown] tags=["DS-37"]
# **Coarse to fine (DS-37).** It looks as if large shapes came first and details last. Is it so? A Fourier transform
# splits a picture into waves, from coarse ones (fewer than 1.5 periods across the picture) to fine ones (3 or more).
# For each kind we take the squared error of the guess, as a share of the error of one who knows nothing and always
# says the mean picture: 1 is ignorance, 0 is certainty. The *lead* is that of fine waves minus that of coarse ones.
# (At level 900 it drowns in chance, so we claim it only below.)


# %% tags=["formula", "DS-37"]
def band_energy(x):
    """Energy of each picture (B, 1, 8, 8) in coarse, middle and fine waves. (B, 3)"""
    wave = torch.fft.fftfreq(8) * 8  # periods across the picture
    length = (wave[:, None] ** 2 + wave**2).sqrt()
    energy = torch.fft.fft2(x).abs().square()[:, 0]
    bands = [(low <= length) & (length < high) for low, high in pairwise((0, 1.5, 3, 6))]
    return torch.stack([energy[:, band].sum(1) for band in bands], 1)


# %% tags=["check", "DS-37"]
ignorance = band_energy(pictures - data.digits("train")[0].mean(0)).mean(0)
ks, unknown = (900, 600, 300, 100), []
for k in ks:
    t = fading.at(k)
    guess = denoiser(add_noise(pictures, torch.randn_like(pictures), t), t).x0
    share = band_energy(guess - pictures) / ignorance
    unknown.append(share.mean(0))
    lead = share[:, 2] - share[:, 0]  # fine waves minus coarse ones, picture by picture
    error = lead.std() / len(lead) ** 0.5
    print(f"k = {k}: coarse waves lead by {lead.mean():.2f} ± {error:.2f}")
    assert k == 900 or lead.mean() > 4 * error

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
# **But I want a seven (L6-02).** The walk gives *some* digit. Draw until a seven comes: if a share $p$ are sevens,
# the first takes $1/p$ draws on average, and $m$ of them $m/p$, with standard deviation $\sqrt{m(1-p)}/p$ (each wait
# has variance $(1-p)/p^2$, and waits add up). We let the judge read 1200 draws, estimate $p$ on the first half and
# wait in the second.

# %% tags=["check", "L6-02"]
drawn = last(ddim(denoiser, torch.randn(1200, 1, 8, 8), grid(fading, 20))).clamp(-1, 1)
sevens = torch.from_numpy(metrics.judge().predict(drawn.flatten(1).numpy()) == 7)
p, m = sevens[:600].double().mean().item(), 20
waited = sevens[600:].nonzero()[m - 1].item() + 1
by_chance = math.sqrt(m * (1 - p)) / p
by_p = m / p * math.sqrt((1 - p) / (600 * p))  # p is itself an estimate
print(f"share of sevens {p:.2f}; {waited} draws for {m} sevens")
print(f"expected {m / p:.0f} ± {math.hypot(by_chance, by_p):.0f}")
assert abs(waited - m / p) < 4 * math.hypot(by_chance, by_p)

# %% [markdown] tags=["L6-03"]
# The remedy is to draw from $p(x\mid y)$ instead of $p(x)$, where $y$ is whatever we want: a class, a text, a
# style, a sketch (L6-03). Our network has learnt both; `condition` tells it the class (lesson 09).

# %% tags=["check", "L6-03"]
asked = guidance.condition(denoiser, torch.full((20,), 7))
sevens = last(ddim(asked, torch.randn(20, 1, 8, 8), grid(fading, 20)))
print(f"asked for 20 sevens: the judge reads {metrics.recognised(sevens, 7) * 20:.0f}")
assert metrics.recognised(sevens, 7) > 0.1 + 4 * math.sqrt(0.1 * 0.9 / 20)  # unasked: one in ten

# %% tags=["play", "L6-03"]
static = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
asked_walk = list(ddim(guidance.condition(denoiser, torch.arange(10)), static, grid(fading, 20)))
unasked = last(ddim(denoiser, static, grid(fading, 20)))

# %% tags=["play", "L6-03"]
both = torch.cat([unasked, asked_walk[-1].x])
plots.show(
    plots.images(both, 10, rows=["not asked", "asked"], scale=6),
    alt="Two rows of ten digits. Not asked: some digits, several hard to read. Asked: 0 to 9.",
    caption="The same noise, without a wish and with the wishes 0 to 9.",
)
right = metrics.recognised(asked_walk[-1].x, torch.arange(10))
print(f"the judge reads {right:.0%} of the lower row as asked")

# %% [markdown] tags=["L6-03"]
# Is it the *right* law, or does it just look like sevens? For that we need a case where we know the truth: two
# overlapping classes on the line, $N(-1,1)$ and $N(+1,1)$, equally frequent. Together they have standard deviation
# $\sqrt2$; class 1 alone has mean 1 and standard deviation 1. And drawing a class first, then a member of it, must
# be the same as drawing from all: $p(x)=\sum_y p(y)\,p(x\mid y)$.

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
# **Exercise 4.** Find with the slider the level from which on fewer than half of the digits come back as what they
# were. (Try several seeds.) Why is that no clear edge?
#
# <details><summary>Answer</summary>
#
# Between 600 and 700, as the last cell counts with many digits. There a third to a fifth of the variance is picture, and
# mostly its coarse waves can be made out. Whether they still decide between a 3 and an 8 depends on the digit and on
# the noise.
# </details>

# %% [markdown] tags=["DS-02", "E-33"]
# ## 6. The relatives
#
# **Is it so?** One lecture dates DDIM to 2022, another to 2020; the years of latent diffusion and of the
# diffusion transformer (DiT) vary too (DS-02). A paper has two dates: it became public, and it was published at a
# conference. The first can be *computed*: the number of a preprint at arXiv begins with year and month. Predict
# both dates of DDIM, then run.


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
plots.table(sorted(rows), header=["public", "model", "published"], caption="Who, when")
assert dates["DDIM (Song, Meng, Ermon)"] == (2020, 10)
assert dates["latent diffusion (Rombach et al.)"] == (2021, 12)
assert dates["diffusion transformer (Peebles, Xie)"] == (2022, 12)

# %% [markdown] tags=["DS-02", "E-33", "L19-53"]
# **Put right.** DDIM: October 2020, ICLR 2021. Latent diffusion: December 2021, CVPR 2022. DiT: December 2022,
# ICCV 2023 (E-33).
#
# The families in a table. *Likelihood* is the probability that a model gives to the data it is trained on, a *code* a
# short list of numbers that stands for a picture, a *token* a piece of a picture from a finite list, and a *call* one
# use of the network. The last column is what they are blamed for; we test none of it here.
#
# | family | how it makes a sample | trained by | calls | blamed for |
# |---|---|---|---|---|
# | VAE | decodes a random code | a bound on the likelihood | 1 | blur |
# | GAN | one map of noise | a judge that is trained too | 1 | training that fails; whole kinds of data left out |
# | normalising flow | one *invertible* map | the likelihood, exactly | 1 | only invertible layers |
# | autoregressive | pixel after pixel (or token after token) | the likelihood, exactly | one per pixel | time; a fixed order |
# | diffusion | many small steps from noise | squared error of a guess | 20 to 1000 | time |
#
# A closing slide calls the others "a black box that collapsed" and diffusion's pixels clay (L19-53). That is
# rhetoric: *our* one-shot network collapsed because it was trained by squared error on random pairs, and no GAN
# is trained so (L19-49). The clay you may judge in lesson 15, where we edit pictures.

# %% [markdown] tags=["DS-05", "E-35"]
# **Is it so?** A gallery of diffusion models shows pictures by Make-A-Scene (DS-05). From Gafni et al. (2022,
# section 3): the picture is cut into tokens, and a transformer predicts one token after the other. To which row
# of the table does it belong? Half-way, the two ways look different. Here is the exact autoregressive model of our
# training digits: each pixel is drawn from all digits that agree with the pixels so far. (Soon only one does. So it
# can but reprint a digit it knows; here only the *order* matters.)


# %% tags=["formula", "DS-05", "E-35"]
def autoregressive(examples, generator):
    """Pixel after pixel from the law of `examples` (N, D); yields the picture, 0 is unknown."""
    agree, picture = examples, torch.zeros(examples.shape[1])
    for i in range(len(picture)):
        picture[i] = agree[torch.randint(len(agree), (), generator=generator), i]
        agree = agree[agree[:, i] == picture[i]]
        yield picture.clone()


# %% tags=["DS-05", "E-35"]
examples = data.digits("train")[0].flatten(1)
by_pixel = list(autoregressive(examples, torch.Generator().manual_seed(4)))
by_step = [state.x[3].flatten() for state in asked_walk]  # the digit asked for is 3
halfway = [by_pixel[i] for i in (7, 15, 23, 31, 39, 47, 55, 63)]
halfway += [by_step[i] for i in (2, 5, 8, 11, 14, 16, 18, 20)]

# %% tags=["DS-05", "E-35"]
plots.show(
    plots.images(
        torch.stack(halfway).reshape(-1, 1, 8, 8), 8, rows=["pixel by pixel", "diffusion"], scale=6
    ),
    alt="Two rows of eight pictures. Pixel by pixel, a digit is uncovered from top to bottom, "
    "finished rows above grey. Diffusion: static over the whole picture turns into a digit.",
    caption="Autoregressive: 64 calls, each final (grey: not yet drawn). Diffusion: 20 calls, each "
    "on all pixels.",
)

# %% tags=["check", "DS-05", "E-35"]
for name, states in (("pixel by pixel", by_pixel), ("diffusion", by_step)):
    changed = [(b != a).sum().item() for a, b in pairwise(states)]
    print(f"{name}: a step changes {min(changed)} to {max(changed)} of 64 pixels")
    assert max(changed) <= 1 if states is by_pixel else min(changed) == 64
assert (examples == by_pixel[-1]).all(1).any()  # a reprint

# %% [markdown] tags=["DS-05", "E-35"]
# **Put right.** Make-A-Scene is autoregressive (E-35). Yet it uses classifier-free guidance, as in lesson 11 (so says
# its abstract): guidance is no privilege of diffusion.

# %% [markdown] tags=["DS-38", "E-41"]
# **Is it so?** A *variational autoencoder* (VAE) is two networks: an encoder turns a picture into a short random code,
# a decoder turns codes into pictures. In diffusion, noising plays the encoder. The lecture compares (DS-38): a VAE
# has *one* step, a *learned* encoder and a *smaller* code; diffusion has many steps, a *fixed* encoder, and noise in
# the *same space* as the data. By definition, or only in the usual versions? First the usual ones; we train nothing,
# we count.

# %% tags=["check", "DS-38", "E-41"]
vae_encoder = torch.nn.Linear(64, 2 * 16)  # a digit -> means and widths of a code of 16 numbers
weights_to_learn = sum(p.numel() for p in vae_encoder.parameters() if p.requires_grad)
noised = add_noise(pictures, torch.randn_like(pictures), fading.at(1000))
correlation = torch.corrcoef(torch.stack([pictures.flatten(), noised.flatten()]))[0, 1]
print(f"VAE: 64 numbers -> 16, {weights_to_learn} weights to learn")
print(f"diffusion: 64 numbers -> {noised[0].numel()}, none to learn")
print(f"correlation of digits and their noise {abs(correlation):.2f}")
assert noised.shape == pictures.shape
assert not noised.requires_grad
assert abs(correlation) < 4 / pictures.numel() ** 0.5 + fading.at(1000).signal

# %% [markdown] tags=["DS-38", "E-41"]
# Same *dimension*, then, but of the picture nothing is left: "same space" is too much. And is the encoder fixed
# by necessity? It has a dial, its noise level. Training can move any dial along which the loss has a slope. So make
# the level a parameter $\gamma$, with $\bar\alpha=1/(1+e^{-\gamma})$: is there a slope in $\gamma$? We compare
# autograd with a difference quotient. (It will be negative: less noise, less error. *This* loss would just turn the
# noise off; the one of lesson 05 knows better.)


# %% tags=["formula", "DS-38", "E-41"]
def loss_at(gamma, x0, eps):
    """Mean squared error of the exact denoiser's guess of x0, at the level gamma."""
    t = NoiseLevel(torch.sigmoid(gamma).sqrt(), torch.sigmoid(-gamma).sqrt())  # signal, noise
    return (pair(add_noise(x0, eps, t), t).x0 - x0).square().mean()


# %% tags=["check", "DS-38", "E-41"]
x0, eps = pair.sample(1000)[0], torch.randn(1000, 1, dtype=torch.float64)
gamma = torch.zeros((), dtype=torch.float64, requires_grad=True)
loss_at(gamma, x0, eps).backward()
with torch.no_grad():
    quotient = (loss_at(gamma + 1e-4, x0, eps) - loss_at(gamma - 1e-4, x0, eps)) / 2e-4
print(f"slope in γ: autograd {gamma.grad:.2f}, difference quotient {quotient:.2f}")
assert abs(gamma.grad - quotient) < 1e-6
assert gamma.grad < -0.01

# %% [markdown] tags=["DS-38", "E-41"]
# **Put right (E-41).** True of the basic versions only. VAEs with several layers of codes take several steps
# (Sønderby et al. 2016), a VAE's code need not be smaller, variational diffusion learns its schedule (Kingma et
# al. 2021), and latent diffusion puts a learned encoder in front (lesson 14). Diffusion is itself a layered VAE with
# a very simple encoder; lesson 05 makes that precise.

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
shares = {}
for k in (600, 700, 800):  # exercise 4
    noisy = add_noise(pictures[:300], torch.randn_like(pictures[:300]), fading.at(k))
    end = last(ddim(denoiser, noisy, grid(fading, 20, start=k / 1000)))
    shares[k] = metrics.recognised(end, labels[:300])
    print(f"level {k}: {fading.at(k).alpha_bar:.0%} of the variance is picture, ", end="")
    print(f"{shares[k]:.0%} of 300 digits return")
assert shares[600] > shares[800] + 4 * math.sqrt(2 * 0.25 / 300)

# %% [markdown]
# ## What we learned
#
# * A generator is a map from noise to data. In one dimension it is the quantile map; in 30,000 it has to be
#   learned.
# * Squared error on random pairs learns the mean: one point. The pairing is at fault, not the network.
# * A faded point and its example belong together. The guess of the example is a mean, too, and mostly wrong; but one
#   small step needs only a small part of it, and then we ask again. All steps in a row are the big map.
# * How many steps is a question of tolerance: training has 1000 levels, sampling may do with 20.
# * Diffusion is a relative of VAEs; and for any paper ask for both of its dates.
#
# ## References
#
# * Sohl-Dickstein et al. 2015, *Deep unsupervised learning using nonequilibrium thermodynamics*, section 2.
# * Ho et al. 2020, *Denoising diffusion probabilistic models*, section 2 (the process), algorithms 1 and 2.
# * Song, Meng & Ermon 2021, *Denoising diffusion implicit models*, section 4, equation 12.
# * Song et al. 2021, *Score-based generative modeling through stochastic differential equations*, section 4.3 (the
#   deterministic map).
# * Kingma et al. 2021, *Variational diffusion models*, section 3.2 (a learned schedule).
# * Gafni et al. 2022, *Make-A-Scene*, section 3 (tokens, one after the other).
# * Sønderby et al. 2016, *Ladder variational autoencoders*; and the papers of the table in section 6.
#
# **Where next:** lesson 02 learns to walk at random: what a path of noise is, and what happens to it as the steps
# shrink.
