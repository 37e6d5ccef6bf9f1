"""CLIP_benchmark's metrics and scikit-learn's logistic regression and nearest neighbours on random embeddings.

Run: python3 tests/golden/make_metrics.py      (writes tests/golden/data/metrics.safetensors and metrics.json, seconds; numpy before 2.4, which
clip_benchmark 1.6.2 needs)
"""
import json

import numpy as np
import torch
import torch.nn.functional as F
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import golden


def retrieval(rng):
    """60 pictures with 1 to 7 captions each: noisy copies of the picture's feature."""
    images = rng.standard_normal((60, 16)).astype(np.float32)
    of_image = [i for i in range(60) for _ in range(1 + int(rng.integers(7)))]
    texts = images[of_image] + 1.6 * rng.standard_normal((len(of_image), 16)).astype(np.float32)
    images, texts = (F.normalize(torch.from_numpy(x), dim=-1) for x in (images, texts))
    scores = texts @ images.t()
    positive = torch.zeros_like(scores, dtype=bool)
    positive[torch.arange(len(scores)), of_image] = True
    out = {}
    for k in (1, 5, 10):
        for name, s, p in (("text_to_image", scores, positive), ("image_to_text", scores.T, positive.T)):
            recall = zeroshot_retrieval.batchify(zeroshot_retrieval.recall_at_k, s, p, 32, "cpu", k=k)
            out[f"{name}_R@{k}"] = (recall > 0).double().mean().item()
    # Ranks, which CLIP_benchmark does not have: of the best correct item, from 1.
    for name, s, p in (("text_to_image", scores, positive), ("image_to_text", scores.T, positive.T)):
        best = np.array([min((s[i] > s[i, j]).sum().item() for j in torch.where(p[i])[0]) for i in range(len(s))])
        out[f"{name}_mean_rank"] = float(best.mean() + 1)
        out[f"{name}_median_rank"] = float(np.floor(np.median(best)) + 1)
    return {"retrieval.images": images.numpy(), "retrieval.texts": texts.numpy(), "retrieval.image_of": np.array(of_image)}, out


def classification(rng):
    """200 pictures, 8 classes of unequal size."""
    centres = rng.standard_normal((8, 16)).astype(np.float32)
    labels = rng.choice(8, 200, p=np.arange(1, 9) / 36)
    images = F.normalize(torch.from_numpy(centres[labels] + 1.5 * rng.standard_normal((200, 16)).astype(np.float32)), dim=-1)
    classes = F.normalize(torch.from_numpy(centres), dim=-1)
    logits = 100.0 * images @ classes.T
    target = torch.from_numpy(labels)
    acc1, acc5 = zeroshot_classification.accuracy(logits, target, topk=(1, 5))
    out = {"top1": float(acc1), "top5": float(acc5), "mean_per_class_recall": balanced_accuracy_score(target, logits.argmax(axis=1))}
    return {"classify.images": images.numpy(), "classify.classes": classes.numpy(), "classify.labels": labels}, out


def probe(rng, tensors):
    """OpenAI's linear probe: C = 0.316, 1000 iterations, here to the end."""
    x = (3.0 * tensors["classify.images"]).astype(np.float32)
    labels = tensors["classify.labels"]
    train, test = slice(0, 150), slice(150, 200)
    model = LogisticRegression(C=0.316, max_iter=100000, tol=1e-10).fit(x[train].astype(np.float64), labels[train])
    assert list(model.classes_) == list(range(8))
    p = model.predict_proba(x[train].astype(np.float64))
    loss = -np.log(p[np.arange(150), labels[train]]).mean() + (model.coef_ ** 2).sum() / (2 * 0.316 * 150)
    out = {"loss": float(loss), "top1": float((model.predict(x[test]) == labels[test]).mean()), "knn": {}}
    tensors |= {"probe.features": x, "probe.w": model.coef_, "probe.b": model.intercept_}
    # k nearest neighbours by cosine, ties of votes by the sum of cosines.
    unit = tensors["classify.images"].astype(np.float64)
    for k in (1, 5, 20):
        cos = unit[test] @ unit[train].T
        right = 0
        for i, row in enumerate(cos):
            near = np.argsort(-row, kind="stable")[:k]
            best = max(range(8), key=lambda c: ((labels[train][near] == c).sum(), row[near][labels[train][near] == c].sum()))
            right += best == labels[test][i]
        out["knn"][str(k)] = right / 50
    return out


def main():
    rng = golden.seed(11)
    tensors, out = {}, {}
    t, out["retrieval"] = retrieval(rng)
    tensors |= t
    t, out["classification"] = classification(rng)
    tensors |= t
    out["probe"] = probe(rng, tensors)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, str(golden.DATA / "metrics.safetensors"))
    (golden.DATA / "metrics.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
