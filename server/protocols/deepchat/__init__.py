"""deep-chat's shapes, as the web component of that name sends and reads them: a codec without I/O.

Version: as in the package ``deep-chat`` 2.4. It has no ids, and no way to say more than text and errors.
"""
