-- Renew a node's lease, and return the nodes there are.
-- KEYS: nodes, lease  ARGV: node, milliseconds of the lease, seconds after which the nodes are forgotten,
--   what to say of the node
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[2])
return redis.call('SMEMBERS', KEYS[1])
