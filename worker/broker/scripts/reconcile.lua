-- Make the order of service agree with the streams again: whatever has unread messages is put in line, groups are made.
-- Covers entries that came without admission, a lost doorbell, a destroyed group and a flush. Once a minute it also
-- forgets workers that are long gone, which every group would remember for ever.
-- KEYS: cameras hash, ready zset, totals hash, bell list, workers hash
-- ARGV: key prefix, idle ms after which a dead worker is forgotten
-- Returns: {cameras put in line, groups made, consumers forgotten}
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: who empties the memory must get at it.
redis.call('ZREM', KEYS[2], '')
local prefix, gone_ms = ARGV[1], tonumber(ARGV[2])
local woken, made, forgotten, bells = 0, 0, 0, {}
local totals = redis.call('HMGET', KEYS[3], 'swept_s')
local now_s = tonumber(redis.call('TIME')[1])
local sweep = math.abs(now_s - tonumber(totals[1] or '0')) >= 60

-- A name that came into the hash by another way than open_camera is nobody's.
local function is_name(name) return #name <= 64 and string.match(name, '^[%w][%w._-]*$') ~= nil end

local function last_delivered(stream)
  local groups = redis.call('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups) do
    local named, last = false, nil
    for i = 1, #group, 2 do
      if group[i] == 'name' then named = group[i + 1] == 'workers' end
      if group[i] == 'last-delivered-id' then last = group[i + 1] end
    end
    if named then return last end
  end
end

local function forget(stream)
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, 'workers')) do
    local about = {}
    for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
    if about.pending == 0 and about.idle >= gone_ms and about.name ~= 'released'
      and redis.call('EXISTS', prefix .. 'worker:' .. about.name) == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream, 'workers', about.name)
      redis.call('HDEL', KEYS[5], about.name)
      forgotten = forgotten + 1
    end
  end
end

for _, camera in ipairs(redis.call('HKEYS', KEYS[1])) do
  local stream = prefix .. 'frames:' .. camera
  if is_name(camera) and redis.call('EXISTS', stream) == 1 then
    local last = last_delivered(stream)
    if not last then
      redis.call('XGROUP', 'CREATE', stream, 'workers', '0')
      redis.call('HSET', prefix .. 'camera:' .. camera, 'group', '1')
      last = '0-0'
      made = made + 1
    end
    -- Asked of the stream itself: lengths and pending counts lie where entries were deleted.
    local set = redis.call('HGET', prefix .. 'camera:' .. camera, 'set')
    local suffix = set and (':' .. set) or ''
    if not redis.call('ZSCORE', KEYS[2] .. suffix, camera)
      and redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1] then
      redis.call('ZADD', KEYS[2] .. suffix, redis.call('HGET', KEYS[3], 'vtime' .. suffix) or '0', camera)
      woken = woken + 1
      bells[KEYS[4] .. suffix] = true
    end
    if sweep then forget(stream) end
  end
end
if sweep then
  -- Those that never took anything are in no group, and their word alone is left of them.
  local said = redis.call('HGETALL', KEYS[5])
  for i = 1, #said, 2 do
    local life, beat_us = string.match(said[i + 1], '"life":"([%w._-]+)","beat_us":(%d+)}$')
    if life and now_s * 1000 - tonumber(beat_us) / 1000 >= gone_ms
      and redis.call('EXISTS', prefix .. 'worker:' .. life) == 0 then
      redis.call('HDEL', KEYS[5], said[i])
      forgotten = forgotten + 1
    end
  end
  redis.call('HSET', KEYS[3], 'swept_s', now_s)
end
for bell in pairs(bells) do
  if redis.call('LLEN', bell) < 16 then redis.call('LPUSH', bell, '1') end
end
return {woken, made, forgotten}
