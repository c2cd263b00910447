-- Begin a log anew from a snapshot, in another incarnation: for the owner of one that was lost.
-- KEYS: meta, log, names, snapshot, busy; where turns have ended, its bucket's outbox and how many bytes that takes
-- ARGV: session, node, token, incarnation, new incarnation, the snapshot's number, nonce and data, lifetime,
--   whether names of inputs are kept (0, 1), MessagePack: {{seq, name, digest}, ...} that are known, busy (0, 1),
--   where the log ended when it was last read and the nonce of that, or '', what is noted of the session,
--   where turns have ended how many bytes an outbox holds, for how many seconds, {turn, attended (0, 1), ...}
-- Return {token, followers, how many turns there was no room for}.
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'w', 'h', 'k')
if at[1] == '' then
  return 'DELETED'
end
if at[1] and (at[1] ~= ARGV[4] or at[2] ~= ARGV[2] or at[3] ~= ARGV[3]) then
  return false
end
if at[1] and ARGV[13] ~= '' and (at[5] ~= ARGV[13] or at[6] ~= ARGV[14]) then
  return 'UNSEEN'
end
local token = tonumber(ARGV[3]) + 1
redis.call('DEL', KEYS[2])
if ARGV[10] == '0' then
  redis.call('DEL', KEYS[3])
end
for _, known in ipairs(cmsgpack.unpack(ARGV[11])) do
  redis.call('HSET', KEYS[3], known[2], string.format('%d:', known[1]) .. known[3])
end
redis.call('HSET', KEYS[1], 'i', ARGV[5], 'o', ARGV[2], 't', token, 'h', ARGV[6], 'k', ARGV[7],
  'c', 0, 'n', 0, 'f', ARGV[6], 'fk', ARGV[7], 'b', ARGV[12], 'w', at[4] or '', 'u', 0, 'x', ARGV[6], 'm', ARGV[15])
redis.call('HSET', KEYS[4], 'q', ARGV[6], 'k', ARGV[7], 'd', ARGV[8])
if ARGV[12] == '1' then
  redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
else
  redis.call('HDEL', KEYS[5], ARGV[1])
end
for i = 1, 5 do
  redis.call('EXPIRE', KEYS[i], ARGV[9])
end
local lost = 0
for i = 18, #ARGV, 2 do
  if tonumber(redis.call('GET', KEYS[7]) or 0) + #ARGV[i] > tonumber(ARGV[16]) then
    lost = lost + 1
  else
    redis.call('XADD', KEYS[6], '*', 't', ARGV[i], 'a', (at[4] or '') ~= '' and '1' or ARGV[i + 1])
    redis.call('INCRBY', KEYS[7], #ARGV[i])
  end
end
if #ARGV > 17 then
  redis.call('EXPIRE', KEYS[6], ARGV[17])
  redis.call('EXPIRE', KEYS[7], ARGV[17])
end
return {token, at[4] or '', lost}
