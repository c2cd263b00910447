-- One decision about one tenant's quotas, as unbroken.server.quota.book takes it; read that first.
-- KEYS: the tenant's open reservations (sorted by when they lapse), its records (a stream). All other keys begin
--   with the prefix, which has the same hash tag.
-- ARGV: what to do, its arguments as JSON: prefix, now (else the server's time), turn, scopes (of kind and key),
--   limits by kind and code, tokens, cost, lifetime, enforce, as_new, lapses, record, user, kept, records,
--   records_of_user, record_lifetime, most
-- Returns: state ('ok', 'denied', 'known'), the denied one's place among the standings (0: none), milliseconds
--   to wait (-1: for ever), then for each standing: kind, key, code, limit, used, milliseconds until a part is free
local op, given = ARGV[1], cjson.decode(ARGV[2])
local LENGTH, COUNT = {m = 5, d = 3600}, {m = 12, d = 24}
local CODES = {'rm', 'rd', 'tm', 'td', 'cd'}
local LIFETIME = 3600 * 26
local now = given.now
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local part = math.floor(now / LENGTH.m)

local function whole(number) return string.format('%.0f', number) end
local function window(code) return string.sub(code, 2, 2) end
local function is_live(code, index)
  return index >= math.floor(now / LENGTH[window(code)]) - COUNT[window(code)]
end
local function frees_in(code, index)
  return (index + COUNT[window(code)] + 1) * LENGTH[window(code)] - now
end
local function account_key(scope) return given.prefix .. scope end
local function turn_key(turn) return given.prefix .. 'r:' .. turn end

local accounts = {}
local function account_of(scope)
  if accounts[scope] then return accounts[scope] end
  local account = {key = account_key(scope), turns = 0, slices = {}}
  for _, code in ipairs(CODES) do account.slices[code] = {} end
  local all = redis.call('HGETALL', account.key)
  for i = 1, #all, 2 do
    if all[i] == 'turns' then
      account.turns = tonumber(all[i + 1])
    else
      local code, index = string.match(all[i], '^(%a+):(%d+)$')
      index = tonumber(index)
      if is_live(code, index) then
        account.slices[code][index] = tonumber(all[i + 1])
      else
        redis.call('HDEL', account.key, all[i])
      end
    end
  end
  accounts[scope] = account
  return account
end
local function used(account, code)
  if code == 'turns' then return account.turns end
  local sum = 0
  for _, amount in pairs(account.slices[code]) do sum = sum + amount end
  return sum
end
local function sorted(slices)
  local indexes = {}
  for index in pairs(slices) do indexes[#indexes + 1] = index end
  table.sort(indexes)
  return indexes
end
local function reset(account, code)
  if code == 'turns' then return 0 end
  for _, index in ipairs(sorted(account.slices[code])) do
    if account.slices[code][index] ~= 0 then return frees_in(code, index) end
  end
  return 0
end
local function wait(account, code, wanted, limit)
  if wanted > limit then return math.huge end
  if code == 'turns' then return 1 end
  local over = used(account, code) + wanted - limit
  for _, index in ipairs(sorted(account.slices[code])) do
    over = over - account.slices[code][index]
    if over <= 0 then return frees_in(code, index) end
  end
  return math.huge
end
local function change(scopes, measure, at, by)
  if by == 0 then return end
  for _, scope in ipairs(scopes) do
    local account = account_of(scope)
    for _, code in ipairs(CODES) do
      local index = math.floor(at * LENGTH.m / LENGTH[window(code)])
      if string.sub(code, 1, 1) == measure and is_live(code, index) then
        -- Never below nothing: the server may have had to throw away what this gives back to.
        local before = account.slices[code][index] or 0
        local after = math.max(0, before + by)
        account.slices[code][index] = after
        redis.call('HINCRBY', account.key, code .. ':' .. whole(index), whole(after - before))
        redis.call('EXPIRE', account.key, LIFETIME)
      end
    end
  end
end
local function count_turns(scopes, by)
  for _, scope in ipairs(scopes) do
    local account = account_of(scope)
    account.turns = math.max(0, account.turns + by)
    redis.call('HSET', account.key, 'turns', whole(account.turns))
    redis.call('EXPIRE', account.key, LIFETIME)
  end
end

-- A reservation: 's' its scopes, 'q' the part its request was counted in, and for each part in which something was reserved
-- 't:<part>' and 'c:<part>'. Of one that is settled there is 'x' alone: until when it is known as such.
local function reservation_of(turn)
  local all = redis.call('HGETALL', turn_key(turn))
  if #all == 0 then return nil end
  local found = {turn = turn, tokens = {}, cost = {}, t = 0, c = 0}
  for i = 1, #all, 2 do
    local measure, at = string.match(all[i], '^([tc]):(%d+)$')
    local value = all[i + 1]
    if measure == 't' then
      found.tokens[tonumber(at)] = tonumber(value)
      found.t = found.t + tonumber(value)
    elseif measure == 'c' then
      found.cost[tonumber(at)] = tonumber(value)
      found.c = found.c + tonumber(value)
    elseif all[i] == 's' then
      found.scopes = cjson.decode(value)
    elseif all[i] == 'q' then
      found.requested_in = tonumber(value)
    elseif all[i] == 'x' then
      found.is_settled, found.kept_until = true, tonumber(value)
    end
  end
  if found.is_settled and found.kept_until <= now then
    redis.call('DEL', turn_key(turn))
    return nil
  end
  return found
end
local function take(reservation, tokens, cost)
  change(reservation.scopes, 't', part, tokens)
  change(reservation.scopes, 'c', part, cost)
  if tokens > 0 then redis.call('HINCRBY', turn_key(reservation.turn), 't:' .. whole(part), whole(tokens)) end
  if cost > 0 then redis.call('HINCRBY', turn_key(reservation.turn), 'c:' .. whole(part), whole(cost)) end
end
local function give_back(reservation, measure, parts, amount)
  local indexes = sorted(parts)
  for i = #indexes, 1, -1 do
    local back = math.min(amount, parts[indexes[i]])
    amount = amount - back
    change(reservation.scopes, measure, indexes[i], -back)
  end
end
local function give_all_back(reservation)
  give_back(reservation, 't', reservation.tokens, reservation.t)
  give_back(reservation, 'c', reservation.cost, reservation.c)
  count_turns(reservation.scopes, -1)
  redis.call('DEL', turn_key(reservation.turn))
  redis.call('ZREM', KEYS[1], reservation.turn)
end
local function keep(reservation, lifetime)
  redis.call('HSET', turn_key(reservation.turn), 's', cjson.encode(reservation.scopes))
  redis.call('EXPIRE', turn_key(reservation.turn), math.ceil(lifetime) + LIFETIME)
  redis.call('ZADD', KEYS[1], now + lifetime, reservation.turn)
  redis.call('EXPIRE', KEYS[1], LIFETIME + math.ceil(lifetime))
end

-- Which of the tenant's records are a user's: the ids of the latest. And which users have any: there are no more of
-- them than there are records, so whoever got one longest ago has none left.
local function owner_key(user) return given.prefix .. 'l:' .. user end
local function note_owner(id)
  local key, owners = owner_key(given.user), given.prefix .. 'lu'
  local milliseconds, number = string.match(id, '^(%d+)-(%d+)$')
  redis.call('ZADD', key, string.format('%.3f', tonumber(milliseconds) + tonumber(number) / 1000), id)
  redis.call('EXPIRE', key, given.record_lifetime)
  for _, old in ipairs(redis.call('ZRANGE', key, 0, -given.records_of_user - 1)) do redis.call('ZREM', key, old) end
  redis.call('ZADD', owners, milliseconds, given.user)
  redis.call('EXPIRE', owners, given.record_lifetime)
  for _, user in ipairs(redis.call('ZRANGE', owners, 0, -given.records - 1)) do
    redis.call('ZREM', owners, user)
    redis.call('DEL', owner_key(user))
  end
end

-- What lapsed is given back before anything is decided, so much at a time: what is left still counts.
for _, turn in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, given.lapses)) do
  local reservation = reservation_of(turn)
  if reservation then give_all_back(reservation) else redis.call('ZREM', KEYS[1], turn) end
