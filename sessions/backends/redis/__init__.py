"""Sessions in Redis or Valkey, shared by several nodes. Needs the extra ``redis``."""
