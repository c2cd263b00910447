-- Take in entries that the owner has numbered itself, as they are, if they go on exactly at the head.
-- KEYS: meta, log, names, snapshot, busy; where turns have ended, its bucket's outbox and how many bytes that takes
-- ARGV: session, node, token, incarnation, head, its nonce, consumed, lifetime,
--   MessagePack: {{seq, width, nonce, body, name or '', digest, 1 for an input,
--   where it has changed what is noted of the session}, ...}, busy (0, 1),
--   where turns have ended how many bytes an outbox holds, for how many seconds, {turn, attended (0, 1), ...}
-- Return {followers, how many turns there was no room for}.
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'h', 'k', 'c', 'n', 'w', 'x')
if not at[1] then
  return 'GONE'
end
if at[1] == '' then
  return 'DELETED'
end
if at[1] ~= ARGV[4] or at[2] ~= ARGV[2] or at[3] ~= ARGV[3] then
  return 'FENCED'
end
if at[4] ~= ARGV[5] or at[5] ~= ARGV[6] then
  return 'LOST'
end
local head, nonce, last, output = tonumber(at[4]), at[5], tonumber(at[7]), at[9] or 0
for _, entry in ipairs(cmsgpack.unpack(ARGV[9])) do
  redis.call('XADD', KEYS[2], string.format('%d-0', entry[1]), 'k', entry[3], 'b', entry[4])
  head, nonce = entry[1] + entry[2] - 1, entry[3]
  if entry[7] == 1 then
    last = entry[1]
  else
    output = head
  end
  if entry[8] then
    redis.call('HSET', KEYS[1], 'm', entry[8])
  end
  if entry[5] ~= '' then
    redis.call('HSET', KEYS[3], entry[5], string.format('%d:', entry[1]) .. entry[6])
  end
end
local consumed = math.max(tonumber(at[6]), tonumber(ARGV[7]))
redis.call('HSET', KEYS[1], 'h', head, 'k', nonce, 'n', last, 'c', consumed, 'b', ARGV[10], 'x', output)
if ARGV[10] == '1' or last > consumed then
  redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
else
  redis.call('HDEL', KEYS[5], ARGV[1])
end
for i = 1, 5 do
  redis.call('EXPIRE', KEYS[i], ARGV[8])
end
local lost = 0
for i = 13, #ARGV, 2 do
  if tonumber(redis.call('GET', KEYS[7]) or 0) + #ARGV[i] > tonumber(ARGV[11]) then
    lost = lost + 1
  else
    redis.call('XADD', KEYS[6], '*', 't', ARGV[i], 'a', (at[8] or '') ~= '' and '1' or ARGV[i + 1])
    redis.call('INCRBY', KEYS[7], #ARGV[i])
  end
end
if #ARGV > 12 then
  redis.call('EXPIRE', KEYS[6], ARGV[12])
  redis.call('EXPIRE', KEYS[7], ARGV[12])
end
return {at[8], lost}
