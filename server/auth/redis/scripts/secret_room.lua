-- Takes a place for a short-lived key in a pool, among those that can be used or were and can be come back with.
-- KEYS: the pool's digests, by until when each is kept; what each takes, as 'own:digest of what is kept apart:its bytes',
--   in 'n:<that digest>' how many settle it, and in 'all' the bytes of all together.
-- ARGV: digest, milliseconds, how many there may be, how many bytes, how many lapsed ones go at a time,
--   its own bytes, the digest of what is kept apart or '', its bytes.
-- Returns 1; 0: there is no room.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Counts one less. What several settle alike goes with the last of them.
local function leave(digest)
  redis.call('ZREM', KEYS[1], digest)
  local known = redis.call('HGET', KEYS[2], digest)
  if not known then
    return -- it may have been evicted without the other
  end
  redis.call('HDEL', KEYS[2], digest)
  local own, apart, size = string.match(known, '^(%d+):(%x*):(%d+)$')
  local less = tonumber(own)
  if apart ~= '' and redis.call('HINCRBY', KEYS[2], 'n:' .. apart, -1) <= 0 then
    redis.call('HDEL', KEYS[2], 'n:' .. apart)
    less = less + tonumber(size)
  end
  redis.call('HINCRBY', KEYS[2], 'all', 0 - less) -- Redis 7.0 writes -0 for a negated 0, and takes it for no integer
end

for _, digest in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[5])) do
  leave(digest)
end
local count = redis.call('ZCARD', KEYS[1])
if count == 0 then
  redis.call('DEL', KEYS[2]) -- whatever it still says: the one may have been evicted without the other
elseif redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  return 1 -- asked again, as the answer was lost
end
local more, apart = tonumber(ARGV[6]), ARGV[7]
if apart ~= '' and redis.call('HEXISTS', KEYS[2], 'n:' .. apart) == 0 then
  more = more + tonumber(ARGV[8])
end
local bytes = tonumber(redis.call('HGET', KEYS[2], 'all') or '0')
if count >= tonumber(ARGV[3]) or bytes + more > tonumber(ARGV[4]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[6] .. ':' .. apart .. ':' .. ARGV[8])
if apart ~= '' then
  redis.call('HINCRBY', KEYS[2], 'n:' .. apart, 1)
end
redis.call('HINCRBY', KEYS[2], 'all', more)
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
return 1
