-- Returns what a short-lived key is good for, how often it may still be used, and for which sessions it was.
-- KEYS: uses, record.
local record = redis.call('HGETALL', KEYS[2])
local uses = redis.call('GET', KEYS[1])
return {uses or '0', record}
