-- Return what is noted of sessions, each '' if nothing ever was, or nothing if it has gone.
-- KEYS: for each session meta
local found = {}
for i, meta in ipairs(KEYS) do
  local at = redis.call('HMGET', meta, 'i', 'm')
  found[i] = at[1] and at[1] ~= '' and (at[2] or '')
end
return found
