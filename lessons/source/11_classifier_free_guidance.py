# %% [markdown]
# # 11 · Classifier-free guidance
#
# **One network, asked twice at every step, and one number ω: you will steer networks that write
# digits with sliders, know when a slider obeys a law of probability and when it does not, and choose
# between this guidance and that of lesson 10 by numbers of your own.**
#
# - *You need:* lessons 06 (score and noise), 07 (samplers) and 10 (classifier guidance).
# - *You will be able to:* train one network for "any digit" and for "a seven", guide it, translate
#   between the two ways papers write ω, say what guidance costs and what it distorts, and when the
#   other one serves you better.
# - *Time:* a minute of computing on two CPU cores, an hour and a half of reading and playing.
#
# The course follows a series of lectures and tests what they say. Codes name its places: L6-65 is a
# slide of lecture 6 (DS: of another deck), E-16 a slip we put right, T-14 a classic mistake.

# %% tags=["setup"]
import torch

from didiff import guidance, mixtures
from didiff.notebook import museum, plots
from didiff.notebook.museum import Check
from didiff.notebook.widgets import Explorer, Frame, slider
from didiff.process import Prediction
from didiff.samplers import ddim, ddpm, initial_noise, last
from didiff.schedules import DDPMSchedule, grid, trigonometric

torch.manual_seed(0)
cores = torch.get_num_threads()
torch.set_num_threads(1)  # for networks this small a second thread costs more than it brings
plots.style()

# %% [markdown] tags=["L22-11", "formula"]
# # Part one: everything exact
#
# ## 1. Two compasses
#
# **Story.** At every noisy point $x_t$ a conditional denoiser can be asked twice: *which noise is in
# here?* (no label: $\epsilon_u$) and *which noise, if this is to be a seven?* (label $y$:
# $\epsilon_c$). The lecture calls them two compasses (L22-11). Guidance stands at the first reading
# and walks ω times the way to the second:
#
# $$\epsilon_\omega = \epsilon_u + \omega\,(\epsilon_c - \epsilon_u)$$
#
# The numbers of the lecture's worked example did not reach us; these are ours, for two pixels.

# %% tags=["L22-17", "L22-11", "check"]
eps_uncond, eps_cond = torch.tensor([[0.2, 0.1], [0.5, -0.2]]).double()
omegas = torch.tensor([0.0, 1.0, 3.0, 7.0]).double()
eps_guided = eps_uncond + omegas[:, None] * (eps_cond - eps_uncond)
past = (eps_guided - eps_cond).norm(dim=1) / (eps_cond - eps_uncond).norm()
assert torch.allclose(past, (omegas - 1).abs(), rtol=0, atol=1e-9)

# %% tags=["L22-17", "L22-11"]
columns = zip(omegas, eps_guided, past, strict=True)
rows = [[f"{w:g}", f"({a:.1f}, {b:.1f})", f"{p:.1f}"] for w, (a, b), p in columns]
header = ["ω", "guided noise", "distance from ε_c, in lengths of ε_c − ε_u"]
plots.table(rows, header=header, caption="Two pixels, four scales")

# %%
figure = plots.lines({"guidance": eps_guided.T}, xlabel="ε of pixel 1", ylabel="ε of pixel 2")
names = ["ω = 0: $ε_u$", "ω = 1: $ε_c$", "ω = 3", "ω = 7"]
for name, point in zip(names, eps_guided, strict=True):
    figure.axes[0].annotate(f"  {name}", point.tolist(), va="bottom")
figure.axes[0].margins(x=0.15, y=0.12)
plots.show(
    figure,
    alt="Four points on one straight line: omega 0 and 1 close together, 3 and 7 far beyond them",
    caption="ω = 0 and 1 are the two readings; at ω = 3 we overshoot by twice their difference.",
)

# %% [markdown]
# **Code.** Guidance turns a denoiser into a denoiser, so every sampler of lesson 07 takes it as it is.
# Both halves of the `Prediction` may be extrapolated: $x_t=\texttt{signal}\,x_0+\texttt{noise}\,\epsilon$
# is linear, and the two weights, 1 − ω and ω, add up to 1, so the new pair explains $x_t$ as well.


# %% tags=["twin:didiff.guidance.classifier_free", "L22-12", "DS-65"]
def classifier_free(denoiser, y, omega):
    """eps_guided = eps_uncond + omega * (eps_cond - eps_uncond), and the same for x0."""

    def guided(x, t):
        uncond, cond = denoiser(x, t), denoiser(x, t, y)
        return Prediction(*(u + omega * (c - u) for u, c in zip(uncond, cond, strict=True)))

    return guided


# %% [markdown]
# **Check.** ω = 0 must be the unconditional model and ω = 1 the conditional one, exactly (L22-13,
# L19-16). Our ground truth is a ring of eight bumps whose labels alternate between 0 and 1, where
# both readings are known in closed form.

# %% tags=["L22-13", "L19-16", "DS-65", "check"]
ring, t = mixtures.ring(), DDPMSchedule().at(400)  # step 400 of the lectures' linear table
x, y = torch.randn(1000, 2, dtype=torch.float64), torch.ones(1000, dtype=torch.long)
uncond, cond = ring(x, t), ring(x, t, y)
for omega, wanted in [(0.0, uncond), (1.0, cond)]:
    off = (classifier_free(ring, y, omega)(x, t).eps - wanted.eps).abs().max()
    print(f"ω = {omega:g}: largest difference {off:.10f}")
    assert off < 1e-10

# %% [markdown] tags=["E-23", "E-58"]
# ## 2. Which way does it push?
#
# **Two questions.** One deck says that guidance pushes the unconditional prediction *away from* the
# conditional one (L19-15). Another says that a larger ω moves the noise towards "more cat-like", and
# that we then subtract "this bigger noise" (L22-18). Are both so? Predict first, with a pencil. For the
# first we measure the angle between what guidance adds and the way to the condition:
#
# $$\cos\angle\,(\epsilon_\omega-\epsilon_u,\;\epsilon_c-\epsilon_u)$$

# %% tags=["L19-15", "E-23", "check"]
for omega in (0.5, 3.0, 7.5):
    eps = classifier_free(ring, y, omega)(x, t).eps
    smallest = torch.cosine_similarity(eps - uncond.eps, cond.eps - uncond.eps).min()
    print(f"ω = {omega:g}: smallest cosine at 1,000 points {smallest:+.6f}")
    assert smallest > 1 - 1e-9

# %% [markdown]
# The cosine is +1: guidance moves *towards* the conditional prediction, through it at ω = 1, and
# past it; what it leaves behind is the unconditional one. Now the cats: class 1 of two overlapping
# classes on the line, N(−1, 1) and N(+1, 1). Towards cats is to the right.

# %% tags=["L22-18", "E-58", "check"]
line = mixtures.two_classes()
points = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
u, c = line(points, t), line(points, t, 1)
assert (c.eps < u.eps).all()
assert (c.x0 > u.x0).all()
for name, change in [("lowers ε", u.eps - c.eps), ("raises x0", c.x0 - u.x0)]:
    print(f"at every point the label {name}, by {change.min():.3f} to {change.max():.2f}")

# %% tags=["L22-18", "E-58", "check"]
guided = classifier_free(line, 1, 3.0)(points, t)
longer = (guided.eps.abs() > u.eps.abs()).double().mean()
print(f"the guided noise is the bigger one at {longer:.0%} of the points")
assert 0 < longer < 1

# %% [markdown] tags=["L22-18", "E-58"]
# The difference $\epsilon_c-\epsilon_u$ points *away* from cats everywhere, as noise points away from
# data. Guidance adds ω times this difference to ε; the sampler subtracts ε, so the picture moves
# towards cats. And guided noise is no "bigger noise": it is larger at some points, smaller at others.
# So the first statement is wrong, and both halves of the second.

# %% tags=["L22-18", "E-58"]
noises = {"no label": u.eps, "label cat": c.eps, "guidance, ω = 3": guided.eps}
curves = {name: (points[::4, 0], eps[::4, 0]) for name, eps in noises.items()}
plots.show(
    plots.lines(curves, xlabel="noisy point x", ylabel="predicted noise ε"),
    alt="Three rising curves over x: no label is highest, the cat's lower, the guided one lowest",
    caption="Less ε is subtracted, so x ends further right, where the cats are.",
)

# %% [markdown] tags=["E-16"]
# ## 3. Two ways of writing ω
#
# **Story.** Lecture 6 and Ho & Salimans (2022, eq. 6) write the same straight line with another ruler
# (L6-65, L6-66):
#
# $$(1+w)\,\epsilon_c - w\,\epsilon_u \;=\; \epsilon_u + (1+w)(\epsilon_c-\epsilon_u)
# \qquad\Longrightarrow\qquad \omega = w + 1$$
#
# The slides call this $w$ ω as well, and they use ω once more for classifier guidance (L6-68).
# **A question.** "ω = 1 is Bayes" (the true law $p(x\mid y)$, section 4), "ω → 0 is like unconditional",
# "typical values are 2 to 10" (lecture 6, of classifier guidance; another deck: 3 to 15, of the first row).
# In which rows of the table are the first two true? And can the two ranges be compared?

# %% tags=["L6-68", "DS-66", "E-16"]
header = ["formula", "written so by", "unconditional", "Bayes", "its 7.5 in our ω, if exact"]
rows = [
    ["ε_u + ω (ε_c − ε_u)", "didiff, lectures 19, 22 and DS", 0, 1, 7.5],
    ["ε_u − ω · noise · ∇log p(y|x)", "lecture 6, classifier guidance (section 4)", 0, 1, 7.5],
    ["(1 + w) ε_c − w ε_u", "lecture 6, classifier-free", -1, 0, guidance.from_lecture_scale(7.5)],
]
plots.table(rows, header=header, caption="Three formulas, two rulers (E-16)")

# %% tags=["L6-65", "L6-66", "T-14", "check"]
for w in (-1.0, 0.0, 2.0, 6.5):
    ours = guidance.classifier_free(ring, y, guidance.from_lecture_scale(w))(x, t).eps
    off = ((1 + w) * cond.eps - w * uncond.eps - ours).abs().max()
    print(f"w = {w:4g} is ω = {w + 1:3g}: largest difference {off:.10f}")
    assert off < 1e-10

# %% [markdown] tags=["L6-68", "DS-66", "E-16"]
# The first two statements hold for the first two rows. In the third, Bayes is at 0 and "ignore the
# condition" at −1. Nor can the ranges be compared: 3 to 15 in the first row are $w$ = 2 to 14 in the
# third, and 2 to 10 in the second multiply the gradient of a separate classifier: the last column is
# right there if both are exact (section 4), and in section 12 we see how far off it is for networks.

# %% [markdown] tags=["exercise"]
# **Exercise 1.** Ho & Salimans report their best FID (section 12) at $w$ between 0.1 and 0.3, and show
# strong guidance at $w = 4$. (a) Which ω samples the same as $w = 4$? (b) Which $w$ the same as
# `guidance_scale=7.5`, our ω? (c) A paper writes $2s\,\epsilon_c+(1-2s)\,\epsilon_u$. Where is Bayes,
# where is "no label", and which $s$ is our 7.5?
#
# <details><summary>Answer</summary>
#
# (a) ω = 5. (b) $w$ = 6.5. (c) It is $\epsilon_u+2s(\epsilon_c-\epsilon_u)$, so ω = 2s: Bayes at
# $s=\tfrac12$, no label at 0, and 7.5 is $s$ = 3.75.
#
# </details>

