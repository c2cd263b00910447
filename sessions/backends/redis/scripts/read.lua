-- Return what follows places in logs, of each: whose the session is, its head, the last input that was answered,
-- the entry that holds the place (of its numbers, some may follow), what follows, and whether the reader is told
-- of it (0, 1): also where it isn't, and as many are as may. Or why its place can't be gone on from.
-- KEYS: for each session meta, log
-- ARGV: MessagePack: {how many may follow, {{incarnation, place, its nonce, how many entries, the reader or ''}, ...}}
local most, asked = unpack(cmsgpack.unpack(ARGV[1]))

local function is_told(followers, reader)
  if reader == '' then
    return 0
  end
  local count = 0
  for node in string.gmatch(followers, '%S+') do
    count = count + 1
    if node == reader then
      return 1
    end
  end
  return count >= most and 1 or 0
end

local function read(meta, log, a)
  local at = redis.call('HMGET', meta, 'i', 'o', 't', 'h', 'k', 'f', 'fk', 'c', 'w')
  local after, nonce = a[2], a[3]
  if at[1] == '' then
    return 'DELETED'
  end
  if at[1] ~= a[1] or after < tonumber(at[6]) then
    return 'GONE'
  end
  if after > tonumber(at[4]) then
    return 'LOST'
  end
  local holder = {}
  if after == tonumber(at[4]) then
    if at[5] ~= nonce then
      return 'LOST'
    end
  elseif after == tonumber(at[6]) then
    if at[7] ~= nonce then
      return 'LOST'
    end
  else
    local found = redis.call('XREVRANGE', log, string.format('%d-0', after), '-', 'COUNT', 1)
    if #found == 0 or found[1][2][2] ~= nonce then
      return 'LOST'
    end
    holder = found[1]
  end
  local entries = {}
  if after < tonumber(at[4]) then
    entries = redis.call('XRANGE', log, string.format('%d-0', after + 1), '+', 'COUNT', a[4])
  end
  return {at[1], at[2], at[3], tonumber(at[4]), tonumber(at[8]), holder, entries, is_told(at[9], a[5])}
end

local results = {}
for i, a in ipairs(asked) do
  results[i] = read(KEYS[i * 2 - 1], KEYS[i * 2], a)
end
return results
