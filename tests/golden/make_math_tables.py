#!/usr/bin/env python3
"""Prints the tables of kernels/cpu/vec/tables.h and gelu_tables.h, and what rounding them to f32 leaves of their accuracy.

    python3 tests/golden/make_math_tables.py

Truth: erfc of the C library up to 4 sqrt(2), the continued fraction of Laplace behind it. Polynomials are minimax in relative error, by
Lawson's iteration of weighted least squares.
"""

import math

import numpy as np


def lawson(basis, truth, weight, rounds=300):
    """Coefficients of the least largest weighted error, and that error."""
    share, size = np.ones(len(truth)), np.abs(basis).max(0)
    for _ in range(rounds):
        scale = np.sqrt(share) * weight
        c = np.linalg.lstsq(basis / size * scale[:, None], truth * scale, rcond=None)[0] / size
        error = np.abs((basis @ c - truth) * weight)
        share *= error + 1e-14
        share /= share.sum()
    return c, error.max()


def rounded_fit(basis, truth, weight):
    """The coefficients in f32, and the largest weighted error that they have as such."""
    rounded = lawson(basis, truth, weight, 120)[0].astype(np.float32)
    return rounded, np.abs((basis @ rounded.astype(np.float64) - truth) * weight).max()


def mills(t):
    """Q(t) e^(t^2 / 2), Q the tail of the normal distribution."""
    z = t / math.sqrt(2.0)
    if z < 4.0:
        return 0.5 * math.erfc(z) * math.exp(z * z)
    fraction = 0.0
    for k in range(200, 0, -1):
        fraction = k / 2.0 / (z + fraction)
    return 0.5 / math.sqrt(math.pi) / (z + fraction)


def tail(t):
    """Q(t)"""
    return 0.5 * math.erfc(t / math.sqrt(2.0))


def gelu_loss(t):
    return t * tail(t)


def gelu_slope_loss(t):
    return tail(t) - t * math.exp(-t * t / 2.0) / math.sqrt(2.0 * math.pi)


def rows_of(name, values):
    print(f"  alignas(64) static constexpr float {name}[{len(values)}] = {{")
    for i in range(0, len(values), 8):
        print("      " + ", ".join(f"{np.float32(v):.8e}F" for v in values[i : i + 8]) + ",")
    print("  };")


def main():
    grid = np.cos(np.linspace(0.0, math.pi, 4001))
    r = grid * math.log(2.0) / 32.0 * 1.0005
    c, error = lawson(np.stack([r, r**2, r**3], 1), np.expm1(r), np.exp(-r))
    print("e^r - 1 = r (" + " + ".join(f"{np.float32(v):.8e} r^{k}" for k, v in enumerate(c)) + f"), error {error:.1e}")
    roots = 2.0 ** (np.arange(16) / 16.0)
    rounded = roots.astype(np.float32)
    rows_of("kRoots", rounded)
    rows_of("kRootErrors", (roots - rounded) / rounded)
    step = math.log(2.0) / 32.0  # 1 + r is too low by that much of e^r at most
    rows_of("kRaisedRoots", roots * (1.0 + (1.0 - (1.0 + step) * math.exp(-step)) / 2.0))

    # By the exponent and three bits of the mantissa of v = 1 + t, whose lowest five bits count from v = 2 on.
    coefficients, worst = np.zeros((32, 5)), 0.0
    for i in range(32):
        octave, eighth = divmod(i, 8)
        width = 2.0**octave / 8.0
        s = (1.0 + grid) / 2.0 * width
        truth = np.array([mills(t) for t in 2.0**octave * (1.0 + eighth / 8.0) - 1.0 + s])
        basis = np.stack([s**k for k in range(5)], 1)
        coefficients[(i + 24) % 32], error = rounded_fit(basis, truth, 1.0 / truth)
        worst = max(worst, error)
    print(f"Mills' ratio / sqrt(2 pi), error {worst:.1e}")
    for k in range(5):
        rows_of(f"kMills{k}", coefficients[:, k])

    # Around the multiples of 3/16, by which one of them t is nearest to. The errors of the slope are seen beside the tail, where it is 0.
    width = 3.0 / 16.0
    for name, degree in (("", 6), ("Rough", 3)):
        for kind, function, scale in (("Loss", gelu_loss, gelu_loss), ("SlopeLoss", gelu_slope_loss, tail)):
            coefficients, worst = np.zeros((32, degree + 1)), 0.0
            for i in range(32):
                s = grid[::8] * width / 2.0 * 1.0005
                if i == 0:
                    s = np.abs(s[np.abs(s) > 1e-4])
                truth = np.array([function(i * width + x) for x in s])
                weight = 1.0 / np.array([max(abs(function(i * width + x)), scale(i * width + x)) for x in s])
                first = 1 if function(i * width) == 0.0 else 0
                basis = np.stack([s**k for k in range(first, degree + 1)], 1)
                coefficients[i, first:], error = rounded_fit(basis, truth, weight)
                worst = max(worst, error)
            print(f"{name}{kind} for t < {31.5 * width}, error {worst:.1e}")
            for k in range(degree + 1):
                rows_of(f"k{name}{kind}{k}", coefficients[:, k])


if __name__ == "__main__":
    main()
