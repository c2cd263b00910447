-- Adds to what a session is suspected of, and returns what that was before, as a string. It halves in time, and has an end.
-- KEYS: the session's. ARGV: amount, the most there may be, seconds after which half is forgotten.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local amount, most, half = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'amount', 'since')
local before = tonumber(known[1] or '0')
if before > 0 then
  before = before * 0.5 ^ (math.max(now - tonumber(known[2]), 0) / half)
end
redis.call('HSET', KEYS[1], 'amount', tostring(math.min(before + amount, most)), 'since', string.format('%.3f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(half * 8))
return tostring(before)
