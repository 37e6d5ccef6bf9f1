"""Small animations, and what Pillow reads of them: their first frame.

Run: python3 tests/golden/make_animated.py      (writes tests/clip/data/animated*)
"""
from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).parents[1] / "clip" / "data"


def frame(k):
    a = np.zeros((16, 24, 3), np.uint8)
    a[..., 0] = (np.arange(24) // 3 * 30 + k * 80) % 256
    a[..., 1] = ((np.arange(16) // 2 * 28)[:, None] + k * 50) % 256
    a[3:9, 5:12] = 255 - 100 * k
    return Image.fromarray(a)


def save_first_frame(name):
    first = Image.open(DATA / name)
    assert first.n_frames == 2
    first.convert("RGB").save(DATA / (name.replace(".", "_") + ".png"))


def main():
    frames = [frame(0), frame(1)]
    frames[0].save(DATA / "animated.webp", save_all=True, append_images=frames[1:], lossless=True, duration=100)
    # The first frame with transparency, whole and half.
    holed = [f.convert("RGBA") for f in frames]
    alpha = np.full((16, 24), 255, np.uint8)
    alpha[:, :8] = 128
    alpha[:4] = 0
    holed[0].putalpha(Image.fromarray(alpha))
    holed[0].save(DATA / "animated_alpha.webp", save_all=True, append_images=holed[1:], lossless=True, exact=True, duration=100)
    frames[0].save(DATA / "animated.gif", save_all=True, append_images=frames[1:], duration=100)
    for name in ("animated.webp", "animated.gif"):
        save_first_frame(name)
    # Pillow's convert("RGB") drops the transparency; here it lies on white, as in png_*.
    first = np.asarray(Image.open(DATA / "animated_alpha.webp").convert("RGBA")).astype(np.int64)
    on_white = (first[..., :3] * first[..., 3:] + 255 * (255 - first[..., 3:]) + 127) // 255
    Image.fromarray(on_white.astype(np.uint8)).save(DATA / "animated_alpha_webp.png")


if __name__ == "__main__":
    main()
