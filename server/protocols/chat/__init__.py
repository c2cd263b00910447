"""OpenAI Chat Completions, as its HTTP API says it: a codec without I/O.

Version: as in the types of the ``openai`` package. Extra fields are under one key, ``unbroken``.
"""
