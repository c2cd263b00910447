"""What may leave: the filter between what an agent produces and the log.

- :mod:`~unbroken.server.guards.leaks.entities`: what is looked for, and what is done about it.
- :mod:`~unbroken.server.guards.leaks.scanner`: finds it in a piece of text; its detectors stand beside it.
- :mod:`~unbroken.server.guards.leaks.stream`: does so while the text comes. No I/O, no clock.
- :mod:`~unbroken.server.guards.leaks.answer`: one answer's text, calls and tools, each filtered for itself.
- :mod:`~unbroken.server.guards.leaks.name_reading`: one sentence, read by a model for names and addresses.
- :mod:`~unbroken.server.guards.leaks.names`: one answer's sentences, each read so.
- :mod:`~unbroken.server.guards.leaks.policy`: whose answers are filtered how.
"""
