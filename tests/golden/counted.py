"""Tensors as a function of their name: what tests/support/counted.h computes too, to the bit.

Element i of the tensor `name` is a sum of the four 16-bit quarters of splitmix64(fnv1a64(name) + i), shifted and scaled to mean 0 and variance 1: close to
normal, never beyond 3.47, and made of integers alone. Scales are those of trained models, by the role that the name tells.
"""
import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
UNIT = 1.0 / np.sqrt(4 * (65536.0**2 - 1) / 12)  # of the sum of four quarters
CHUNK = 1 << 22


def fnv1a64(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % (1 << 64)
    return np.uint64(h)


def bits(name, begin, end):
    """splitmix64 of the name's hash and the indices [begin, end)."""
    with np.errstate(over="ignore"):
        z = fnv1a64(name) + (np.arange(begin + 1, end + 1, dtype=np.uint64)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def normal(name, shape, scale=1.0, shift=0.0):
    """float32 of shift + scale * unit, computed in double."""
    count = int(np.prod(shape, dtype=np.int64))
    out = np.empty(count, dtype=np.float32)
    for begin in range(0, count, CHUNK):
        z = bits(name, begin, min(count, begin + CHUNK))
        total = sum(((z >> np.uint64(16 * k)) & np.uint64(0xFFFF)).astype(np.int64) for k in range(4)) - 2 * 65535
        out[begin:begin + len(z)] = shift + scale * (total.astype(np.float64) * UNIT)
    return out.reshape(shape)


def signs_dot(name, x):
    """The sum of x with signs from bit 63, in double: what a test compares instead of all of x."""
    flat = x.reshape(-1)
    total = 0.0
    for begin in range(0, flat.size, CHUNK):
        part = flat[begin:begin + CHUNK].astype(np.float64)
        minus = (bits(name, begin, begin + part.size) >> np.uint64(63)).astype(bool)
        total += part.sum() - 2.0 * part[minus].sum()
    return total


def weight(name, shape):
    """A parameter or running statistic, by its name in the checkpoint."""
    end = name.rsplit(".", 1)[-1]
    if name == "logit_scale":
        return np.full(shape, 2.65926, dtype=np.float32)
    if name == "logit_bias":
        return np.full(shape, -10.0, dtype=np.float32)
    if end == "running_var":
        return normal(name, shape, 0.25, 1.0)
    if end == "running_mean":
        return normal(name, shape, 0.1)
    if end == "bias" or name.endswith("in_proj_bias"):
        return normal(name, shape, 0.05)
    if "position" in name or "pos_embed" in name:
        return normal(name, shape, 0.05)
    if end in ("class_embedding", "latent", "probe"):
        return normal(name, shape, 0.5)
    if "token_embedding" in name:
        return normal(name, shape, 0.05)
    if len(shape) == 1:  # gains
        return normal(name, shape, 0.1, 1.0)
    if name in ("visual.proj", "text_projection", "text.text_projection"):
        return normal(name, shape, shape[0] ** -0.5)
    fan_in = int(np.prod(shape[1:], dtype=np.int64))
    return normal(name, shape, fan_in**-0.5)
