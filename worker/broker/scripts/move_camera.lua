-- Let another set of workers settle a camera's frames from now on, if the camera still stands where the caller saw it.
-- What is unread goes with the camera; what a worker has in hand is settled by that worker, once.
-- KEYS: cameras hash, camera hash, sets hash, set history stream, events stream, index hash, totals hash
-- ARGV: key prefix, camera, revision seen (0: never moved), set to move to ('main' too), record of the move as JSON
-- Returns: {1, new revision, set before}, or {0, revision that stands, set}; {-1, 0, ''} where there is no such camera,
--          {-2, 0, ''} where there is no such set, {-3, revision, set} where the set settles it already
local prefix, camera, target = ARGV[1], ARGV[2], ARGV[4]
if redis.call('HEXISTS', KEYS[1], camera) == 0 then return {-1, 0, ''} end
if target ~= 'main' and redis.call('HEXISTS', KEYS[3], target) == 0 then return {-2, 0, ''} end
local state = redis.call('HMGET', KEYS[2], 'set', 'set_revision', 'copy')
local from, revision = state[1] or 'main', tonumber(state[2] or '0')
if revision ~= tonumber(ARGV[3]) then return {0, revision, from} end
if from == target then return {-3, revision, from} end

local function keys_of(set)
  if set == 'main' then return prefix .. 'ready', prefix .. 'due', prefix .. 'bell', 'vtime' end
  return prefix .. 'ready:' .. set, prefix .. 'due:' .. set, prefix .. 'bell:' .. set, 'vtime:' .. set
end
local ready, due = keys_of(from)
local ready_there, due_there, bell_there, vtime_there = keys_of(target)
-- Its turn among the cameras of the other set begins where they are now: their virtual times have nothing to do with ours.
local start = redis.call('HGET', KEYS[7], vtime_there) or '0'
revision = revision + 1
redis.call('HSET', KEYS[2], 'set_revision', revision, 'vfinish', start)
if target == 'main' then
  redis.call('HDEL', KEYS[2], 'set')
else
  redis.call('HSET', KEYS[2], 'set', target)
end
if state[3] == target then redis.call('HDEL', KEYS[2], 'copy') end -- what it settles is not copied to it as well
if redis.call('ZREM', ready, camera) == 1 then
  redis.call('ZADD', ready_there, start, camera)
  if redis.call('LLEN', bell_there) < 16 then redis.call('LPUSH', bell_there, '1') end
end
local index = redis.call('HGETALL', KEYS[6])
for i = 1, #index, 2 do
  local deadline = string.match(index[i + 1], ':(%d+)$')
  local member = camera .. '|' .. index[i]
  if deadline ~= '0' and redis.call('ZREM', due, member) == 1 then redis.call('ZADD', due_there, deadline, member) end
end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'move', ARGV[5])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', '1000', '*', 'kind', 'set', 'name', camera)
return {1, revision, from}
