"""How a command ends: an expected mistake is one plain line on standard error and an exit code, never a traceback.

0  done                                4  a model, weights or backbone that does not fit
1  any other expected mistake          5  the ledger does not balance, or a verdict is not confirmed
2  wrong usage, settings or source   130  Ctrl-C (128 and the number of the signal)
3  Redis cannot be reached
"""

from __future__ import annotations

import sys

from gaussline.worker.errors import BrokerUnavailable, GausslineError, ModelError, SettingsError, SourceError

IMBALANCE = 5
UNCONFIRMED = 5
INTERRUPTED = 130


def exit_code(error: GausslineError) -> int:
    """The code that a command ends with."""
    if isinstance(error, SettingsError | SourceError):
        return 2
    if isinstance(error, BrokerUnavailable):
        return 3
    if isinstance(error, ModelError):
        return 4
    return 1


def tell(error: GausslineError) -> int:
    """Say what went wrong, a line a mistake; the code to end with."""
    for line in str(error).splitlines() or [type(error).__name__]:
        told = f"{line.removesuffix('.')}; {error.advice}" if error.advice else line
        print(f"gaussline: {told}", file=sys.stderr)
    return exit_code(error)
