"""The server on a machine whose clocks are wrong by ``CHAOS_CLOCK`` seconds, as a program."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable


def _moved(clock: Callable[[], float], by: float) -> Callable[[], float]:
    return lambda: clock() + by


if __name__ == "__main__":
    wrong_by = float(os.environ["CHAOS_CLOCK"])
    time.time = _moved(time.time, wrong_by)
    time.monotonic = _moved(time.monotonic, wrong_by)  # machines begin to count when they start
    sys.exit(importlib.import_module("unbroken.server.cli").main())  # which takes the clocks as it finds them
