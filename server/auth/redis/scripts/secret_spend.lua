-- Uses a short-lived key for a session, and keeps what it is good for so long. Returns whether it could be used:
-- of those who ask for the last use, exactly one is told so.
-- KEYS: uses, record. ARGV: session, milliseconds.
local uses = tonumber(redis.call('HGET', KEYS[1], 'n') or '0')
if uses < 1 or redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
if uses == 1 then
  redis.call('DEL', KEYS[1])
else
  redis.call('HINCRBY', KEYS[1], 'n', -1)
end
redis.call('HSET', KEYS[2], ARGV[1], '1')
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return 1
