-- Delete a session for good, whoever owns it. What stays says so for a while: it has no incarnation, so that
-- nothing that is known of one fits it. Return whom to tell.
-- KEYS: meta, log, names, snapshot, busy, suspicion  ARGV: session, seconds for which it is said
local at = redis.call('HMGET', KEYS[1], 'o', 'w', 't')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HSET', KEYS[1], 'i', '', 'o', '', 't', (tonumber(at[3]) or 0) + 1, 'h', 0, 'k', 0, 'c', 0, 'n', 0,
  'f', 0, 'fk', 0, 'b', 0, 'w', '', 'u', 0, 'x', 0)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {at[1] or '', at[2] or ''}
