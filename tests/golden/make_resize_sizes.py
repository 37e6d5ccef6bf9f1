"""Pillow's resizes and open_clip's evaluation transforms for 300 pictures of random sizes, as hashes of the bytes.

Run: python3 tests/golden/make_resize_sizes.py      (writes or completes tests/golden/data/resize_sizes.json; a minute)

Pillow 13 chooses the order of the two passes by the sizes, Pillow up to 12 always takes the horizontal one first. Run it once with each: it fills
the column of the version that is installed. Pictures and sizes are made by rule, the same as in tests/clip/image_sizes.cpp.
"""
import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
from open_clip.transform import image_transform
from PIL import Image

PATH = Path(__file__).parent / "data" / "resize_sizes.json"
COUNT = 300
MASK = (1 << 64) - 1


def splitmix(state):
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def number(index, which, n):
    return splitmix(index * 1000 + which) % n


def pixels(index, width, height):
    """Byte i of picture `index` is the top byte of splitmix(index << 32 | i), on a ramp for every other picture."""
    i = np.arange(width * height * 3, dtype=np.uint64) + np.uint64(index << 32)
    with np.errstate(over="ignore"):
        z = i + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        noise = ((z ^ (z >> np.uint64(31))) >> np.uint64(56)).reshape(height, width, 3)
    if index % 2 == 0:
        return noise.astype(np.uint8)
    ramp = (np.arange(width)[None, :, None] * 255 // max(1, width - 1) + np.arange(height)[:, None, None] * 255 // max(1, height - 1)) // 2
    return ((ramp.astype(np.uint64) * np.uint64(3) + noise) // np.uint64(4)).astype(np.uint8)


def picture(index):
    most = (40, 300, 1200)[number(index, 0, 3)]
    width, height = 1 + number(index, 1, most), 1 + number(index, 2, most)
    # Not longer than 30 times the other side: a centre crop of one is computed from a very long picture.
    width, height = min(width, 30 * height), min(height, 30 * width)
    return Image.fromarray(pixels(index, width, height))


def hash_of(image):
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def main():
    column = "pillow_13" if int(PIL.__version__.split(".")[0]) >= 13 else "horizontal"
    out = json.loads(PATH.read_text()) if PATH.exists() else {"count": COUNT}
    rows = []
    for index in range(COUNT):
        image = picture(index)
        row = [f"{image.width}x{image.height}"]
        for filter in ("bicubic", "bilinear"):
            size = (32, 64, 224)[number(index, 3, 3)]
            for mode in ("shortest", "longest", "squash"):
                transform = image_transform(size, is_train=False, interpolation=filter, resize_mode=mode, fill_color=index % 256)
                steps = [t for t in transform.transforms if type(t).__name__ in ("Resize", "ResizeKeepRatio", "CenterCrop", "CenterCropOrPad")]
                result = image
                for step in steps:
                    result = step(result)
                assert result.size == (size, size)
                row.append(hash_of(result))
            free = (1 + number(index, 4, 300), 1 + number(index, 5, 300))
            row.append(hash_of(image.resize(free, Image.BICUBIC if filter == "bicubic" else Image.BILINEAR)))
        rows.append(" ".join(row))
    out[column] = rows
    out[f"{column}_made_with"] = f"Pillow {PIL.__version__}"
    PATH.write_text(json.dumps(out, indent=0) + "\n")


if __name__ == "__main__":
    main()
