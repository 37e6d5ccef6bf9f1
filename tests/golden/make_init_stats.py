"""What open_clip's initialisation gives, parameter by parameter: the rule, and one measured draw that is checked against it.

Run: python3 tests/golden/make_init_stats.py      (writes tests/golden/data/init_stats.json, a few seconds)
"""
import math

from open_clip.model import CLIP

import golden

TEXT = {"context_length": 77, "vocab_size": 512, "width": 128, "heads": 2, "layers": 3}
CASES = {
    "vit": {"embed_dim": 96, "vision_cfg": {"image_size": 224, "patch_size": 32, "width": 192, "layers": 2}, "text_cfg": TEXT},
    "resnet": {"embed_dim": 64, "vision_cfg": {"image_size": 64, "layers": [2, 1, 1, 1], "width": 16, "head_width": 64}, "text_cfg": TEXT},
}

normal = lambda std: {"rule": "normal", "std": std}
uniform = lambda bound: {"rule": "uniform", "bound": bound, "std": bound / math.sqrt(3)}
constant = lambda value: {"rule": "constant", "value": value}


def text_rule(name, width, layers):
    if name == "token_embedding.weight":
        return normal(0.02)
    if name == "positional_embedding":
        return normal(0.01)
    if name == "text_projection" or name.endswith("in_proj_weight"):
        return normal(width**-0.5)
    if name.endswith(("out_proj.weight", "mlp.c_proj.weight")):
        return normal(width**-0.5 * (2 * layers) ** -0.5)
    if name.endswith("mlp.c_fc.weight"):
        return normal((2 * width) ** -0.5)


def vision_rule(name, shape, width):
    if name in ("class_embedding", "positional_embedding", "proj"):
        return normal(width**-0.5)
    if name == "attnpool.positional_embedding":
        return normal(shape[-1] ** -0.5)
    if name.startswith("attnpool") and name.endswith("weight"):
        return normal(shape[1] ** -0.5)
    if name.endswith("bn3.weight") and name.startswith("layer"):
        return constant(0.0)
    if name.endswith("in_proj_weight"):  # Xavier uniform over (3 width, width)
        return uniform(math.sqrt(6 / (shape[0] + shape[1])))
    if len(shape) >= 2:  # convolutions and linear layers: PyTorch's default
        return uniform(math.prod(shape[1:]) ** -0.5)


def rule(name, p, params, config):
    """The first that fits: the tower's own rules, then those for norms and biases that both share."""
    text, vision = config["text_cfg"], config["vision_cfg"]
    if name == "logit_scale":
        return constant(math.log(1 / 0.07))
    if name.startswith("visual."):
        found = vision_rule(name[len("visual."):], p.shape, vision["width"])
    else:
        found = text_rule(name, text["width"], text["layers"])
    if found:
        return found
    weight = params[name.removesuffix("bias") + "weight"] if name.endswith("bias") and not name.endswith("in_proj_bias") else None
    if weight is not None and weight.ndim == 2 and not name.endswith("out_proj.bias"):  # c_fc, c_proj and attnpool
        return uniform(weight.shape[1] ** -0.5)
    return constant(1.0 if name.endswith("weight") else 0.0)


def check(name, p, expected):
    n = p.numel()
    if expected["rule"] == "constant":
        assert (p - expected["value"]).abs().max() < 1e-6, name
        return
    spread = p.square().mean().sqrt().item()  # about the known mean, 0
    assert abs(spread / expected["std"] - 1) < 5 / math.sqrt(2 * n), (name, spread, expected)
    if expected["rule"] == "uniform":
        top = p.abs().max().item()
        assert expected["bound"] * (1 - 12 / n) <= top <= expected["bound"] * (1 + 1e-6), (name, top, expected)


def main():
    out = {}
    for case, config in CASES.items():
        golden.seed(1)
        params = dict(CLIP(**config).named_parameters())
        rows = {}
        for name, p in params.items():
            p = p.detach().double()
            expected = rule(name, p, params, config)
            check(name, p, expected)
            measured = {"mean": p.mean().item(), "rms": p.square().mean().sqrt().item(), "min": p.min().item(), "max": p.max().item()}
            rows[name] = {"shape": list(p.shape), **expected, "measured": {k: float(f"{v:.5g}") for k, v in measured.items()}}
        out[case] = {"model": config, "parameters": rows}
    golden.save_json("init_stats", out, depth=3)


if __name__ == "__main__":
    main()
