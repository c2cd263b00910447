"""Who is speaking: from what a client presents to a principal that everything further needs.

``principal`` is who there is, ``base`` the interface with its guarantees, ``keys`` those who
are known by keys in the settings; ``directory`` knows principals again by their ids.
Nothing behind this package accepts a raw key.
"""
