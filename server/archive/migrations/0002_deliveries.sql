-- Webhooks that are to be sent, one for each endpoint.
CREATE TABLE archive_deliveries (
  message_id TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  kind TEXT NOT NULL,
  session_id TEXT NOT NULL,
  principal TEXT NOT NULL,
  body TEXT NOT NULL,
  tries INTEGER NOT NULL,
  made_at DOUBLE PRECISION NOT NULL,
  -- When the next try is due; none: there is none any more.
  due_at DOUBLE PRECISION,
  -- Until then, one node has it.
  leased_until DOUBLE PRECISION NOT NULL,
  buried_at DOUBLE PRECISION,
  PRIMARY KEY (message_id, endpoint)
);
CREATE INDEX archive_deliveries_due ON archive_deliveries (endpoint, due_at);
CREATE INDEX archive_deliveries_of ON archive_deliveries (principal);
CREATE INDEX archive_deliveries_in ON archive_deliveries (session_id);