end

local function decide(scopes, wanted)
  local answer, denied, longest = {}, 0, 0
  local place = 0
  for _, scope in ipairs(scopes) do
    local kind = string.sub(scope, 1, 1)
    local account = account_of(scope)
    for _, pair in ipairs(given.limits[kind] or {}) do
      local code, limit = pair[1], pair[2]
      local has = used(account, code)
      place = place + 1
      for _, value in ipairs({kind, scope, code, whole(limit), whole(has), math.ceil(reset(account, code) * 1000)}) do
        answer[#answer + 1] = value
      end
      local more = wanted[code == 'turns' and code or string.sub(code, 1, 1)] or 0
      if more > 0 and has + more > limit then
        local needed = wait(account, code, more, limit)
        if denied == 0 or needed > longest then denied, longest = place, needed end
      end
    end
  end
  return answer, denied, longest
end
local function reply(state, denied, longest, answer)
  local milliseconds = longest == math.huge and -1 or math.ceil(longest * 1000)
  return {state, denied, milliseconds, unpack(answer)}
end

if op == 'look' then
  local answer = {}
  for _, scope in ipairs(given.scopes) do
    local account = account_of(scope)
    for _, code in ipairs({'rm', 'rd', 'tm', 'td', 'cd', 'turns'}) do answer[#answer + 1] = whole(used(account, code)) end
  end
  return answer
end

if op == 'records' then
  local answer = {}
  if given.most == 0 then return answer end
  for _, id in ipairs(redis.call('ZRANGE', owner_key(given.user), 0, given.most - 1, 'REV')) do
    local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
    if entry then answer[#answer + 1] = entry[2][2] end -- else the tenant has had so many since
  end
  return answer
end

if op == 'standings' then return reply('ok', 0, 0, (decide(given.scopes, {}))) end

local reservation = reservation_of(given.turn)
if op == 'reserve' then
  if reservation then return reply('known', 0, 0, decide(given.scopes, {})) end
  local answer, denied, longest = decide(given.scopes, {r = 1, t = given.tokens, c = given.cost, turns = 1})
  if denied > 0 and given.enforce then return reply('denied', denied, longest, answer) end
  reservation = {turn = given.turn, scopes = given.scopes}
  keep(reservation, given.lifetime)
  redis.call('HSET', turn_key(given.turn), 'q', whole(part))
  change(given.scopes, 'r', part, 1)
  count_turns(given.scopes, 1)
  take(reservation, given.tokens, given.cost)
  return reply('ok', denied, longest, (decide(given.scopes, {})))
elseif op == 'hold' then
  if reservation and reservation.is_settled then return {'known', 0, 0} end
  local had = reservation
  reservation = reservation or {turn = given.turn, scopes = given.scopes, t = 0, c = 0}
  local tokens, cost = math.max(0, given.tokens - reservation.t), math.max(0, given.cost - reservation.c)
  local place = given.as_new and not had and 1 or 0
  local answer, denied, longest = decide(reservation.scopes, {t = tokens, c = cost, turns = place})
  local is_granted = denied == 0 or not given.enforce
  if had or is_granted then keep(reservation, given.lifetime) end
  if is_granted and not had then count_turns(reservation.scopes, 1) end
  if is_granted then take(reservation, tokens, cost) end
  return reply(is_granted and 'ok' or 'denied', denied, longest, answer)
elseif op == 'keep' then
  if not reservation or reservation.is_settled then return 0 end
  keep(reservation, given.lifetime)
  return 1
elseif op == 'settle' then
  if reservation and reservation.is_settled then return 0 end
  local had = reservation
  reservation = reservation or {turn = given.turn, scopes = given.scopes, t = 0, c = 0, tokens = {}, cost = {}}
  take(reservation, math.max(0, given.tokens - reservation.t), math.max(0, given.cost - reservation.c))
  give_back(reservation, 't', reservation.tokens, math.max(0, reservation.t - given.tokens))
  give_back(reservation, 'c', reservation.cost, math.max(0, reservation.c - given.cost))
  if had then count_turns(reservation.scopes, -1) end
  redis.call('ZREM', KEYS[1], given.turn)
  redis.call('DEL', turn_key(given.turn))
  redis.call('HSET', turn_key(given.turn), 'x', string.format('%.6f', now + given.kept))
  redis.call('EXPIRE', turn_key(given.turn), given.kept)
  if given.record then
    local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', given.records, '*', 'r', given.record)
    local oldest = tonumber(string.match(id, '^(%d+)-')) - given.record_lifetime * 1000
    redis.call('XTRIM', KEYS[2], 'MINID', whole(oldest))
    redis.call('EXPIRE', KEYS[2], given.record_lifetime)
    note_owner(id)
  end
  return 1
elseif op == 'release' then
  if not reservation or reservation.is_settled then return 0 end
  if reservation.requested_in then change(reservation.scopes, 'r', reservation.requested_in, -1) end
  give_all_back(reservation)
  return 1
end
