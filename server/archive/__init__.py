"""What was said, kept beyond the life of sessions: the archive, and how turns come into it."""
