-- Write an input, from any node, once per name. Unfenced on purpose: it is no owner's output. But not on a log
-- that doesn't hold what its sender was shown.
-- KEYS: meta, log, names, snapshot, busy
-- ARGV: session, incarnation, name or '', digest, nonce, body, window, lifetime, inputs that may wait,
--   the last entry seen, its nonce
local at = redis.call('HMGET', KEYS[1], 'i', 'h', 'o', 'w', 'u', 'k', 'f', 'fk')

-- Whether the log holds an entry with that nonce at that place.
local function holds(seq, nonce)
  if seq == tonumber(at[2]) then
    return at[6] == nonce
  end
  if seq > tonumber(at[2]) or seq < tonumber(at[7]) then
    return false
  end
  if seq == tonumber(at[7]) then
    return at[8] == nonce
  end
  local found = redis.call('XREVRANGE', KEYS[2], string.format('%d-0', seq), '-', 'COUNT', 1)
  return #found == 1 and found[1][2][2] == nonce
end

if at[1] == '' then
  return 'DELETED'
end
if at[1] ~= ARGV[2] then
  return 'GONE'
end
if ARGV[3] ~= '' then
  local known = redis.call('HGET', KEYS[3], ARGV[3])
  if known then
    local cut = string.find(known, ':', 1, true)
    if string.sub(known, cut + 1) ~= ARGV[4] then
      return 'REUSED'
    end
    return {0, tonumber(string.sub(known, 1, cut - 1))}
  end
end
if not holds(tonumber(ARGV[10]), ARGV[11]) then
  return 'LOST'
end
if tonumber(at[5]) >= tonumber(ARGV[9]) then
  return 'FULL'
end
local seq = tonumber(at[2]) + 1
redis.call('XADD', KEYS[2], string.format('%d-0', seq), 'k', ARGV[5], 'b', ARGV[6])
redis.call('HSET', KEYS[1], 'h', seq, 'k', ARGV[5], 'n', seq, 'u', at[5] + 1)
redis.call('HSET', KEYS[5], ARGV[1], at[3])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[3], string.format('%d:', seq) .. ARGV[4])
  local window = tonumber(ARGV[7])
  if redis.call('HLEN', KEYS[3]) > window + math.floor(window / 4) then
    local all, names = redis.call('HGETALL', KEYS[3]), {}
    for i = 1, #all, 2 do
      names[#names + 1] = {all[i], tonumber(string.match(all[i + 1], '^%d+'))}
    end
    table.sort(names, function(a, b) return a[2] > b[2] end)
    for i = window + 1, #names do
      redis.call('HDEL', KEYS[3], names[i][1])
    end
  end
end
for i = 1, 5 do
  redis.call('EXPIRE', KEYS[i], ARGV[8])
end
return {1, seq, at[3], at[4]}