# %% [markdown] tags=["formula"]
# ## 4. The classifier inside
#
# **Story.** Why should this help? By Bayes' rule
# $\log p(y\mid x_t)=\log p(x_t\mid y)-\log p(x_t)+\text{const}$, and a score is $-\epsilon$ divided
# by the amplitude `noise` (lesson 06). Take gradients (L6-62):
#
# $$\epsilon_c-\epsilon_u = -\,\texttt{noise}\;\nabla_{x_t}\log p(y\mid x_t)$$
#
# So two exact readings hide a classifier of noisy points. Put this into the formula of section 1: the
# guided score is $\nabla_{x_t}[\log p(x_t)+\omega\log p(y\mid x_t)]$. ω = 1 is Bayes; ω > 1 counts the
# classifier more than once, and so sharpens it. Lesson 10 did the same with a separate classifier,
# `guidance.classifier`.
#
# **Check.** With the exact classifier of the ring, differentiated by autograd, the two methods must
# be one, at every noise level and every ω.

# %% tags=["L6-62", "check"]
wish = guidance.log_prob_of(ring, 1)  # (x, t) -> log p(y = 1 | x)
for k in (100, 400, 900):
    level = DDPMSchedule().at(k)
    for omega in (0.0, 1.0, 4.0):
        free = classifier_free(ring, y, omega)(x, level).eps
        off = (guidance.classifier(ring, wish, omega)(x, level).eps - free).abs().max()
        assert off < 1e-10
    print(f"t = {k}: at ω = 4 the noises are up to {free.abs().max():.2f} and differ by {off:.10f}")

# %% [markdown] tags=["play"]
# ## 5. What does ω = 4 sample from?
#
# **Play.** 400 points of the ring, guided to class 1, from the same noise at every setting. Predict
# before you move ω: will the bumps drift, grow or shrink, and in which direction? (Walks on exact
# mixtures take the trigonometric schedule of lesson 07: it starts from noise alone, exactly.)


# %% tags=["play"]
def guided_ring(omega, steps):
    """Frames: 400 points guided to class 1 of the ring, always from the same noise."""
    ring, levels = mixtures.ring(), grid(trigonometric, steps)
    start = initial_noise((400, 2), levels[0], torch.Generator().manual_seed(0))
    points = last(ddim(guidance.classifier_free(ring, 1, omega), start, levels))
    right = ring.class_log_prob(points, levels[-1]).exp()[:, 1].mean()
    radius, angle = points.norm(dim=1), torch.atan2(*points.T) % (torch.pi / 2) - torch.pi / 4
    spread = f"mean radius {radius.mean():.2f}, spread along a spoke {radius.std():.2f}, "
    spread += f"across {(radius * angle.sin()).std():.2f}"
    data, _ = ring.sample(400, 1, torch.Generator().manual_seed(1))
    figure = plots.scatter({"data of class 1": data, "guidance": points}, limit=3.0)
    figure.axes[0].legend(loc="upper left")  # and stays there
    yield Frame(plots.png(figure), f"class 1: {right:.0%} · {spread} (data: 2.02, 0.25, 0.25)")


# %% tags=["play"]
scale = slider("scale ω =", 0.0, 8.0, value=1.0, step=0.25)
controls = {"omega": scale, "steps": slider("DDIM steps", 1, 50, value=30)}
explorer = Explorer(guided_ring, controls, width=400)
explorer.show(
    alt="Guided points on a ring: all eight bumps at ω = 0, four of class 1 at ω = 1, four thin "
    "spokes a little further out at ω = 8",
    still_over="omega",
    values=[0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 7, 8],
)

# %% tags=["play", "check"]
on_ring = {}
for omega in (0.0, 8.0, 1.0):
    explorer["omega"].value = omega
    explorer.wait()
    on_ring[omega] = explorer.readout
    print(f"ω = {omega:g}: {explorer.readout}")
assert len(set(on_ring.values())) == 3

# %% [markdown] tags=["L6-69", "E-18", "formula"]
# At ω = 1 the bumps are the data's. At ω = 8 they are spokes: squeezed across, where the neighbours of
# the other class are, as long as before, and a little further out. (At ω = 0 the bumps of both classes
# are there, hence the wide "across".)
#
# **A question.** Bayes' rule gives ω = 1 alone. It is tempting, and often assumed (L6-69), to read any
# other ω as sampling the *tilted* law $p(x)\,p(y\mid x)^\omega$. The guided score is indeed the score
# of the law tilted *at each level*. A sampler needs something else: one law, diffused. Are they
# the same? Left: noise first, then tilt. Right: tilt the data, then noise.
#
# $$p_t(x)\,p_t(y\mid x)^{\omega}\;\overset{?}{\propto}\;
# \int q(x\mid x_0)\;p_0(x_0)\,p_0(y\mid x_0)^{\omega}\,dx_0$$
#
# On the line both sides are sums over a fine grid. Predict for which ω they agree.


# %% tags=["L6-69", "E-18"]
def tilted(mixture, x, t, omega):
    """p_t(x) p_t(y = 1 | x)^omega at points x (N, 1), normalised to sum 1."""
    return (mixture.log_prob(x, t) + omega * mixture.class_log_prob(x, t)[:, 1]).softmax(0)


def diffused(shares, x, t):
    """What q(xt | x0) makes of a law with these shares (N,) at the points x (N, 1)."""
    kernel = (-(((x - t.signal * x.T) / t.noise) ** 2) / 2).softmax(0)
    return kernel @ shares


# %% tags=["L6-69", "E-18"]
def mismatch(mixture, x, k, omega):
    """Total variation between tilting before and after k steps of noise, in [0, 1]."""
    clean, noisy = DDPMSchedule().at(0), DDPMSchedule().at(k)
    before = diffused(tilted(mixture, x, clean, omega), x, noisy)
    return (before - tilted(mixture, x, noisy, omega)).abs().sum().item() / 2


# %% tags=["L6-69", "E-18", "check"]
axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)[:, None]
off = {w: [mismatch(line, axis, k, w) for k in (100, 250, 500)] for w in (0, 1, 2, 4, 8)}
rows = [[w, *(f"{v:.3f}" for v in row)] for w, row in off.items()]
header = ["ω", "t = 100", "t = 250", "t = 500"]
plots.table(rows, header=header, caption="Total variation: tilted first against diffused first")
assert max(off[0] + off[1]) < 1e-10
assert off[8][2] > 0.4 > off[4][2] > 0.2

# %% [markdown] tags=["L6-69", "E-18", "L22-20"]
# Here only 0 and 1 agree (E-18), and one line tells why. What a noisy point says of the label is the
# mean of what its clean origins say, $p_t(y\mid x_t)=\mathbb E[p_0(y\mid x_0)\mid x_t]$. Divide both
# sides of the question by $p_t(x_t)$, and what is left is the power of a mean and the mean of a power:
#
# $$\mathbb E\bigl[p_0(y\mid x_0)\bigm|x_t\bigr]^{\omega}\;\overset{?}{\propto}\;
# \mathbb E\bigl[p_0(y\mid x_0)^{\omega}\bigm|x_t\bigr]$$


# %% tags=["L6-69", "E-18"]
def mean_of_power(mixture, x, t, omega):
    """E[p0(y = 1 | x0)^omega | xt], by sums over the grid x (N, 1), at each xt of that grid."""
    clean = DDPMSchedule().at(0)
    kernel = -(((x - t.signal * x.T) / t.noise) ** 2) / 2
    origins = (kernel + mixture.log_prob(x, clean)).softmax(1)  # p(x0 | xt), a row for each xt
    return origins @ (omega * mixture.class_log_prob(x, clean)[:, 1]).exp()


# %% tags=["L6-69", "E-18", "check"]
level, some = DDPMSchedule().at(250), [500, 600, 700]  # xt = −2, 0, 2
mean = mean_of_power(line, axis, level, 1)[some]
wanted = line.class_log_prob(axis, level)[some, 1].exp()
for omega in (1, 2):
    ratio = mean_of_power(line, axis, level, omega)[some] / mean**omega
    print(f"ω = {omega}: mean of power / power of mean at −2, 0, 2:", *(f"{v:.2f}" for v in ratio))
print("the mean", *(f"{v:.4f}" for v in mean), "p(y | xt)", *(f"{v:.4f}" for v in wanted))
assert (mean - wanted).abs().max() < 1e-9
assert ratio.max() > 1.5 * ratio.min()

# %% [markdown] tags=["L6-69", "E-18", "L22-20"]
# The ratio is no constant, so the laws differ; only at ω = 0 and 1 (or for a label that says nothing)
# must it be 1. And no *other* law will do: as t → 0 the guided field becomes the score of the tilted
# data, so this is the only law that it could have diffused. Nothing then guarantees that samplers
# agree (Bradley & Nakkiran 2024). Let us ask DDIM, which follows an ODE, and DDPM, which adds noise at
# every step. The fall of diversity (L22-20) can be read off as well: the standard deviation has
# nothing to saturate against.


# %% tags=["L6-69", "L22-20"]
def on_the_line(omega, n=4000, steps=100):
    """What DDIM and DDPM make of the two classes guided to class 1: two samples (n,)."""
    levels, seeded = grid(trigonometric, steps), torch.Generator().manual_seed(0)
    start = initial_noise((n, 1), levels[0], seeded)
    guided = guidance.classifier_free(mixtures.two_classes(), 1, omega)
    walks = ddim(guided, start, levels), ddpm(guided, start, levels, generator=seeded)
    return [last(walk)[:, 0] for walk in walks]


# %% tags=["L6-69", "L22-20"]
laws = {omega: on_the_line(omega) for omega in (0.0, 1.0, 2.0, 4.0, 8.0)}


# %% tags=["L6-69", "E-18", "L22-20"]
def tilted_moments(mixture, x, omega):
    """Mean and standard deviation of the tilted law of the data."""
    shares = tilted(mixture, x, DDPMSchedule().at(0), omega)
    mean = (shares * x[:, 0]).sum()
    return mean, (shares * (x[:, 0] - mean) ** 2).sum().sqrt()


# %% tags=["L6-69", "E-18", "L22-20"]
rows = []
for omega, samples in laws.items():
    pairs = [tilted_moments(line, axis, omega), *((s.mean(), s.std()) for s in samples)]
    rows.append([f"{omega:g}", *(f"{value:.2f}" for pair in pairs for value in pair)])
header = ["ω", "tilt: mean", "std", "DDIM: mean", "std", "DDPM: mean", "std"]
plots.table(rows, header=header, caption="The tilted law and two samplers, 4,000 points each")

# %% tags=["L6-69", "E-18", "L22-20", "check"]
error = 1 / 4000**0.5  # of the mean of 4,000 points with standard deviation 1
assert all(abs(s.mean() - 1) < 4 * error for s in laws[1.0])
assert laws[4.0][0].mean() - laws[4.0][1].mean() > 10 * error
assert all(laws[8.0][k].std() < laws[2.0][k].std() < laws[0.0][k].std() for k in (0, 1))

