-- Takes a place for a short-lived key in a pool, among those that can be used or were and can be come back with.
-- KEYS: the pool's digests, by until when each is kept; the bytes of each, and of all together.
-- ARGV: digest, milliseconds, bytes, how many there may be, how many bytes, how many lapsed ones go at a time.
-- Returns 1; 0: there is no room.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, digest in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[6])) do
  local lapsed = redis.call('HGET', KEYS[2], digest)
  if lapsed then -- there may be none: and Redis 7.0 writes a negated 0 as -0, which it takes for no integer
    redis.call('HINCRBY', KEYS[2], 'all', -tonumber(lapsed))
    redis.call('HDEL', KEYS[2], digest)
  end
  redis.call('ZREM', KEYS[1], digest)
end
local count = redis.call('ZCARD', KEYS[1])
if count == 0 then
  redis.call('DEL', KEYS[2]) -- whatever it still says: the one may have been evicted without the other
elseif redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  return 1 -- asked again, as the answer was lost
end
local bytes = tonumber(redis.call('HGET', KEYS[2], 'all') or '0')
if count >= tonumber(ARGV[4]) or bytes + tonumber(ARGV[3]) > tonumber(ARGV[5]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HINCRBY', KEYS[2], 'all', ARGV[3])
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
return 1
