"""Who is speaking: from what a client presents to a principal that everything further needs.

``principal`` is who there is; ``base`` the interface with its guarantees; ``entrance`` asks
the authenticator that what is presented is for: ``keys`` of the settings, the ``keyring`` over
a ``key_store`` (one in memory, ``key_file``, ``redis``), ``jwt_tokens`` with their ``jwks``
(had by ``download``), and ``client_secrets`` over a ``secret_store``, counted in ``secret_pools``,
with what their makers settle in ``pins``. ``lapse`` ends connections when what let them in ends;
``directory`` knows principals again by their ids.
Nothing behind this package accepts a raw key.
"""
