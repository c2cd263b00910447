-- Give a session up, to somebody or nobody. Return whom to tell.
-- Whoever doesn't follow it (any more) doesn't get it: a node that leaves would own it for ever.
-- KEYS: meta, busy  ARGV: session, node, token, incarnation, new owner
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'w')
if at[1] ~= ARGV[4] or at[2] ~= ARGV[2] or at[3] ~= ARGV[3] then
  return false
end
local to = ARGV[5]
if not string.find(' ' .. (at[4] or '') .. ' ', ' ' .. to .. ' ', 1, true) then
  to = ''
end
redis.call('HINCRBY', KEYS[1], 't', 1)
redis.call('HSET', KEYS[1], 'o', to)
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[2], ARGV[1], to)
end
return {at[4]}
