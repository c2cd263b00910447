-- Return the number of an input that was written before, by its name; nothing, if it wasn't.
-- KEYS: meta, names  ARGV: incarnation, name, digest
local incarnation = redis.call('HGET', KEYS[1], 'i')
if incarnation == '' then
  return 'DELETED'
end
if incarnation ~= ARGV[1] then
  return 'GONE'
end
local known = redis.call('HGET', KEYS[2], ARGV[2])
if not known then
  return false
end
local cut = string.find(known, ':', 1, true)
if string.sub(known, cut + 1) ~= ARGV[3] then
  return 'REUSED'
end
return tonumber(string.sub(known, 1, cut - 1))
