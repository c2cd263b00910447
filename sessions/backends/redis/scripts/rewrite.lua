-- Put what a session holds into another format: the same entries, under the same numbers and nonces.
-- KEYS: meta, log, snapshot
-- ARGV: incarnation, MessagePack: {{id, nonce, body}, ...}, the snapshot's number and nonce, its data ('': none)
if redis.call('HGET', KEYS[1], 'i') ~= ARGV[1] then
  return 0
end
local changed, count = {}, 0
for _, entry in ipairs(cmsgpack.unpack(ARGV[2])) do
  changed[entry[1] .. ' ' .. entry[2]] = entry[3]
  count = count + 1
end
if count > 0 then
  local entries = redis.call('XRANGE', KEYS[2], '-', '+')
  local left = redis.call('PTTL', KEYS[2])
  redis.call('DEL', KEYS[2])
  for _, entry in ipairs(entries) do
    local nonce, body = entry[2][2], entry[2][4]
    redis.call('XADD', KEYS[2], entry[1], 'k', nonce, 'b', changed[entry[1] .. ' ' .. nonce] or body)
  end
  if left > 0 then
    redis.call('PEXPIRE', KEYS[2], left)
  end
end
if ARGV[5] ~= '' then
  local at = redis.call('HMGET', KEYS[3], 'q', 'k')
  if at[1] == ARGV[3] and at[2] == ARGV[4] then
    redis.call('HSET', KEYS[3], 'd', ARGV[5])
  end
end
return 1