# %%
near = slice(500, 901)  # from −2 to 6, 50 points per unit
tilt = {"exact, the tilted law": 50 * tilted(line, axis, DDPMSchedule().at(0), 4.0)[near]}
samples = dict(zip(["guided, DDIM", "guided, DDPM"], laws[4.0], strict=True))
figure = plots.densities(axis[near, 0], tilt, samples=samples)
figure.axes[0].axvline(1, color=plots.ROLE["data"]["color"], linewidth=0.8)
plots.show(
    figure,
    alt="At omega 4 DDIM lies furthest right, DDPM between it and the tilted law: all three peaks "
    "lie beyond +1",
    caption="ω = 4: three procedures, three laws. The thin line is the class mean, +1.",
)

# %% [markdown] tags=["exercise"]
# The means of all three pass +1, and disagree by many standard errors. **So results at ω > 1 belong
# to a sampler; report it with the ω.**
#
# **Exercise 2.** ω = ½ lies *between* two scales that are exact. Is the mismatch zero there, too? Argue
# with a mean and a power before you measure.
#
# <details><summary>Answer</summary>
#
# No. The root is concave: where $x_t$ leaves open how sure $x_0$ is of its label, the mean of roots lies
# below the root of the mean; far to the right, where every $x_0$ is sure, they are equal. So the ratio
# is no constant. The mismatch is small, but not zero, as the next cell shows.
#
# </details>

# %% tags=["solution", "check"]
half = [mismatch(line, axis, k, 0.5) for k in (100, 250, 500)]
print("mismatch at ω = ½:", *(f"{v:.3f}" for v in half))
assert min(half) > 0.001

# %% [markdown] tags=["L6-63", "L6-64", "L19-13", "DS-65", "formula"]
# # Part two: a network that learns in seconds
#
# ## 6. One network for both questions
#
# **Story.** Exact mixtures answer with and without a label. A network must learn both, and the trick
# takes one line: during training, hide the label now and then, usually with probability $p$ = 0.1 to
# 0.2 (L6-63, L19-13, DS-65).
#
# $$y' = \begin{cases}\varnothing & \text{with probability } p\\ y & \text{otherwise}\end{cases}
# \qquad\text{for each sample by itself}$$
#
# ∅ is a label of its own with its own row in the embedding table; here it is −1.

# %% tags=["L6-64", "twin:didiff.training.drop_labels"]
NO_LABEL = -1


def drop_labels(y, p):
    """Labels y (B,), each replaced by "no label" with probability p: one coin per sample."""
    return y.masked_fill(torch.rand(y.shape) < p, NO_LABEL)


# %% [markdown] tags=["L22-15", "E-57", "T-17"]
# **A question.** A slide of training code throws one coin per call, `random.random() < 0.10` (L22-15).
# For one sample that is right. What happens with a batch of 256?

# %% tags=["L6-64", "L22-15", "E-57", "T-17", "check"]
n, size, p = 2000, 256, 0.1
labels = torch.randint(10, (n, size))
per_sample = (drop_labels(labels, p) == NO_LABEL).double().mean(1).std()
per_batch = (torch.rand(n) < p).double().std()
print("standard deviation of the share without label, and what theory says:")
print(f"one coin per sample: {per_sample:.4f}, {(p * (1 - p) / size) ** 0.5:.4f}")
print(f"one coin per batch:  {per_batch:.4f}, {(p * (1 - p)) ** 0.5:.4f}")
assert abs(per_sample / (p * (1 - p) / size) ** 0.5 - 1) < 4 / (2 * n) ** 0.5
assert per_batch > 10 * per_sample

# %% [markdown]
# One coin per batch makes whole batches of nothing but ∅, so the two tasks take turns (E-57): still
# unbiased, only noisier, as would be one noise level per batch. The bug museum shows its samples.
#
# **Code.** The 1,797 handwritten digits inside scikit-learn, 8×8 pixels. The network learns from one
# half. The *judge*, a support vector machine, learns from the other and has seen none of the
# generator's images. The schedule is the cosine table of lesson 03.

# %% tags=["setup"]
from functools import partial

from didiff import data
from didiff.denoiser import Denoiser, loss, quick
from didiff.networks import MLP
from didiff.notebook.playground import Counted, Playground
from didiff.schedules import cosine
from didiff.training import fit, metrics, random_steps, weights

# %% tags=["setup"]
SCHEDULE = DDPMSchedule(1000, cosine)
seen, seen_labels = data.digits("train")
unseen, unseen_labels = data.digits("test")
judged = metrics.recognised(seen, seen_labels)
print(f"{len(seen)} digits to learn from; the judge reads {judged:.1%} of them and never saw them")


# %% tags=["L6-64"]
def train(steps, drop, width=256, depth=3, schedule=SCHEDULE):
    """A conditional denoiser of digits; drop: labels (B,) -> labels (B,)."""
    torch.manual_seed(0)
    net = MLP((1, 8, 8), width, depth, classes=10)  # and one more row of its embedding, for ∅
    model = Denoiser(net, "v", sigma_data=0.75)  # taught v; 0.75 is the pixels' standard deviation

    def losses(model, x0, y):
        t = random_steps(schedule, len(x0))  # a noise level for each sample
        return loss(model, x0, t, drop(y))

    batches = data.batches(*data.digits("train"), 128)
    *_, end = fit(model, losses, batches, steps, lr=3e-3, ema=0.995, warmup=100)
    return end.ema


# %% [markdown]
# `fit` is the loop of lesson 06, but its learning rate climbs during the first 100 steps and it keeps a
# running average of the weights (EMA). The lesson loads weights made by this very function in 4,000
# steps. `TRAIN_LIVE = True` trains your own in 2,000, half a minute on two cores, for the same check.

# %% tags=["check"]
TRAIN_LIVE = False

denoiser = train(2000, partial(drop_labels, p=0.15)) if TRAIN_LIVE else weights.load("digits")


