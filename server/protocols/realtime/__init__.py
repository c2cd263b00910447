"""OpenAI Realtime, generally available version, for text.

``frames`` is what clients may send, ``decode`` turns it into commands,
``encode`` turns log entries into what clients see, and ``connection`` holds
the two together for one client.
"""
