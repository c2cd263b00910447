"""Vercel AI SDK's UI messages and their streams, as ``useChat`` sends and reads them: a codec without I/O.

Version: as in the package ``ai`` 7. What this server adds to a request is under one key, ``unbroken``.
"""
