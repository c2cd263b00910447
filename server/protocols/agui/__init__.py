"""AG-UI: what its clients send, and the events that they read: a codec without I/O.

Version: 1.0, as in the package ``@ag-ui/core`` 1.0. What this server adds is in events' ``metadata``, under
one key, ``unbroken``, and is asked for under the same key of ``forwardedProps``.
"""
