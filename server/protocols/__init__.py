"""Wire protocols: what clients send to commands, entries to what clients see. No I/O here."""
