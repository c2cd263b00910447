"""Files that clients send along: kept for a while, each for one principal, named in messages by reference.

``base`` is the interface with its guarantees, ``memory`` and ``disk`` are stores,
``ledger`` keeps their accounts; ``kinds`` says what content is, ``references``
has a message's references stand for files, ``reading`` lets agents read them.
"""
