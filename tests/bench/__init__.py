"""The project's benchmark: ``python -m tests.bench`` (``make bench``). See :mod:`tests.bench.__main__`."""
