-- Returns what a short-lived key is good for, how often it may still be used, and for which sessions it was.
-- KEYS: uses, record.
local record = redis.call('HGETALL', KEYS[2])
local uses = redis.call('HGET', KEYS[1], 'n')
return {uses or '0', record}
