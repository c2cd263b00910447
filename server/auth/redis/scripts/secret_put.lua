-- Keeps a short-lived key that may be used so often, for so long.
-- KEYS: uses, record. ARGV: record, uses, milliseconds.
redis.call('HSET', KEYS[1], 'n', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('HSET', KEYS[2], 'record', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
