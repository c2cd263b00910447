-- Renew a node's lease, and return the nodes there are, each with whether its lease holds.
-- KEYS: nodes  ARGV: the prefix of leases, node, milliseconds, what to say of it
redis.call('SADD', KEYS[1], ARGV[2])
redis.call('SET', ARGV[1] .. ARGV[2], ARGV[4], 'PX', ARGV[3])
local found = {}
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  found[#found + 1] = {node, redis.call('EXISTS', ARGV[1] .. node)}
end
return found
