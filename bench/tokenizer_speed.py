"""Tokenizing with open_clip's Python tokenizer and with `twinlens tokenize`, in turn, on one core.

    python3 bench/tokenizer_speed.py build/release/bin/twinlens [LINES_FILE] [ROUNDS]

Without a file: 20,000 lines of names from tests/golden/data/tokenizer_words.txt.gz. Times are CPU seconds: Python's of encode() alone, after a warm-up that fills
its word cache; twinlens' of the whole process, from start to exit, reading and printing included.
"""
import gzip
import resource
import subprocess
import sys
import time
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer


def corpus(argument):
    if argument:
        return Path(argument).read_text("utf-8").splitlines()
    words = gzip.decompress((Path(__file__).parents[1] / "tests/golden/data/tokenizer_words.txt.gz").read_bytes()).decode().splitlines()
    names = [line[2:] for line in words if line.startswith("n ")]
    return [f"{names[i % len(names)]}, {names[i * 7 % len(names)]}" for i in range(20000)]


def main():
    program = sys.argv[1]
    lines = corpus(sys.argv[2] if len(sys.argv) > 2 else None)
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    text = ("\n".join(lines) + "\n").encode()
    tokenizer = SimpleTokenizer()
    for line in lines[:2000]:
        tokenizer.encode(line)
    best = {"python": 1e9, "twinlens": 1e9}
    ratios = []
    for _ in range(rounds):
        begin = time.process_time()
        ids = [tokenizer.encode(line) for line in lines]
        python = time.process_time() - begin
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run(["taskset", "-c", "0", program, "tokenize", "--cleaning", "ftfy", "--context-length", "100000"], input=text, capture_output=True,
                             check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert [[int(x) for x in line[1:-1].split(b",")][1:-1] for line in out.splitlines()] == ids
        ratios.append(python / ours)
        best = {"python": min(best["python"], python), "twinlens": min(best["twinlens"], ours)}
    print(f"{len(lines)} lines, CPU seconds: python {best['python']:.3f}, twinlens {best['twinlens']:.3f}; ratio {min(ratios):.1f} to {max(ratios):.1f}")


if __name__ == "__main__":
    main()
