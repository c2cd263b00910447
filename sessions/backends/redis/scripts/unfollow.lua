#!lua
-- Have a node follow a session no more. A server that can't write refuses it at once (the line above has it
-- taken for a write): so it also tells whether one can.
-- KEYS: meta, log, names, snapshot, busy: the first is used; all have to be there for one to write  ARGV: node
local followers = redis.call('HGET', KEYS[1], 'w')
if followers then
  local kept = {}
  for node in string.gmatch(followers, '%S+') do
    if node ~= ARGV[1] then
      kept[#kept + 1] = node
    end
  end
  redis.call('HSET', KEYS[1], 'w', table.concat(kept, ' '))
end
return 1
