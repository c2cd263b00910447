-- Webhooks that are forgotten: those that were given up, and those that nobody waits for any more.
CREATE INDEX archive_deliveries_buried ON archive_deliveries (buried_at) WHERE buried_at IS NOT NULL;
CREATE INDEX archive_deliveries_by_age ON archive_deliveries (endpoint, made_at);
