"""`make fuzz`: atheris over one decoder; inputs that cover more are kept under .build/fuzz."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


def main() -> None:
    """Fuzz until the time is over; an input that breaks a decoder is written to crash-… and ends it with an error."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz a decoder, guided by coverage.")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("fuzzing needs atheris: pip install 'gaussline[fuzz]' (make fuzz does it)")
    found = Path(".build") / "fuzz" / options.target
    found.mkdir(parents=True, exist_ok=True)
    for name in [name for name in sys.modules if name.startswith("gaussline.")]:
        module = sys.modules[name]
        for key, value in vars(module).items():
            if getattr(value, "__module__", None) == name and callable(value) and hasattr(value, "__code__"):
                setattr(module, key, atheris.instrument_func(value))
    words = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        "-max_len=4096",
        "-rss_limit_mb=2048",
        "-timeout=10",
        f"-artifact_prefix={found}/",
        str(found),
        str(CORPUS / options.target),
    ]
    atheris.Setup(words, TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
