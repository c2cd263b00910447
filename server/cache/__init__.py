"""Questions that have been answered before, for the same asker, are answered with what was said then."""