# %% tags=["check"]
def noise_of(n, levels, shape=(1, 8, 8), seed=0):
    """The same n images of pure noise for whoever asks with the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return initial_noise((n, *shape), levels[0], generator, torch.float32)


def sample(denoiser, y, omega, null=NO_LABEL, schedule=SCHEDULE):
    """Digits (B, 1, 8, 8) of the classes y (B,), in 20 steps of DDIM."""
    levels = grid(schedule, 20)
    guided = guidance.classifier_free(denoiser, y, omega, null)
    return last(ddim(guided, noise_of(len(y), levels), levels))


# %% tags=["check"]
classes = torch.arange(300) % 10
for omega, goal in [(1.0, 0.95), (3.0, 0.99)]:
    share = metrics.recognised(sample(denoiser, classes, omega), classes)
    print(f"ω = {omega:g}: the judge recognises {share:.1%} of 300 digits (goal {goal:.0%})")
    assert share >= goal

# %% [markdown] tags=["L6-63", "L19-13", "T-19"]
# **How much to drop?** Five tiny networks, two seconds each, differ in nothing but their coins.
# Predict the row that cannot tell digits apart, and the row that cannot do without a label. Distances
# to unseen real digits $z$ are energy distances within each class, $2\,\mathbb E\lVert x-z\rVert-
# \mathbb E\lVert x-x'\rVert-\mathbb E\lVert z-z'\rVert$, 0 if the laws are equal; "no-label loss" is the
# training loss on unseen digits without a label.


# %% tags=["L6-63", "L19-13"]
def class_energy(images, y):
    """Energy distance between images and unseen digits of the same class, mean over classes."""
    real, labels = data.digits("test")
    pairs = [(images[y == k], real[labels == k]) for k in range(10)]
    return sum(metrics.energy_distance(*pair) for pair in pairs) / 10


# %% tags=["L6-63", "T-19"]
def no_label_loss(denoiser, schedule=SCHEDULE):
    """Mean loss on unseen digits without a label, at fixed levels and noise."""
    x0, generator = data.digits("test")[0], torch.Generator().manual_seed(0)
    t = random_steps(schedule, len(x0), generator)
    return loss(denoiser, x0, t, eps=torch.randn(x0.shape, generator=generator)).mean().item()


# %% tags=["L6-63", "L19-13", "T-19"]
small = partial(train, 300, width=96, depth=2)
tiny = {p: small(partial(drop_labels, p=p)) for p in (0.0, 0.1, 0.2, 0.5, 1.0)}

# %% tags=["L6-63", "L19-13", "T-19"]
sweep = {}
for p, model in tiny.items():
    drawn = [sample(model, classes, omega) for omega in (1.0, 3.0)]
    read = [metrics.recognised(images, classes) for images in drawn]
    energies = [class_energy(images, classes) for images in drawn]
    sweep[p] = [*read, *energies, no_label_loss(model)]

# %% tags=["L6-63", "L19-13", "T-19"]
rows = [[f"p = {p:g}", *(f"{v:.2f}" for v in row)] for p, row in sweep.items()]
header = ["", "recognised ω = 1", "ω = 3", "distance ω = 1", "ω = 3", "no-label loss"]
plots.table(rows, header=header, caption="What the coin decides (networks of 300 steps)")

# %% tags=["L6-63", "L19-13", "T-19", "check"]
never, tenth, fifth, _, always = sweep.values()
assert never[3] > 1.2 * max(tenth[3], fifth[3]), "p = 0: guidance pushes away from nonsense"
assert never[4] > 1.05 * tenth[4], "p = 0: the row of no label was never trained"
assert always[0] < 0.3 < 0.8 < min(tenth[0], fifth[0]), "p = 1: the condition was never learned"
assert abs(tenth[2] - fifth[2]) < 0.1 * always[2], "a tenth or a fifth: much the same at ω = 1"

# %% [markdown] tags=["L6-63", "L19-13", "T-19"]
# $p=1$ never trained its embeddings of the digits: its "condition" is random, and pushing towards it is
# worst of all. $p=0$ never trained ∅, and yet it is recognised: a random row still reads as no digit in
# particular, only badly, and its no-label loss is the highest. More $p$ makes a better $\epsilon_u$ (the
# loss falls, and what ω = 3 does to these tiny networks is less bad) and a worse $\epsilon_c$ (fewer
# recognised at ω = 1): 0.1 to 0.2 is a compromise, and at ω = 1 these two agree (L19-13).
#
# **These numbers** judge images from here on:
#
# | | |
# |---|---|
# | recognised | share of images that the judge reads as the digit asked for |
# | diversity | variance of *ink or not* (cut at mid-grey) within a class, over that of all 1,797 digits |
# | saturated | share of pixels beyond ±1 by more than 0.05, which no eye would notice |
# | distance | energy distance to unseen real digits of the same class, mean over classes |
#
# The yardstick: the half of the real digits that the network learns from. (Pixel std: section 8.)


# %% tags=["L19-16"]
def saturation(images):
    """The share of pixels that are blacker than black or whiter than white, beyond ±1.05."""
    return (images.abs() > 1.05).double().mean().item()


# %% tags=["L19-16", "L22-19", "L22-20", "DS-66", "E-15"]
def measured(images, y):
    """What the curves show, of digits (B, 1, 8, 8) of the classes y (B,)."""
    return {
        "recognised": metrics.recognised(images, y),
        "diversity": metrics.diversity(images, y),
        "pixel std": torch.stack([images[y == k].std(0).mean() for k in range(10)]).mean().item(),
        "saturated": saturation(images),
        "distance": class_energy(images, y),
    }


# %% tags=["check"]
real = measured(seen, seen_labels)
print("real digits:", ", ".join(f"{name} {value:.3f}" for name, value in real.items()))
assert abs(real["distance"]) < 0.01

level = SCHEDULE.at(100)
noisy = (level.signal * unseen + level.noise * torch.randn_like(unseen)).float()
restored = saturation(denoiser(noisy, level, unseen_labels).x0)
print(f"expected from real digits with a little noise: saturated {restored:.3f}")
assert restored > saturation(unseen) + 0.02

# %% [markdown]
# So some saturation is the network's own, without guidance: the pixels of real digits crowd at ±1, and a
# guess that misses them misses on either side.
#
# ## 7. The slider
#
# **Play.** Sixteen digits, the same noise wherever ω and the steps stand. Where does the share recognised
# reach 16? When do grey edges vanish? And at ω = 3, how few steps still write a digit? (Diversity of 16
# images is noisy.) The other two methods are for section 9.


# %% tags=["play", "L6-67"]
def on_an_interval(denoiser, y, omega, low=0.0, high=0.5):
    """Guided while the clock (0 data, 1 noise) is between low and high, merely conditional else."""
    pushed = guidance.classifier_free(denoiser, y, omega)
    return guidance.interval(guidance.condition(denoiser, y), pushed, low, high)


def clipped(denoiser, y, omega):
    """Guided, with x0 clamped to [-1, 1] at every step."""
    return guidance.clip(guidance.classifier_free(denoiser, y, omega))


# %% tags=["play", "L6-67"]
small_net = Counted(denoiser)  # it notes how often it is asked
methods = {
    "classifier-free": partial(classifier_free, small_net),
    "in the cleaner half only": partial(on_an_interval, small_net),
    "x0 clipped at every step": partial(clipped, small_net),
}
play = Playground(methods, {"network": small_net}, partial(grid, SCHEDULE), shape=(1, 8, 8))
explorer = play.explorer()
explorer.show(
    alt="Sixteen digits in two rows: any digits at ω = 0, the right ones with soft edges at 1.5, "
    "ever harder black and white beyond 3",
    still_over="omega",
    values=[0, 0.5, 1, 1.5, 2, 2.5, 3, 5, 7.5, 10],
)

# %% tags=["play", "check"]
readouts = {}
for omega, steps in [(0.0, 20), (1.0, 20), (10.0, 20), (3.0, 2), (3.0, 5), (3.0, 20)]:
    explorer["omega"].value, explorer["steps"].value = omega, steps
    explorer.wait()
    readouts[omega, steps] = explorer.readout
    print(f"ω = {omega:g}, {steps} steps: {explorer.readout}")
assert len(set(readouts.values())) == 6
assert "recognised 16 of 16" in readouts[3.0, 20]

# %% [markdown] tags=["L6-67", "L19-14", "L22-16"]
# **The price.** Two questions per step: $2S$ evaluations of the network for $S$ steps, be it in $2S$
# calls or in $S$ calls of a doubled batch (L6-67, L19-14, L22-16). In return one trained network
# serves every ω. (At ω = 0 and 1 one question would do; our functions ask both all the same.) We count
# calls by a hook, and images by `Counted`.


# %% tags=["L6-67"]
def doubled(denoiser, y, omega):
    """classifier_free with one call of a batch twice as long."""

    def guided(x, t):
        both = denoiser(torch.cat([x, x]), t, torch.cat([torch.full_like(y, NO_LABEL), y]))
        return Prediction(*(u + omega * (c - u) for u, c in (half.chunk(2) for half in both)))

    return guided


# %% tags=["L6-67", "L19-14", "L22-16"]
def price(counted, guided, levels):
    """(calls of the network, evaluations per image, sixteen digits)."""
    calls, before = [], counted.asked
    handle = counted.net.register_forward_hook(lambda *_: calls.append(1))
    images = last(ddim(guided, noise_of(16, levels), levels))
    handle.remove()
    return len(calls), (counted.asked - before) / 16, images


# %% tags=["L6-67", "L19-14", "L22-16", "check"]
levels, few = grid(SCHEDULE, 20), classes[:16]
ways = {
    "no guidance": guidance.condition(small_net, few),
    "two calls": classifier_free(small_net, few, 3.0),
    "doubled batch": doubled(small_net, few, 3.0),
}
paid = {name: price(small_net, guided, levels) for name, guided in ways.items()}
for name, (calls, evaluations, _) in paid.items():
    print(f"20 steps, {name}: {calls} calls, {evaluations:g} evaluations per image")

# %% tags=["L6-67", "L19-14", "L22-16", "check"]
off = (paid["two calls"][2] - paid["doubled batch"][2]).abs().max()
print(f"largest difference between the two ways: {off:.4f}")
assert [entry[:2] for entry in paid.values()] == [(20, 20), (40, 40), (20, 40)]
assert off < 1e-3  # single precision, over 20 steps

# %% [markdown] tags=["L22-19", "L22-20", "E-15"]
# ## 8. What ω buys, and what it costs
#
# **A question.** "Diversity falls as the scale grows" (L22-20). Suppose we measure it as the standard
# deviation of each pixel within a class:
#
# $$\text{pixel std}=\operatorname{mean}_{y,\,\text{pixels}}\;\operatorname{std}(x\mid y)$$
#
# Will that number fall? Predict its curve from ω = 0 to 15, then look.

# %% tags=["L19-16", "L22-19", "L22-20", "DS-66", "E-15"]
scales = [0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 12.0, 15.0, 25.0]
results = {omega: measured(sample(denoiser, classes, omega), classes) for omega in scales}

# %%
shown = scales[:-1]
curves = {name: [results[w][name] for w in shown] for name in results[1.0]}
two = {
    "diversity of strokes": (shown, curves["diversity"]),
    "pixel std (real: 1)": (shown, [v / real["pixel std"] for v in curves["pixel std"]]),
}

# %%
figure, axes = plots.panels(2, 2, (3.8, 2.4))
for name, ax in zip(["recognised", "saturated", "distance"], [*axes[:2], axes[3]], strict=True):
    plots.lines({"guidance": (shown, curves[name])}, xlabel="scale ω", ylabel=name, ax=ax)
    ax.axhline(real[name], **{**plots.ROLE["data"], "linestyle": ":", "marker": None})
plots.lines(two, xlabel="scale ω", ylabel="two diversities", ax=axes[2])
axes[2].axhline(1, **{**plots.ROLE["data"], "linestyle": ":", "marker": None})
axes[3].set_yscale("log")
plots.show(
    figure,
    alt="Over omega: recognised jumps to 1, saturation climbs from 0.5 on, pixel std dips a little "
    "and climbs to three times that of real digits, diversity falls to about .8 near omega = 2, "
    "then rises slowly, distance is smallest at 1",
    caption="300 digits at each ω, 20 steps of DDIM, never clipped. Dotted: real digits.",
)

# %% tags=["L19-16", "L22-19", "L22-20", "DS-66", "E-15", "check"]
guide = {0.0: "no label", 1.0: "Bayes", 3.0: "firm"}
guide |= {7.5: "strong", 12.0: "too strong", 25.0: "broken"}
keys = ("recognised", "saturated", "diversity", "pixel std", "distance")
rows = [[f"{w:g}", name, *(f"{results[w][key]:.2f}" for key in keys)] for w, name in guide.items()]
rows.append(["", "real digits", *(f"{real[key]:.2f}" for key in keys)])
plots.table(rows, header=["ω", "", *keys], caption="The scale guide, measured (L22-19)")

# %% tags=["L19-16", "DS-66", "check"]
best = min(scales, key=lambda w: results[w]["distance"])
print(f"closest to real digits: ω = {best:g}; real digits have {saturation(unseen):.0%} saturated")
assert best == 1.0
assert results[7.5]["distance"] > results[0.0]["distance"]
assert results[7.5]["saturated"] > 2 * results[1.0]["saturated"]

# %% tags=["L22-20", "E-15", "check"]
strokes = {w: r["diversity"] for w, r in results.items()}
up = results[10.0]["pixel std"] / results[1.0]["pixel std"], strokes[10.0] / strokes[1.0]
print(f"from ω = 1 to 10 the pixel std grows to {up[0]:.2f} times its value, ", end="")
print(f"the diversity of strokes to {up[1]:.2f} times")
assert up[0] > 2 > 1.3 > up[1]
assert strokes[2.0] < strokes[1.0] < strokes[0.0]
assert strokes[10.0] > strokes[2.0]
share = real["recognised"]
low = share - 4 * (share * (1 - share) / len(classes)) ** 0.5
assert all(results[w]["recognised"] > low for w in scales if 1.5 <= w <= 12)

# %%
drawn = {omega: sample(denoiser, torch.arange(10), omega) for omega in (0.0, 1.0, 3.0, 7.5, 25.0)}
rows = [f"ω = {omega:g}" for omega in drawn]
plots.show(
    plots.images(torch.cat([*drawn.values()]), 10, rows=rows, scale=5),
    alt="Five rows of digits: any digits at omega 0, the right ones from 1 on, harder and harder, "
    "ruins at 25",
    caption="The same ten noises in each row, asked for 0 to 9 from left to right.",
)

# %% [markdown] tags=["L19-16", "L22-14", "L22-19", "L22-20", "DS-66", "E-15", "E-16", "E-56"]
# From ω = 1.5 to 12 all or nearly all digits are recognised, as many as of the real ones: not as good as
# real, only as easy to read. At 25 the judge still reads nine in ten ruins: never report recognition alone. The law
# is best matched at ω = 1 (DS-66); at 7.5 it is further off than at 0, where the label is ignored. What
# a slide calls vibrant (L19-16) is *saturation*: pixels driven beyond black and white.
#
# **The trap** (E-15): pixel std *climbs* beyond ω = 1.5, because saturated pixels lie further apart. Cut at
# mid-grey first, and read with care. The fall from ω = 0 to 1 only says that the label is obeyed (at 0 a
# "class" is a mix). From 1 to 2 diversity falls; from 3 to 12 it rises, and even the ruins at 25 rate almost
# like real digits, as it counts ink in wrong places too. Trust it where little is saturated: here below
# 3. On the line of section 5, where nothing can saturate, the spread falls all the way.
#
# **Scales in the wild** (library defaults as of 2023 to 2024). The number in one slide did not reach us,
# another says 7 (L22-14); the default of the common Stable Diffusion 1.x pipeline is 7.5 (E-56). It is
# no law of nature: SDXL's is 5, that of FLUX.1 [dev] 3.5, fed to a distilled network as an input.


# %% [markdown]
# ## 9. Push less: an interval, a clamp
#
# **Story.** If a strong push saturates, push for part of the walk only. *Interval guidance*
# (Kynkäänniemi et al. 2024) is guided while the clock (0 data, 1 noise) lies between two numbers, and
# merely conditional elsewhere, where it saves the second pass as well. Or keep pushing and clamp
# $x_0$ to [−1, 1], at the end or at every step, which `guidance.clip` does to any denoiser. Or push less.
#
# **Predict**, for 300 digits at ω = 5: in which part of the walk does the push help, and where does it
# harm? Which clamp is nearer to real digits? Does any of them beat a smaller ω everywhere?

# %% tags=["L19-16", "DS-66"]
levels, pushed = grid(SCHEDULE, 20), guidance.classifier_free(small_net, classes, 5.0)
remedies = {
    "ω = 1": guidance.condition(small_net, classes),
    "ω = 1.5": guidance.classifier_free(small_net, classes, 1.5),
    "ω = 5": pushed,
    **{f"ω = 5 on [{a:g}, {b:g}]": on_an_interval(small_net, classes, 5.0, a, b)
       for a, b in [(0.0, 0.5), (0.3, 0.8), (0.5, 1.0)]},
    "ω = 5, clipped at every step": guidance.clip(pushed),
}  # fmt: skip

# %% tags=["L19-16", "DS-66"]
cured, cost = {}, {}
for name, guided in remedies.items():
    before = small_net.asked
    images = last(ddim(guided, noise_of(300, levels), levels))
    cured[name], cost[name] = measured(images, classes), (small_net.asked - before) / 300
    if guided is pushed:
        name = "ω = 5, clamped at the end"
        cured[name], cost[name] = measured(images.clamp(-1, 1), classes), cost["ω = 5"]

# %% tags=["L19-16", "DS-66"]
keys = ("recognised", "saturated", "diversity", "distance")
rows = [[n, *(f"{m[key]:.2f}" for key in keys), f"{cost[n]:g}"] for n, m in cured.items()]
caption = "Remedies on digits: 300 images, 20 steps, the same noise"
plots.table(rows, header=["", *keys, "evaluations"], caption=caption)

# %% tags=["L19-16", "DS-66", "check"]
far = {name: found["distance"] for name, found in cured.items()}
early, late = far["ω = 5 on [0.5, 1]"], far["ω = 5 on [0, 0.5]"]
print(
    f"ω = 5 everywhere {far['ω = 5']:.2f}: in the cleaner half {late:.2f}, the noisier {early:.2f}"
)
assert late < far["ω = 5 on [0.3, 0.8]"] < early
assert far["ω = 5"] > far["ω = 5, clamped at the end"] > far["ω = 5, clipped at every step"]
assert min(far, key=far.get) == "ω = 1"
assert far["ω = 1.5"] < late
assert cured["ω = 5 on [0.5, 1]"]["diversity"] < cured["ω = 5 on [0, 0.5]"]["diversity"] - 0.1

# %% [markdown]
# Against ω = 5 *everywhere*: on these digits the push does its harm in the noisier half, and takes
# diversity with it (saturation alone would have raised that number); in the cleaner half it costs three
# quarters of the price. A clamp undoes what saturation does to the distance, more of it if done at every
# step, before the network has to look at it. But all rows read as well, and ω = 1.5 everywhere is nearer
# to the data than any remedy: they are for those who want the strong push (the interval is cheaper, and
# more diverse). None comes nearer than ω = 1, nor did 1.25 in section 8. For ImageNet, by FID, Ho &
# Salimans find ω = 1.1 to 1.3 best, Kynkäänniemi et al. a middle interval: measure. Interval and clamp
# are in the menu of section 7: look again.

# %% [markdown] tags=["L6-62", "formula"]
# ## 10. The learned difference is not exactly a gradient
#
# **Story.** Section 4 found a classifier inside two *exact* readings. Is there one inside the network?
# A gradient field has a symmetric Jacobian (second derivatives commute), so we measure (L6-62)
#
# $$\frac{\lVert J-J^\top\rVert}{\lVert J\rVert},\qquad J=\frac{\partial(\epsilon_c-\epsilon_u)}{\partial x_t}$$
#
# for five unseen digits at two noise levels, beside the network's $\epsilon_u$ alone. Half of $J-J^\top$ is
# the *rotation* in $J$, what no gradient has; its share of $\lVert J\rVert^2$ is a quarter of our number
# squared. A true classifier tests the tool: the exact posterior of a mixture of the 898 digits seen, each
# with Gaussian noise of std 0.2, must give zero by construction.


# %% tags=["L6-62"]
def antisymmetry(field, x, *given):
    """|J - J^T| of a field (x (64,), ..) -> (64,), and by |J|: 0 for a gradient, 1.4 for noise."""
    J = torch.autograd.functional.jacobian(lambda x: field(x, *given), x)
    return torch.stack([(J - J.T).norm(), (J - J.T).norm() / J.norm()])


# %% tags=["L6-62"]
def no_label(x, denoiser, t, y):
    return denoiser(x.reshape(1, 1, 8, 8), t).eps.flatten()


def difference(x, denoiser, t, y):
    return denoiser(x.reshape(1, 1, 8, 8), t, y).eps.flatten() - no_label(x, denoiser, t, y)


def exact(x, mixture, t, y):
    log_prob = mixture.class_log_prob(x.reshape(1, 1, 8, 8), t)[0, y].sum()
    return torch.autograd.grad(log_prob, x, create_graph=True)[0]


# %% tags=["L6-62", "check"]
found = {}
for k in (200, 400):
    level = SCHEDULE.at(k)
    xts = (level.signal * unseen[:5] + level.noise * torch.randn(5, 1, 8, 8)).float().flatten(1)
    for field in (no_label, difference):
        pairs = zip(xts, unseen_labels[:5, None], strict=True)
        readings = [antisymmetry(field, x, denoiser, level, label) for x, label in pairs]
        found[k, field] = torch.stack(readings).T
        spans = [f"{numbers.min():.2f} to {numbers.max():.2f}" for numbers in found[k, field]]
        print(f"t = {k}, {field.__name__}: |J − Jᵀ| {spans[0]}, by |J| {spans[1]}")
    assert found[k, difference][1].min() > 2 * found[k, no_label][1].max()
    assert found[k, difference][0].mean() < found[k, no_label][0].mean()

# %% tags=["L6-62", "check"]
blurred = mixtures.Mixture(seen.double(), 0.2, labels=seen_labels)
one = xts[0].double().requires_grad_()
of_exact = antisymmetry(exact, one, blurred, level, unseen_labels[:1])[1]
print(f"a real classifier's gradient, t = 400: {of_exact:.6f}")
for k in (200, 400):
    rotation = (found[k, difference][1] / 2) ** 2
    print(f"rotation in the difference, t = {k}: {rotation.min():.0%} to {rotation.max():.0%}")
assert of_exact < 1e-6

# %% [markdown] tags=["L6-62"]
# So "an implicit classifier" is exact for exact scores and a manner of speaking for networks. The network
# makes the same kind of error in $\epsilon_u$, even a larger one; but there a large symmetric part stands
# beside it, much of which cancels in the difference, while much of the error stays.

# %% [markdown]
# # Part three: two pushes side by side
#
# ## 11. Same noise, two methods
#
# **Story.** Lesson 10 pushed with a separate classifier, this one pushes without. Which is better? We
# take MNIST, 28×28 pixels, one U-Net $D$ for both (lesson 09; it was trained with $p=0.1$, so it is the
# unconditional model too), and the noise-aware classifier $C$ of lesson 10:
#
# $$\text{classifier-free: }\;\epsilon_u+\omega\,(\epsilon_c-\epsilon_u)\qquad\qquad
# \text{classifier: }\;\epsilon_u-\omega\,\texttt{noise}\,\nabla_{x_t}\log p_C(y\mid x_t)$$
#
# If $D$ and $C$ were exact, the two would agree (section 4). The judge is a third network that takes no
# part in the guidance. All walks start at clock 0.99: the classifier's formula gives a new ε alone, and to
# get $x_0$ from it one divides by `signal`, which is 0 at clock 1.
#
# Two things make the sliders fast. `quick` lets a network compute in 16-bit numbers if your processor
# can. And $G$ is a *student* of $D$: it was taught to give in one call the answer that classifier-free
# guidance with $D$ gives in two. ω, from 0 to 10, is one of its inputs (Meng et al. 2023). So a step costs
# one call instead of two.
#
# The student is not exact. At ω = 0 it should ignore the label, and 10 % of its digits should be the one
# asked for, as of $D$'s. It is 17 %. At ω = 1 it is 96 %, where $D$ has 97 %, and at ω = 2 all (2,000
# images in seven steps, `make bench ONLY=mnist_slider_quality`).

# %% tags=["setup"]
torch.set_num_threads(cores)  # these networks are large enough to share the work
D, C = Counted(quick(weights.load("mnist"))), Counted(weights.load("mnist_classifier"))
G = Counted(quick(weights.load("mnist_guided")))


# %% tags=["setup"]
def by_classifier(denoiser, critic, y, omega):
    """The unconditional model, pushed by a separate classifier: lesson 10."""
    plain, wish = guidance.condition(denoiser, None), guidance.log_prob_of(critic, y)
    return guidance.classifier(plain, wish, omega)


pushes = {
    "classifier-free": partial(classifier_free, D),
    "classifier": partial(by_classifier, D, C),
}
learned = {"classifier-free in one call": partial(guidance.learned, G)}
halfway = {"classifier-free, cleaner half only": partial(on_an_interval, D)}
counted = {"denoiser": D, "classifier": C, "student": G}
every = learned | pushes | halfway
mnist = Playground(every, counted, partial(grid, SCHEDULE, start=0.99), omega=2.0)

# %% tags=["check"]
exact = {"exact": partial(classifier_free, weights.load("mnist"))}
plays = {"exact": Playground(exact, {}, mnist.levels)}
plays |= dict.fromkeys(["classifier-free", *learned], mnist)
ten = torch.arange(10)
drawn = [last(play.walk(name, ten, 2.0, 10, "DDIM", seed=0)) for name, play in plays.items()]
rounded, copied = ((images - drawn[0]).abs().mean() for images in drawn[1:])
print(f"16 bits move a pixel by {rounded:.4f} on average; from black to white it is 2")
cards = [weights.read_card(name)["quality"]["omega_1"] for name in ("mnist", "mnist_guided")]
shares = " and ".join(f"{card['recognised']:.1%}" for card in cards)
print(f"the student, in 16 bits, moves it by {copied:.4f}")
print(f"recognised at ω = 1 in 20 steps, from the cards of D and G: {shares}")
assert rounded < 2 / 2**8  # one of the 256 steps that 8 bits of precision tell apart
assert copied < 0.1 * drawn[0].std()

# %% [markdown] tags=["play"]
# **Play.** Predict first: at which ω do all sixteen digits read as they should, by the one method and
# by the other? Then change the method and nothing else. ("Cleaner half only" pushes in the second half
# of the walk; section 12 measures it.)

# %% tags=["play"]
explorer = mnist.explorer()
explorer.show(
    alt="Sixteen MNIST digits in two rows: whatever the noise suggests at ω = 0, the digits asked "
    "for from 1 or 2 on, with ever heavier strokes towards 8",
    still_over="omega",
    values=[0, 0.5, 1, 1.5, 2, 4, 8],
)

# %% tags=["play", "check"]
for method, omega in ((name, w) for name in pushes for w in (1.0, 2.0, 4.0)):
    explorer["method"].value, explorer["omega"].value = method, omega
    explorer.wait()
    print(f"ω = {omega:g}, {method}: {explorer.readout}")
assert explorer.readout.endswith("7 denoiser + 7 classifier")
explorer["method"].value, explorer["omega"].value = "classifier-free in one call", 2.0

# %% [markdown] tags=["play"]
# Classifier-free, all sixteen are right from ω = 1 on. With the classifier some are wrong even at 4, and
# their larger diversity is no merit. (At ω = 1 one call would do; the code always asks twice. A call of the
# classifier includes its gradient.)
#
# **Watch it happen.** Eight digits on their way, $x_t$ above and the expected $x_0$ below. When is it
# decided which digit it will be? Change the method: who decides earlier, and does the digit stay?

# %% tags=["play"]
mnist.trajectory().show(
    alt="Eight digits on their way. Above: pure noise out of which digits come forward. Below: the "
    "expected digits, blurred but readable from the first step on, then sharp",
    still_over="stop",
    values=list(range(8)),
)

# %% tags=["play", "check"]
fifty, told = torch.arange(50) % 10, {}
walks = {name: list(mnist.walk(name, fifty, 1.0, 10, "DDIM", seed=0)) for name in pushes}
for name, walk in walks.items():
    told[name] = [metrics.recognised(state.x0, fifty) for state in walk]
    shares = ", ".join(f"{told[name][k]:.0%} at {walk[k].t.clock:.2f}" for k in (0, 3, 6, 10))
    print(f"expected x0 recognised, ω = 1, {name}: {shares}")
assert told["classifier-free"][0] > 0.9
assert told["classifier"][0] > told["classifier"][-1] + 0.05

# %% [markdown]
# The label acts at once: of almost pure noise the expected $x_0$ is already the average picture of the
# digit asked for. The classifier's first push does nearly as much. On the way a few digits stop being
# read as asked with the label, and many with the classifier. Why these go astray is left open here.
#
# **Do they push alike?** Along the walk with the label we compare what the two methods add to
# $\epsilon_u$ at ω = 1: how long are the two vectors, and what is the cosine between them? Two random
# directions among 784 have a cosine of about ±0.04. Predict the first and the last row.


# %% tags=["L6-62", "check"]
def side_by_side(state, pushes, y):
    """Cosine between what two methods add at omega = 1 to no label, and the mean length of each."""
    plain = pushes[0](y, 0.0)(state.x, state.t).eps
    added = [(push(y, 1.0)(state.x, state.t).eps - plain).flatten(1) for push in pushes]
    lengths = [one.norm(dim=1).mean().item() for one in added]
    return torch.cosine_similarity(*added).mean().item(), *lengths


# %% tags=["L6-62", "check"]
walk = walks["classifier-free"][1:-1:2]
stops = [(s.t.clock, *side_by_side(s, list(pushes.values()), fifty)) for s in walk]
rows = [[f"{value:.2f}" for value in row] for row in stops]
header = ["clock", "cosine", "classifier-free", "classifier"]
plots.table(rows, header=header, caption="What both methods add to ε at ω = 1, fifty digits")
(_, near_noise, *first_pushes), *_, (_, near_data, *last_pushes) = stops
assert near_noise > 0.5 > near_data
assert first_pushes[1] > 0.5 * first_pushes[0]
assert last_pushes[1] < 0.3 * last_pushes[0]

# %% [markdown]
# At the noisiest level the two point much the same way and are about equally long. Near data they have
# little in common: the classifier hardly pushes any more, while the difference of the label stays. If $D$
# and $C$ were both exact, the two pushes would be equal at every level (section 4). They are not, so at
# least one network errs here; the table does not tell which. What is wrong in a push, a large ω multiplies.

# %% [markdown]
# ## 12. One table
#
# **Quality, cost and failure**, measured for both methods on the same hundred noises, ten of each class:
#
# - *recognised*: by the judge. *Fooled*: of the images that the classifier $C$ accepts, the share that
#   the judge rejects. $C$ steered the second method and is a mere bystander of the first.
# - *diversity*, *saturated*: as before, now beside all real images of MNIST.
# - *Fréchet*: distance of two Gaussians fitted to what the judge's last layer sees, the images' and that
#   of all real training images (Heusel et al. 2017 do the same with another network, and call it FID).
#   Of samples it is biased upwards, so it needs a floor: *real* images, as many.
# - *operations*: multiplications and additions per image, as torch counts them.

# %% tags=["L6-70", "E-17"]
from torch.utils.flop_counter import FlopCounterMode


def operations(run):
    """Multiplications and additions in matrix products and convolutions while run() runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


