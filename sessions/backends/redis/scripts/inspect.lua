-- Return how a session stands; have a node follow it, if one is named. Of too many, the oldest are told no more.
-- KEYS: meta, snapshot  ARGV: node or '', how many may follow
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'h', 'c', 'f', 'fk', 'w')
if not at[1] then
  return false
end
if at[1] == '' then
  return 'DELETED'
end
if ARGV[1] ~= '' and not string.find(' ' .. at[8] .. ' ', ' ' .. ARGV[1] .. ' ', 1, true) then
  local nodes = {}
  for node in string.gmatch(at[8], '%S+') do
    nodes[#nodes + 1] = node
  end
  nodes[#nodes + 1] = ARGV[1]
  redis.call('HSET', KEYS[1], 'w', table.concat(nodes, ' ', math.max(1, #nodes - tonumber(ARGV[2]) + 1)))
end
local snapshot = redis.call('HMGET', KEYS[2], 'q', 'k', 'd')
return {at[1], at[2], at[3], at[4], at[5], at[6], at[7], snapshot[1], snapshot[2], snapshot[3]}
