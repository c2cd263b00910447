-- Return which outboxes hold something: {index in KEYS, how many turns, the oldest one's id, ...}.
-- KEYS: outboxes
local found = {}
for i, key in ipairs(KEYS) do
  local count = redis.call('XLEN', key)
  if count > 0 then
    local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)
    found[#found + 1] = i
    found[#found + 1] = count
    found[#found + 1] = first[1][1]
  end
end
return found
