"""What answers. One module per kind; the interface they share is :mod:`unbroken.server.agents.base`."""