# %% tags=["L6-70", "E-17", "check"]
one, half = torch.randn(1, 1, 28, 28, requires_grad=True), SCHEDULE.at(500)
with torch.no_grad():
    D_once, C_once = (
        operations(lambda: D(one, half)),
        operations(lambda: C.class_log_prob(one, half)),
    )
kappa = {}
for frozen in (False, True):
    C.requires_grad_(not frozen)
    wanted = [one] if frozen else [one, *C.net.parameters()]
    work = operations(lambda w=wanted: torch.autograd.grad(C.class_log_prob(one, half)[0, 0], w))
    kappa[frozen] = work / C_once
print(f"a pass of D: {D_once / 1e6:.0f} million operations, of C: {C_once / 1e6:.0f} million")
print(
    f"a gradient of C: {kappa[True]:.1f} passes, "
    f"with the gradients of its weights {kappa[False]:.1f}"
)
assert abs(kappa[True] - 2) < 0.2 > abs(kappa[False] - 3)

# %% [markdown] tags=["L6-70", "E-17"]
# A gradient takes a pass forward and about as much work backward; if nobody has frozen the weights of
# the classifier, torch computes their gradients as well. We call this price κ: a gradient of $C$ costs κ
# passes of $C$, two if it is frozen, three if not.


# %% tags=["L6-70", "L6-72", "L19-17"]
def weigh(play, each, name, omega, n=100):
    """Quality, failure and price of a method at omega: n images of MNIST in 10 steps.

    each: operations of one evaluation of a counted model, {its name: number}.
    """
    y, before = torch.arange(n) % 10, {m: model.asked for m, model in play.counted.items()}
    images = last(play.walk(name, y, omega, 10, "DDIM", seed=0))
    asked = {m: model.asked - before[m] for m, model in play.counted.items()}
    clean = DDPMSchedule().at(0)
    accepted = play.counted["classifier"].class_log_prob(images, clean).argmax(1) == y
    return {
        "recognised": metrics.recognised(images, y),
        "fooled": 1 - metrics.recognised(images[accepted], y[accepted]),
        "diversity": metrics.diversity(images, y),
        "saturated": saturation(images),
        "Fréchet": metrics.frechet(images),
        "operations": sum(times * each[m] for m, times in asked.items()) / n,
    }


