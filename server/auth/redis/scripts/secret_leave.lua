-- Gives a place in a pool back: there is to be no key.
-- KEYS: the pool's digests, by until when each is kept; their bytes. ARGV: digest.
local bytes = redis.call('HGET', KEYS[2], ARGV[1])
if bytes then
  redis.call('HINCRBY', KEYS[2], 'all', -tonumber(bytes))
  redis.call('HDEL', KEYS[2], ARGV[1])
end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
