-- Remove turns that are kept elsewhere by now from an outbox.
-- KEYS: outbox, how many bytes that takes  ARGV: ids
for _, id in ipairs(ARGV) do
  local found = redis.call('XRANGE', KEYS[1], id, id)
  if #found == 1 then
    redis.call('XDEL', KEYS[1], id)
    redis.call('DECRBY', KEYS[2], #found[1][2][2])
  end
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
end
return 1
