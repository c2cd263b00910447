"""GraphQL: documents and their limits, the schema, and the frames that answers come in, without I/O.

Versions: the specification of September 2025, ``graphql-transport-ws``, and GraphQL over SSE's distinct
connections. Whatever needs the extra ``graphql`` is in this package, and is imported where it is asked for.
"""
