"""`make bench`: every benchmark, one after the other, so that none disturbs another. Exits 1 when a limit is missed."""

import subprocess
import sys

BENCHMARKS = ("api_import", "scoring", "training_step", "assembly", "streamed", "likelihoods", "hub_download", "load")


def main() -> int:
    missed = []
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            missed.append(name)
    print(f"\nlimits missed in: {', '.join(missed)}" if missed else "\nevery limit met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
