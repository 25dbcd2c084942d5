"""Sinkhorn in log space."""

import torch

from mvf.losses.dtw import sinkhorn


def example(rows=(3, 5), columns=(4, 2), size=(5, 4)):
    """Log kernels of two pairs, and their real cells."""
    log_kernel = 3 * torch.randn(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.zeros(2, *size, dtype=torch.bool)
    for pair, (n, m) in enumerate(zip(rows, columns)):
        real[pair, :n, :m] = True
    return log_kernel, real


def naive(kernel, rounds=21):
    """The scalings of one pair, outside log space."""
    n, m = kernel.shape
    u = torch.full((n,), 1 / n, dtype=kernel.dtype)
    for _ in range(rounds):
        v = (1 / m) / (kernel.T @ u)
        u = (1 / n) / (kernel @ v)
    return torch.diag(u) @ kernel @ torch.diag(v)


def test_equals_naive_scalings_of_each_pair():
    log_kernel, real = example()
    for rounds in (1, 21):
        plan = sinkhorn(log_kernel, real, rounds)
        for pair, (n, m) in enumerate(((3, 4), (5, 2))):
            wanted = naive(log_kernel[pair, :n, :m].exp(), rounds)
            torch.testing.assert_close(plan[pair, :n, :m], wanted, rtol=1e-10, atol=0)


def test_rows_sum_exactly_and_columns_nearly():
    log_kernel, real = example()
    plan = sinkhorn(log_kernel, real)
    rows, columns = real.any(2), real.any(1)
    torch.testing.assert_close(plan.sum(2), rows / rows.sum(1, keepdim=True).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(1), columns / columns.sum(1, keepdim=True).double(), rtol=0, atol=1e-2)


def test_padding_gets_nothing_and_changes_nothing():
    log_kernel, real = example()
    junk = torch.where(real, log_kernel, torch.inf).requires_grad_()
    plan = sinkhorn(junk, real)
    assert torch.equal(plan, sinkhorn(log_kernel, real)) and (plan[~real] == 0).all()
    (gradient,) = torch.autograd.grad(plan.square().sum(), junk)
    assert (gradient[~real] == 0).all() and gradient.isfinite().all()


def test_scaling_rows_of_the_kernel_changes_nothing_in_the_end():
    log_kernel, real = example((5, 5), (4, 4))
    shift = torch.randn(2, 5, 1, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(log_kernel + shift, real, 500), sinkhorn(log_kernel, real, 500))


def test_survives_kernels_that_overflow():
    log_kernel, real = example()
    assert sinkhorn(200 * log_kernel.float(), real).isfinite().all()


def test_gradient_equals_finite_differences():
    log_kernel, real = example()
    assert torch.autograd.gradcheck(lambda k: sinkhorn(k, real, 3), log_kernel.requires_grad_())