# %% tags=["L6-70", "L6-72", "L19-17"]
each = {"denoiser": D_once, "classifier": kappa[True] * C_once, "student": D_once}
scales, (cleaner_half,), (one_call,) = (1.0, 2.0, 4.0, 8.0), halfway, learned
unasked = weigh(mnist, each, "classifier-free", 0.0)
late_push = weigh(mnist, each, cleaner_half, 4.0)
by_student = weigh(mnist, each, one_call, 2.0)
weighed = {name: {w: weigh(mnist, each, name, w) for w in scales} for name in pushes}


# %% tags=["L6-70", "L6-72", "L19-17"]
def row_of(name, omega, found):
    """A row of the table; the operations in thousands of millions."""
    *quality, operations = found.values()
    return [name, omega, *(f"{value:.2f}" for value in quality), f"{operations / 1e9:.2f}"]


floor = weights.read_card("mnist_judge")["quality"]
few, many = floor["hundreds"], floor["two_thousands"]
rows = [row_of("no label", "0", unasked)]
rows += [row_of(n, f"{w:g}", found) for n, curve in weighed.items() for w, found in curve.items()]
rows.insert(5, row_of("… cleaner half only", "4", late_push))
rows.insert(6, row_of("… in one call", "2", by_student))
rows.append(
    ["real, a hundred", "", "", "", "1", "0", f"{few['frechet']:.2f} ± {few['std']:.2f}", ""]
)
header = ["method", "ω", *list(unasked)[:-1], "operations, 10⁹"]
caption = "100 images of MNIST, 10 steps, one noise (at ω = 0 and 1 one question would do: half)"
plots.table(rows, header=header, caption=caption)

# %% tags=["L6-70", "L6-72", "L19-17", "check"]
free, steered = weighed.values()
assert free[2.0]["recognised"] > 0.95
assert free[1.0]["recognised"] > steered[1.0]["recognised"] + 0.05
assert steered[4.0]["recognised"] > steered[1.0]["recognised"] + 0.05
assert steered[1.0]["fooled"] > free[1.0]["fooled"]
assert free[8.0]["saturated"] > 2 * steered[8.0]["saturated"]
assert all(curve[8.0]["diversity"] < curve[1.0]["diversity"] - 0.1 for curve in weighed.values())
assert late_push["diversity"] > free[4.0]["diversity"] + 0.1
assert by_student["recognised"] > free[2.0]["recognised"] - 0.05
cheaper = free[2.0]["operations"] / steered[2.0]["operations"]
print(f"classifier-free guidance takes {cheaper:.2f} times the operations")

# %% tags=["L6-70", "L6-72", "L19-17", "check"]
first = {n: min(w for w in scales if c[w]["recognised"] >= 0.9) for n, c in weighed.items()}
equal = {n: weighed[n][w] for n, w in first.items()}
for n, found in equal.items():
    shown = ", ".join(f"{key} {found[key]:.2f}" for key in ("diversity", "fooled", "Fréchet"))
    print(f"{n}: 90 % recognised from ω = {first[n]:g} on, {shown}")
gap = abs(equal["classifier-free"]["diversity"] - equal["classifier"]["diversity"])
assert gap < 0.5 * (free[1.0]["diversity"] - free[8.0]["diversity"])

as_narrow = min(scales, key=lambda w: abs(free[w]["diversity"] - steered[8.0]["diversity"]))
narrow = {"classifier-free": free[as_narrow], "classifier": steered[8.0]}
for (n, found), w in zip(narrow.items(), (as_narrow, 8.0), strict=True):
    print(f"{n}, ω = {w:g}: diversity {found['diversity']:.2f}, saturated {found['saturated']:.2f}")
dirt = [found["saturated"] for found in narrow.values()]
assert abs(dirt[0] - dirt[1]) < 0.5 * (free[8.0]["saturated"] - dirt[1])

# %%
figure, axes = plots.panels(2, 2, (3.8, 2.4))
for key, ax in zip(["recognised", "diversity", "saturated", "Fréchet"], axes, strict=True):
    curves = {name: (scales, [curve[w][key] for w in scales]) for name, curve in weighed.items()}
    plots.lines(curves, xlabel="scale ω", ylabel=key, ax=ax)
