-- Return what follows a place in a log, whose the session is, its head, the last input that was answered, the
-- entry that holds the place (of its numbers, some may follow), and whether the reader is told of it (0, 1): also
-- where it isn't, and as many are as may.
-- KEYS: meta, log  ARGV: incarnation, place, its nonce, how many entries, the reader or '', how many may follow
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'h', 'k', 'f', 'fk', 'c', 'w')
local after = tonumber(ARGV[2])
if at[1] ~= ARGV[1] or after < tonumber(at[6]) then
  return 'GONE'
end
if after > tonumber(at[4]) then
  return 'LOST'
end
local holder = {}
if after == tonumber(at[4]) then
  if at[5] ~= ARGV[3] then
    return 'LOST'
  end
elseif after == tonumber(at[6]) then
  if at[7] ~= ARGV[3] then
    return 'LOST'
  end
else
  local found = redis.call('XREVRANGE', KEYS[2], string.format('%d-0', after), '-', 'COUNT', 1)
  if #found == 0 or found[1][2][2] ~= ARGV[3] then
    return 'LOST'
  end
  holder = found[1]
end
local entries = {}
if after < tonumber(at[4]) then
  entries = redis.call('XRANGE', KEYS[2], string.format('%d-0', after + 1), '+', 'COUNT', ARGV[4])
end
local is_told = 0
if ARGV[5] ~= '' then
  local count = 0
  for node in string.gmatch(at[9], '%S+') do
    count = count + 1
    if node == ARGV[5] then
      is_told = 1
    end
  end
  if count >= tonumber(ARGV[6]) then
    is_told = 1
  end
end
return {at[1], at[2], at[3], tonumber(at[4]), tonumber(at[8]), holder, entries, is_told}
