"""How long `import app.main` takes in a fresh interpreter, measured inside it: shutting down is left out.

    python -m benchmarks.api_import [--rounds 7]

Limit: 1.5 s, with torch, transformers and the worker not loaded. Exits 1 where the limit is missed.
"""

import argparse
import statistics
import subprocess
import sys

LIMIT_SECONDS = 1.5
CODE = """
import sys, time
began = time.perf_counter()
import app.main
print(time.perf_counter() - began)
sys.exit(any(name in sys.modules for name in ("torch", "transformers", "worker")))
"""


def seconds() -> float:
    return float(subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    seconds()  # the first one reads from disk
    median = statistics.median(seconds() for _ in range(rounds))
    met = median < LIMIT_SECONDS
    print(f"import of app.main {median:.2f} s; limit {LIMIT_SECONDS} s: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