axes[3].axhspan(
    few["frechet"] - few["std"], few["frechet"] + few["std"], color="#0072B2", alpha=0.15
)
axes[3].set_yscale("log")
axes[3].set_yticks([0.3, 1, 3], ["0.3", "1", "3"])
axes[3].minorticks_off()
plots.show(
    figure,
    alt="Over omega: at each ω classifier-free guidance is recognised more, and less diverse, than "
    "the classifier's; at 8 it saturates far more. By Fréchet it starts near real images and leads "
    "away from them, the classifier starts far from them and comes near",
    caption="A hundred images each. The band: a hundred real images, give or take a standard "
    "deviation.",
)

# %%
chosen = [(name, omega) for omega in (2.0, 8.0) for name in pushes]
ten = torch.arange(10)
drawn = [last(mnist.walk(name, ten, omega, 10, "DDIM", seed=0)) for name, omega in chosen]
plots.show(
    plots.images(torch.cat(drawn), 10, rows=[f"{n}, ω = {w:g}" for n, w in chosen], scale=2),
    alt="Four rows of ten digits from the same noises. At ω = 2 most are those asked for, the "
    "classifier's thinner, some misshapen; at 8 the classifier-free ones are the boldest",
    caption="The same ten noises in each row.",
)

# %% [markdown] tags=["E-16", "DS-66"]
# **What it says.** (1) *The same ω is not the same push*, although the formulas agree for exact models.
# Compare methods at equal recognition, or equal diversity, not at equal ω. (2) At equal ω they *fail*
# differently: at ω = 1 the classifier's push is too weak, and fewer digits are what was asked; at 8 the
# difference of two readings saturates. At equal recognition a hundred images hardly tell their diversity
# apart: see the lines printed under the table. (3) Which is cheaper depends on the size of $C$; here it is
# the classifier (E-17). (4) The cleaner half alone keeps the diversity that ω = 4 everywhere takes away, and
# asks twice in half of the steps only; whether it costs recognition stands in its row.
#
# **A hundred images see little**: several rows lie within the band of real ones, or below it. Two thousand, here in
# twice the steps, see more. They take minutes, so they were measured when the weights were made
# (`python -m didiff train mnist` prints them at its end) and are read from the model's card. Predict:
# which ω is nearest to the real images, and how near?

# %% tags=["DS-66", "check"]
quality = weights.read_card("mnist")["quality"]
curve = {at.removeprefix("omega_").replace("_eta_", ", η = "): quality[at] for at in quality}
rows = [[at, *(f"{value:.3f}" for value in found.values())] for at, found in curve.items()]
real_ones = f"{many['frechet']:.3f} ± {many['std']:.3f}"
rows.append(["real", f"{floor['test']['accuracy']:.3f}", "1", real_ones])
header = ["ω", "recognised", "diversity", "Fréchet"]
plots.table(rows, header=header, caption="2,000 images, classifier-free, 20 steps of DDIM")
far = {at: found["frechet"] for at, found in curve.items()}
limit = many["frechet"] + 4 * many["std"]
for at in (at for at in far if far[at] < limit):
    print(f"ω = {at}: Fréchet {far[at]:.3f}, no more than {limit:.3f}")
assert far["1"] < limit < far["4"] < far["8"]
assert far["2"] < far["4"]
assert far["1.1"] < far["1"]

# %% [markdown] tags=["DS-66", "L19-17"]
# The last row is the *floor*: two thousand images of the test set, like all others held against the training
# set. The scales printed last are no further from it than that, give or take four standard deviations. To be
# nearer is no feat: the network has learnt from those very images, and the test set was written by other hands.
# The nearest scale lies just above 1: a push of a tenth puts right many a digit that came out as another one,
# before it costs much diversity. (Every class counts alike in this distance, so make as many of each. MNIST has
# more ones than fives, and that mix alone would be a distance.)
# The judge may tell such samples from real digits all the same, so look at its share as well: one number never
# suffices. A strong push leads away from the data, while the share recognised, long since full, has nothing more
# to say. (With η = 1 every step redraws its noise (lesson 07). In as few as twenty steps that alone works like a
# small push: more is recognised, diversity falls, and the images come as near.)

# %% [markdown] tags=["L6-70", "L19-17", "E-17"]
# ## 13. The lectures' tables, line by line
#
# Two slides compare both guidances (L6-70, L19-17): the classifier's is slower and more complex,
# classifier-free costs a second pass and needs retraining; it won because it is one model, aware of
# noise by construction, cleaner, harder to fool, honest to the data. **Predict** which of these nine
# claims our numbers bear out. One number is still missing: how much does it matter that a classifier has
# seen noise? We have one trained with noise and one without, both tested on 10,000 real images
# (lesson 10 looks at their gradients).

# %% tags=["L19-17", "check"]
cards = [weights.read_card(name) for name in ("mnist_clean", "mnist_classifier")]
clean, aware = (card["quality"]["clock_0.75"]["accuracy"] for card in cards)
print(f"at clock 0.75 a classifier that never saw noise reads {clean:.0%}, ours {aware:.0%}")
assert clean < 0.4 < 0.7 < aware

# %% tags=["L6-70", "L19-17", "E-17"]
fooled = [found["fooled"] for found in equal.values()]
error = (sum(share * (1 - share) for share in fooled) / 100) ** 0.5  # of their difference
harder = fooled[1] - fooled[0] > 4 * error
size, more = (sum(w.numel() for w in model.net.parameters()) / 1e6 for model in (D, C))

# %% tags=["L6-70", "L19-17", "E-17"]
rows = [
    ["the classifier is slower", f"{1 / cheaper:.2f} times the operations", "not this one (E-17)"],
    ["… and more complex", f"{size:.2f} + {more:.2f} million weights", "yes"],
    ["classifier-free: a second pass", "2 D a step, not D", "yes"],
    ["… needs retraining", f"no-label loss at p = 0: {never[4]:.2f}, at 0.1: {tenth[4]:.2f}",
     "yes, mildly here (section 6)"],
    ["… is one model", f"{size:.2f} million weights", "yes"],
    ["… is aware of noise", f"a clean C reads {clean:.0%}, ours {aware:.0%}", "and so is our C"],
    ["… is cleaner", f"saturated at equal diversity: {dirt[0]:.1%}, classifier {dirt[1]:.1%}",
     "yes" if dirt[0] < dirt[1] - 0.01 else "not so"],
    ["… is harder to fool", f"fooled at 90 % read: {fooled[0]:.0%}, classifier {fooled[1]:.0%}",
     "yes" if harder else "not told apart by 100 images"],
    ["… is honest to data", f"Fréchet {far['1']:.2f} at ω = 1, {far['8']:.2f} at 8",
     "at small ω"],
]  # fmt: skip
header = ["the lectures say (L6-70, L19-17)", "we measured", "so"]
plots.table(rows, header=header, caption="Nine claims and what became of them")

# %% [markdown] tags=["L6-70", "E-17"]
# "Slower" is a question of size (E-17). Per step, in passes of the denoiser $D$ and of the classifier
# $C$:
#
# $$\text{classifier-free: } 2D\qquad\qquad \text{classifier: } D + \kappa\,C$$
#
# So classifier guidance is the *cheaper* one as long as a pass of $C$ costs less than half (κ = 2) or a
# third (κ = 3) of one of $D$. (Operations are not time.) And "retraining" need not start from nothing: ∅
# may be learnt in a short fine-tuning.

# %% [markdown] tags=["exercise"]
# **Exercise 3.** A denoiser has 860 million parameters, a noise-aware classifier 54 million, and costs
# go with parameters. Which guidance is cheaper per step, and by what factor? At which classifier size
# do they break even, frozen and not?
#
# <details><summary>Answer</summary>
#
# Classifier-free: 1720. Classifier, frozen: 860 + 2 · 54 = 968, cheaper by 1.8; not frozen:
# 860 + 3 · 54 = 1022, by 1.7. They break even at 430 million (κ = 2), or 287 million (κ = 3).
#
# </details>

# %% [markdown] tags=["exercise"]
# **Exercise 4.** Nobody forbids both. Push the *conditional* model with the classifier at ω = 1: a label
# for the network, and a gradient on top. If all were exact, which ω of classifier-free guidance would
# that be? Prove it on the ring, then weigh a hundred digits of MNIST.
#
# <details><summary>Answer</summary>
#
# ω = 2: the label brings $\log p(y\mid x_t)$ once, the classifier once more. On MNIST it costs a gradient
# of $C$ where classifier-free guidance pays a pass of $D$.
#
# </details>


# %% tags=["solution"]
def both(denoiser, critic, y, omega):
    wish = guidance.log_prob_of(critic, y)
    return guidance.classifier(guidance.condition(denoiser, y), wish, omega)


# %% tags=["solution", "check"]
off = (
    both(ring, ring, 1, 1.0)(x, t).eps
    - classifier_free(ring, torch.ones(1000).long(), 2.0)(x, t).eps
)
print(f"on the ring: {off.abs().max():.10f} away from ω = 2")
assert off.abs().max() < 1e-10
together = Playground({"both": partial(both, D, C)}, counted, mnist.levels)
mixed = weigh(together, each, "both", 1.0)
print(", ".join(f"{name} {value:.2f}" for name, value in mixed.items() if name != "operations"))
assert mixed["recognised"] > free[2.0]["recognised"] - 0.05
assert mixed["operations"] < free[2.0]["operations"]

# %% [markdown] tags=["L6-72"]
# **When to use which** (L6-72)? Cover the second column and choose yourself.

# %% tags=["L6-72"]
digits, w, little = cured, 4.0, curve["1.5"]
far_digits = digits["ω = 1.5"]["distance"]
rows = [
    ["labels, and the data as they are", "the label alone, ω = 1",
     f"half the price, nearest to the data ({digits['ω = 1']['distance']:.2f}, digits)"],
    ["labels or text, and obedience", "classifier-free, ω a little above 1",
     f"MNIST, ω = 1.5: {little['recognised']:.1%} recognised, Fréchet {little['frechet']:.2f}"],
    ["… and a strong push", "in the cleaner half, or clipped",
     f"distance {digits['ω = 5']['distance']:.2f} → "
     f"{digits['ω = 5 on [0, 0.5]']['distance']:.2f}, digits (ω = 1.5: {far_digits:.2f})"],
    ["a model that you cannot train", "a noise-aware classifier",
     f"{steered[w]['recognised']:.0%} at ω = {w:g}, {more:.2f} million weights to train"],
    ["… and only a classifier of clean images", "neither as it is (lesson 10)",
     f"it reads {clean:.0%} at clock 0.75"],
]  # fmt: skip
header = ["you have, and want", "take", "because"]
plots.table(rows, header=header, caption="A decision table out of our own numbers")

