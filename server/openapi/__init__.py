"""What this server takes over HTTP, and how it answers, as an OpenAPI document.

A module for each door says what is behind its paths, in the plain values of
:mod:`~unbroken.server.openapi.operation`; :mod:`~unbroken.server.openapi.selection` puts together those
that there are. Tests hold it against the routes, the decoders, and whatever the doors answer.
"""
