-- Gives a place in a pool back: there is to be no key.
-- KEYS: the pool's digests, by until when each is kept; what each takes, as 'own:digest of what is kept apart:its bytes',
--   in 'n:<that digest>' how many settle it, and in 'all' the bytes of all together.
-- ARGV: digest.

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

leave(ARGV[1])
return 1
