-- Return a page of somebody's sessions, each with when it began; nothing, if what it is to follow isn't listed.
-- KEYS: index  ARGV: how many, the oldest first (0, 1), the one before or ''
local first, count, is_rising = 0, tonumber(ARGV[1]), ARGV[2] == '1'
if ARGV[3] ~= '' then
  local rank = redis.call('ZRANK', KEYS[1], ARGV[3])
  if not rank then
    return false
  end
  first = is_rising and rank + 1 or redis.call('ZCARD', KEYS[1]) - rank
end
if is_rising then
  return redis.call('ZRANGE', KEYS[1], first, first + count - 1, 'WITHSCORES')
end
return redis.call('ZRANGE', KEYS[1], first, first + count - 1, 'REV', 'WITHSCORES')
