"""Where sessions are kept: the interface in ``base``, an implementation per module beside it."""
