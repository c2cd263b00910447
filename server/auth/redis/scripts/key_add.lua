-- Adds an API key, unless there are as many as may be. Returns whether it was added.
-- KEYS: keys, ids, version. ARGV: digest, record, id, most.
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
redis.call('HINCRBY', KEYS[3], 'n', 1)
return 1