# %% [markdown] tags=["L6-71", "L19-12", "E-19"]
# **Who uses it?** (L6-71, L19-12, E-19; facts as published up to the end of 2024.) Classifier-free
# guidance was first shown at a NeurIPS workshop in December 2021; the arXiv paper is of July 2022.
# GLIDE (December 2021), DALL·E 2 (April 2022), Imagen (May 2022) and Stable Diffusion (August 2022)
# use it. "Powers DALL·E" is wrong for the first DALL·E (2021), an autoregressive model of image
# tokens. Midjourney does not publish its internals. And distilled models (Meng et al. 2023; LCM and
# SDXL-Turbo, 2023) sample without the second pass. "Dominates" was a fair word for 2022 and 2023, not a
# theorem.

# %% [markdown] tags=["T-17", "T-18", "T-19"]
# ## 14. Bug museum
#
# **Three coins.** One coin for the whole batch (T-17). A programmer in a hurry who saves the extra row
# and lets 0 mean "no label" (T-18). And the label never dropped (T-19). Each tiny network writes eight
# zeros and then 1 to 8, at ω = 3; the eye counts whether the zeros are zeros. *Predict:* whom does it
# catch?

# %% tags=["T-17", "T-18", "T-19"]
from collections.abc import Callable
from typing import NamedTuple

torch.set_num_threads(1)  # small networks again


class Coin(NamedTuple):
    """How labels are dropped, the network taught so, and what sampling takes for "no label"."""

    drop: Callable
    model: Denoiser
    null: int = NO_LABEL


def one_for_all(y, p=0.1):
    return drop_labels(y, 1.0) if torch.rand(()) < p else y


def into_zero(y, p=0.1):
    return drop_labels(y, p).clamp(min=0)


# %% tags=["T-17", "T-18", "T-19"]
def taught(coin, n=1000):
    """n batches of 256 labels, before the coin and after it."""
    y = torch.randint(10, (n, 256))
    return y, torch.stack([coin.drop(batch) for batch in y])


def spread_of_changes(coin):
    before, after = taught(coin)
    return (before != after).double().mean(1).std()


def share_of_zeros(coin):
    return (taught(coin)[1] == 0).double().mean()


def null_row_learnt(coin):
    """1 if training changed the row of "no label", else 0."""
    torch.manual_seed(0)
    fresh = MLP((1, 8, 8), 96, 2, classes=10)  # what `train` began with
    before, after = (net.embedding.label.weight[coin.null + 1] for net in (fresh, coin.model.net))
    return float((after - before).abs().max() > 1e-6)


def zeros_read(coin):
    return metrics.recognised(sample(coin.model, torch.zeros(50).long(), 3.0, coin.null), 0)


# %% tags=["T-17", "T-18", "T-19", "check"]
coins = museum.inspect(
    {
        "right": Coin(partial(drop_labels, p=0.1), tiny[0.1]),
        "T-17: one coin per batch": Coin(one_for_all, small(one_for_all)),
        "T-18: ∅ is class 0": Coin(into_zero, small(into_zero), null=0),
        "T-19: p = 0": Coin(partial(drop_labels, p=0.0), tiny[0.0]),
    },
    eye={"zeros read": Check(zeros_read, wanted=1, slack=0.1)},
    units={
        "spread": Check(spread_of_changes, wanted=(0.1 * 0.9 / 256) ** 0.5, slack=0.0017),
        "zeros": Check(share_of_zeros, wanted=0.09, slack=0.0023),
        "∅ learnt": Check(null_row_learnt, wanted=1),
    },
)
assert [coin.visible for coin in coins] == [False, False, True, False]

# %% tags=["T-17", "T-18", "T-19"]
eight_zeros = (torch.arange(16) - 7).clamp(min=0)
museum.show(
    coins,
    caption="Above: eight zeros and 1 to 8, ω = 3. Below: share of fifty zeros that are read as "
    "such; spread of the share of labels that change, share of zeros taught, whether the row of ∅ "
    "learnt.",
    draw=lambda one, ax: plots.images(
        sample(one.version.model, eight_zeros, 3.0, one.version.null), columns=4, ax=ax
    ),
    alt="Four sheets of sixteen digits. Three look alike: eight zeros, then 1 to 8. Where ∅ is "
    "class 0 the first eight are grey and blurred, some like zeros, some not.",
)

# %% [markdown] tags=["T-17", "T-18", "T-19"]
# Only ∅ merged with class 0 is seen, and only by somebody who asks for zeros: half of what was labelled
# zero was arbitrary, and guidance has nothing to push away from there, $\epsilon_c=\epsilon_u$. The other
# two **look fine** to the eye, which sees no difference from the right one after its 300 steps; a unit check of
# one line sees each. (What it means for guidance if ∅ is never taught, section 6 measured.)

# %% [markdown] tags=["T-08", "T-14"]
# **Three formulas.** The two conventions mixed up, the two terms swapped (T-14), and the sign of the
# difference flipped (T-08), as if ε pointed *towards* the data. All are asked for 0 to 9 at ω = 3.


# %% tags=["T-08", "T-14"]
def guided_by(formula, denoiser, y, omega):
    """The guided denoiser of a formula (u, c, omega) for one number."""

    def guided(x, t):
        pairs = zip(denoiser(x, t), denoiser(x, t, y), strict=True)
        return Prediction(*(formula(u, c, omega) for u, c in pairs))

    return guided


def asked_for(formula, n, denoiser=denoiser, levels=levels):
    """n digits, 0 to 9 in turn, guided by the formula at omega = 3."""
    guided = guided_by(formula, denoiser, torch.arange(n) % 10, 3.0)
    return last(ddim(guided, noise_of(n, levels), levels))


# %% tags=["T-08", "T-14", "check"]
formulas = museum.inspect(
    {
        "right": lambda u, c, omega: u + omega * (c - u),
        "T-14: the lecture's ω": lambda u, c, omega: (1 + omega) * c - omega * u,
        "T-14: terms swapped": lambda u, c, omega: c + omega * (u - c),
        "T-08: sign flipped": lambda u, c, omega: u - omega * (c - u),
    },
    eye={"read": Check(lambda f: metrics.recognised(asked_for(f, 100), classes[:100]), 1, 0.05)},
    units={
        "ω = 1": Check(lambda f: (f(uncond.eps, cond.eps, 1.0) - cond.eps).abs().max(), wanted=0),
        "ω = 0": Check(lambda f: (f(uncond.eps, cond.eps, 0.0) - uncond.eps).abs().max(), wanted=0),
    },
)
assert [formula.visible for formula in formulas] == [False, False, True, True]

# %% tags=["T-08", "T-14"]
museum.show(
    formulas,
    caption="Above: asked for 0 to 9 and 0 to 5. Below: share of a hundred that is read; how far "
    "from ε_c at ω = 1, and from ε_u at ω = 0, on the ring of section 1.",
    draw=lambda one, ax: plots.images(asked_for(one.version, 16), columns=4, ax=ax),
    alt="Four sheets of sixteen digits. The first two show 0 to 9 in turn, the second a little "
    "bolder; the last two hold digits that nobody asked for, or none.",
)

# %% [markdown] tags=["T-08", "T-14"]
# With the lecture's formula ω = 3 is our 4: **its samples look fine**, and no picture will tell. Test a
# guidance where its meaning is fixed: at 1 and at 0.
#
# **Two clamps.** Clipping $x_0$ is right for images, which end at ±1, and wrong for data without bounds
# (T-22), such as latents, or N(1, 0.5²) here. Or one clamps and forgets to recompute ε, and the pair no
# longer explains $x_t$.


# %% tags=["T-22"]
def forgot_eps(denoiser):
    return lambda x, t: denoiser(x, t)._replace(x0=denoiser(x, t).x0.clamp(-1, 1))


def ends(clamp, n=4000):
    """Samples (n,) of N(1, 0.5²) by 100 steps of DDIM with a clamp, denoiser -> denoiser."""
    levels = grid(DDPMSchedule(), 100)
    return last(ddim(clamp(mixtures.gaussian()), noise_of(n, levels, (1,)).double(), levels))


def at_step_400(clamp, n=4000):
    """x_t of n points, and what the clamped denoiser makes of them."""
    gaussian, t = mixtures.gaussian(), DDPMSchedule().at(400)
    xt = t.signal * gaussian.sample(n)[0] + t.noise * torch.randn(n, 1, dtype=torch.float64)
    guess = clamp(gaussian)(xt, t)
    return xt, t.signal * guess.x0 + t.noise * guess.eps, guess.x0.mean()


# %% tags=["T-22", "check"]
clamps = museum.inspect(
    {
        "right: unbounded data": lambda denoiser: denoiser,
        "T-22: clipped": guidance.clip,
        "T-22: clipped, ε kept": forgot_eps,
    },
    eye={"mean": Check(lambda clamp: ends(clamp).mean(), wanted=1, slack=4 * 0.5 / 4000**0.5)},
    units={
        "E[x0]": Check(lambda clamp: at_step_400(clamp)[2], wanted=1, slack=4 * 0.5 / 4000**0.5),
        "pair": Check(lambda clamp: (torch.sub(*at_step_400(clamp)[:2])).abs().max(), wanted=0),
    },
)
museum.show(
    clamps, caption="N(1, 0.5²). Pair: how far signal · x0 + noise · ε is from x_t, at most"
)
torch.set_num_threads(cores)  # for whoever goes back to the sliders of MNIST

# %% [markdown] tags=["T-22"]
# Clipping costs a fifth of the mean: $\mathbb E\min(x,1)=1-0.5/\sqrt{2\pi}\approx0.80$. The forgotten ε does
# no further harm *here*, as what is clamped ends at 1 either way: only the unit check sees it.

# %% [markdown]
# ## What we learned
#
# - Guidance is one straight line through two predictions: 0 ignores the label, 1 is Bayes, more
#   pushes past it. Check which ruler a paper uses.
# - With exact scores it *is* classifier guidance; with a network the difference is not exactly a
#   gradient, and the same ω is not the same push.
# - Apart from ω = 0 and 1 in general no diffused law belongs to it: samplers disagree; name yours.
# - Training needs one line, one coin per sample. Sampling costs two passes, where one would do at 0 and 1
#   and outside an interval.
# - More ω, beyond 1, buys recognition and pays with distance from the data, saturation, and diversity (seen on the
#   line and on MNIST; on the small digits saturation hides it). A push in the cleaner half alone costs
#   less than the same push everywhere; a small ω may do as well.
# - A separate classifier is cheaper if it is small, and asks nothing of the model. Compare the two at
#   equal recognition, not at equal ω.
#
# ## References
#
# - Ho & Salimans 2022, *Classifier-free diffusion guidance*, eq. 6, alg. 1 and 2, tables 1 and 2.
# - Dhariwal & Nichol 2021, *Diffusion models beat GANs on image synthesis*, sec. 4, alg. 2.
# - Saharia et al. 2022 (Imagen), sec. 2.2–2.3: our convention; saturation at high scales.
# - Bradley & Nakkiran 2024, *Classifier-free guidance is a predictor-corrector*: no diffused law.
# - Kynkäänniemi et al. 2024, *Applying guidance in a limited interval*, eq. 5.
# - Heusel et al. 2017, *GANs trained by a two time-scale update rule*, eq. 6: the Fréchet distance.
# - Meng et al. 2023, *On distillation of guided diffusion models*, sec. 3.
#
# **Where next.** Lesson 12 takes both to larger pictures on a GPU, lesson 13 to words.
