"""Unbroken: a stateful WebSocket server for AI agents.

The code lives in two halves. :mod:`unbroken.sessions` is the stateful core: it
imports no web framework, wire format, model provider or policy.
:mod:`unbroken.server` is everything that meets the outside.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
