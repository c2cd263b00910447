"""OpenAI Responses, as its HTTP API, its events and its WebSocket mode say it: a codec without I/O.

Version: as in the types of the ``openai`` package. Extra fields are under one key, ``unbroken``.
"""
