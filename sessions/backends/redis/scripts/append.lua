-- Write outputs of many sessions, each for itself: fenced, and only behind what its owner has seen.
-- KEYS: for each session meta, log, names, snapshot, busy
--   Behind them, for each session whose turns have ended, its bucket's outbox and how many bytes that takes.
-- ARGV: MessagePack: {lifetime, {{session, node, token, incarnation, seen, nonce seen, consumed,
--   busy (0, 1), nonce, refresh (0, 1), {width, body, width, body, ...},
--   where turns have ended {the outbox' index in KEYS, {index in ARGV, attended (0, 1), ...}},
--   where it has changed what is noted of the session}, ...},
--   where any have, how many bytes an outbox holds, and for how many seconds}
--   Behind it, turns that have ended.
-- Return for each session {head before, followers, how many turns there was no room for}, or why nothing was written.
local lifetime, asked, most, outlife = unpack(cmsgpack.unpack(ARGV[1]))

-- Put turns into an outbox, as far as there is room. Return how many there was none for.
local function put(out, count, turns, followed)
  local lost = 0
  for i = 1, #turns, 2 do
    local turn = ARGV[turns[i]]
    if tonumber(redis.call('GET', count) or 0) + #turn > most then
      lost = lost + 1
    else
      local attended = (followed or turns[i + 1] == 1) and 1 or 0
      redis.call('XADD', out, '*', 't', turn, 'a', attended)
      redis.call('INCRBY', count, #turn)
    end
  end
  redis.call('EXPIRE', out, outlife)
  redis.call('EXPIRE', count, outlife)
  return lost
end

-- Whether the log holds an entry with that nonce at that place.
local function holds(at, log, seq, nonce)
  if seq == tonumber(at[4]) then
    return at[5] == nonce
  end
  if seq > tonumber(at[4]) or seq < tonumber(at[9]) then
    return false
  end
  if seq == tonumber(at[9]) then
    return at[10] == nonce
  end
  local found = redis.call('XREVRANGE', log, string.format('%d-0', seq), '-', 'COUNT', 1)
  return #found == 1 and found[1][2][2] == nonce
end

local function write(meta, log, names, snapshot, busy, a)
  local at = redis.call('HMGET', meta, 'i', 'o', 't', 'h', 'k', 'c', 'b', 'w', 'f', 'fk', 'n', 'u', 'x')
  if not at[1] then
    return 'GONE'
  end
  if at[1] == '' then
    return 'DELETED'
  end
  if at[1] ~= a[4] or at[2] ~= a[2] or at[3] ~= a[3] then
    return 'FENCED'
  end
  if not holds(at, log, a[5], a[6]) then
    return 'LOST'
  end
  if tonumber(at[13] or 0) > a[5] then
    return 'UNSEEN'
  end
  local before = tonumber(at[4])
  local head, bodies = before, a[11]
  for i = 1, #bodies, 2 do
    redis.call('XADD', log, string.format('%d-0', head + 1), 'k', a[9], 'b', bodies[i + 1])
    head = head + bodies[i]
  end
  local consumed = math.max(tonumber(at[6]), a[7])
  if head > before then
    redis.call('HSET', meta, 'h', head, 'k', a[9], 'x', head)
  end
  if a[13] then
    redis.call('HSET', meta, 'm', a[13])
  end
  if at[12] ~= '0' then
    redis.call('HSET', meta, 'u', 0)
  end
  if consumed > tonumber(at[6]) or a[8] ~= tonumber(at[7]) then
    redis.call('HSET', meta, 'c', consumed, 'b', a[8])
    if a[8] == 1 or tonumber(at[11]) > consumed then
      redis.call('HSET', busy, a[1], a[2])
    else
      redis.call('HDEL', busy, a[1])
    end
  end
  -- Pieces alone come too often to renew what has most of its time left.
  if a[10] == 1 or redis.call('TTL', meta) * 2 < lifetime then
    redis.call('EXPIRE', meta, lifetime)
    redis.call('EXPIRE', log, lifetime)
    redis.call('EXPIRE', names, lifetime)
    redis.call('EXPIRE', snapshot, lifetime)
    redis.call('EXPIRE', busy, lifetime)
  end
  local lost = 0
  if a[12] then
    lost = put(KEYS[a[12][1]], KEYS[a[12][1] + 1], a[12][2], at[8] ~= '')
  end
  return {before, at[8], lost}
end

local results = {}
for i, a in ipairs(asked) do
  local first = (i - 1) * 5
  results[i] = write(KEYS[first + 1], KEYS[first + 2], KEYS[first + 3], KEYS[first + 4], KEYS[first + 5], a)
end
return results
