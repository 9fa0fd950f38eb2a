"""How long `import app.main` takes in a fresh interpreter, against an interpreter that imports nothing.

    python -m benchmarks.api_import [--rounds 7]

Limit: 1.5 s, with torch, transformers and the worker not loaded. Exits 1 where the limit is missed.
"""

import argparse
import statistics
import subprocess
import sys
import time

LIMIT_SECONDS = 1.5
CODE = "import sys, app.main\nsys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'worker')))"


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    seconds(CODE)  # the first one reads from disk
    pairs = [(seconds("pass"), seconds(CODE)) for _ in range(rounds)]
    empty, full = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"interpreter alone {empty:.2f} s, with app.main {full:.2f} s; import {full - empty:.2f} s")
    print(f"limit {LIMIT_SECONDS} s: {'met' if full - empty < LIMIT_SECONDS else 'MISSED'}")
    return 0 if full - empty < LIMIT_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
