"""The symmetric InfoNCE: values and gradients in float64, with the diagonal or with equal captions as positives.

Run: python3 tests/golden/make_loss.py      (writes tests/golden/data/loss.{safetensors,json}, a second)
"""
import math

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

import golden

DIM = 8
SCALES = {"1": 1.0, "14": 1 / 0.07, "100": 100.0}
CAPTIONS = {1: [7], 2: [4, 4], 5: [3, 1, 3, 2, 1], 33: [i * i % 23 for i in range(33)]}


def equal_captions(image, text, scale, ids):
    """Cross-entropy to a target that is uniform over the columns with the row's caption id, in both directions."""
    target = (ids[:, None] == ids[None, :]).to(image.dtype)
    target = target / target.sum(1, keepdim=True)
    logits = scale * image @ text.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def main():
    rng = golden.seed(4)
    t, attributes = {}, {}
    for n, ids in CAPTIONS.items():
        # Rows with equal ids differ here: were they the same, both kinds of positives would give the same loss.
        # Images lean towards their captions, as in a half-trained model.
        text = F.normalize(golden.randn(rng, n, DIM), dim=-1)
        features = {"image": F.normalize(text + golden.randn(rng, n, DIM, scale=0.2), dim=-1), "text": text}
        t |= {f"n{n}.in.{k}": v for k, v in features.items()}
        t[f"n{n}.in.caption_ids"] = torch.tensor(ids)
        for label, scale in SCALES.items():
            log_scale = torch.tensor(math.log(scale), dtype=torch.float32)
            for kind in ("diagonal", "equal_captions"):
                def loss(i, p):
                    s = i["log_scale"].exp()
                    if kind == "diagonal":
                        return {"loss": ClipLoss()(i["image"], i["text"], s)}
                    return {"loss": equal_captions(i["image"], i["text"], s, torch.tensor(ids))}

                case = f"n{n}.scale{label}.{kind}"
                golden.put_case(t, case, loss, features | {"log_scale": log_scale}, {}, {"loss": torch.tensor(1.0)})
                for shared in ("in.image", "in.text", "grad_out.loss"):  # the features stand under n{n}.in
                    del t[f"{case}.{shared}"]
                attributes[case] = {"n": n, "scale": scale, "positives": kind}
    golden.save("loss", t, attributes)


if __name__ == "__main__":
    main()
