-- List sessions of somebody, the latest so many. Return up to when everything of theirs was erased.
-- KEYS: index, erased  ARGV: seconds for which they are listed, how many at most, then for each when it began, its id
for i = 3, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'NX', ARGV[i], ARGV[i + 1])
end
local over = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[2])
if over > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', KEYS[1], 0, over - 1)) do
    redis.call('ZREM', KEYS[1], oldest)
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return tonumber(redis.call('GET', KEYS[2]) or 0)
