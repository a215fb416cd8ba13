"""`make fuzz`: atheris over one decoder; inputs that cover more are kept under .build/fuzz."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
WORDS = Path(__file__).with_name("words.dict")


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
        for function in _functions(sys.modules[name], name):
            atheris.instrument_func(function)
    words = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        "-max_len=4096",
        "-rss_limit_mb=2048",
        "-timeout=10",
        "-use_value_profile=1",
        f"-dict={WORDS}",
        f"-artifact_prefix={found}/",
        str(found),
        str(CORPUS / options.target),
    ]
    atheris.Setup(words, TARGETS[options.target])
    atheris.Fuzz()


def _functions(holder: Any, module: str) -> Iterator[FunctionType]:
    """The functions of a module, and those of its classes: much of a decoder is in methods."""
    for value in list(vars(holder).values()):
        plain = getattr(value, "__func__", getattr(value, "fget", value))
        if getattr(plain, "__module__", None) != module:
            continue
        if isinstance(plain, FunctionType):
            yield plain
        elif isinstance(plain, type):
            yield from _functions(plain, module)


if __name__ == "__main__":
    main()
