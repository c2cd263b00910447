"""What nodes share of who is speaking, in Redis. Keys, with ``P`` for the prefix:

======================  ======  ========================================================================
key                     type    what
======================  ======  ========================================================================
``P:{auth}:keys``       hash    API keys, by their digests
``P:{auth}:ids``        hash    the digests, by the keys' ids
``P:{auth}:used``       hash    when each was last used
``P:{auth}:version``    hash    how often there was a change
``P:p:I``               string  a principal, by its id
``P:{s:D}:u``           hash    how often a short-lived key may still be used
``P:{s:D}:r``           hash    what it is good for, and the sessions that it was used for
``P:{sa:H}:D``          string  what short-lived keys settle, by its digest, once for all that settle the same
``P:{sp:H}:m``          zset    digests of those of a user, API key or strangers, by until when they are kept
``P:{sp:H}:c``          hash    how many bytes each takes, and all of them together
======================  ======  ========================================================================

The first four stay until keys are revoked; all else goes by itself, in time.
"""
