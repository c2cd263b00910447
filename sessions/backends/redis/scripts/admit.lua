-- List a session of somebody that is about to begin, unless as many others are as may be. Return how many others are.
-- KEYS: index  ARGV: seconds for which they are listed, how many may be, when it begins, its id
local others = redis.call('ZCARD', KEYS[1])
if redis.call('ZSCORE', KEYS[1], ARGV[4]) then
  return others - 1
end
if others < tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return others
