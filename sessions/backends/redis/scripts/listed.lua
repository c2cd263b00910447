-- Return a page of somebody's sessions, each with when it began; nothing, if what it is to follow isn't listed.
-- KEYS: index  ARGV: how many, the oldest first (0, 1), the one before or ''
local from, oldest = 0, ARGV[2] == '1'
if ARGV[3] ~= '' then
  local rank = redis.call(oldest and 'ZRANK' or 'ZREVRANK', KEYS[1], ARGV[3])
  if not rank then
    return false
  end
  from = rank + 1
end
return redis.call(oldest and 'ZRANGE' or 'ZREVRANGE', KEYS[1], from, from + tonumber(ARGV[1]) - 1, 'WITHSCORES')
