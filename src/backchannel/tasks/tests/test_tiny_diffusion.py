"""The tiny diffusion model: densities by hand, and samples that are those of the mixture."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the tiny diffusion model needs torch")

from backchannel.tasks import tiny_diffusion as d  # noqa: E402


class _Known(d.Denoiser):
    """Tells the noise exactly where all data are the point (1, 0)."""

    def forward(self, points, times):
        left = d.LEFT[times][:, None]
        return (points - left.sqrt() * torch.tensor([[1.0, 0.0]])) / (1 - left).sqrt()


def test_noise_that_is_known_leads_back_to_the_point():
    model, rng = _Known(), torch.Generator().manual_seed(0)
    points = d.sample(model, 500, rng)
    # The last step has the standard deviation 0.02: 6 of them, 1,000 numbers, 2e-6.
    assert float((points - torch.tensor([1.0, 0.0])).abs().max()) < 0.12


def test_a_step_back_is_the_posterior_of_the_noise_that_was_added():
    # By Bayes: x_{t-1} given x_t and x_0 is Gaussian; precisions add up.
    t, start, point = 7, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.3, -0.2]])
    mean, spread = d.backward(_Known(), point, torch.tensor([t]))
    now, before = float(d.LEFT[t]), float(d.LEFT[t - 1])
    step = now / before
    precision = 1 / (1 - before) + step / (1 - step)
    expected = (math.sqrt(before) / (1 - before) * start + math.sqrt(step) / (1 - step) * point) / precision
    torch.testing.assert_close(mean, expected)
    assert float(spread) == pytest.approx(precision**-0.5, rel=1e-5)


def test_densities_are_those_of_the_steps():
    model, rng = d.Denoiser(), torch.Generator().manual_seed(1)
    path = d.chains(model, 3, rng)
    assert path.shape == (3, d.TIMES + 1, 2)
    found = d.log_densities(model, path)
    for t in (d.TIMES, 5, 1):
        mean, spread = d.backward(model, path[:, d.TIMES - t], torch.full((3,), t))
        by_hand = torch.distributions.Normal(mean, spread).log_prob(path[:, d.TIMES - t + 1]).sum(1)
        torch.testing.assert_close(found[:, d.TIMES - t], by_hand)


def test_training_brings_samples_to_the_data():
    rng = torch.Generator().manual_seed(2)
    model = d.Denoiser()
    data = d.mixture(4000, rng)
    off = [float((d.sample(model, 500, rng).norm(dim=1) - 1).abs().mean())]
    d.denoise(model, data, 300, 3e-3, seed=0)
    off.append(float((d.sample(model, 500, rng).norm(dim=1) - 1).abs().mean()))
    assert off[1] < 0.5 * off[0]
    assert float((data.norm(dim=1) - 1).abs().mean()) < 0.12
