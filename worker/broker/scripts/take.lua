-- Take unread messages for one worker: start-time fair queueing between cameras, the earliest deadline among those whose
-- turn it is, up to a bound in frames and bytes. See intake.py for the bound on fairness.
-- KEYS: ready zset, due zset, totals hash
-- ARGV: key prefix, consumer, most frames, most bytes, quantum in frames, the worker's set, field of its virtual time
-- Returns: a list of {camera, entry id, index metadata or '', fields}
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: what is taken is what empties it.
redis.call('ZREM', KEYS[1], '')
local prefix, consumer = ARGV[1], ARGV[2]
local max_frames, max_bytes, quantum = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local out, frames, bytes = {}, 0, 0
local weights, finishes, vtime = {}, {}, nil

local function read(camera)
  local stream = prefix .. 'frames:' .. camera
  local got = redis.pcall('XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', 1, 'STREAMS', stream, '>')
  if type(got) == 'table' and got.err then
    if not string.find(got.err, 'NOGROUP', 1, true) then error(got.err) end
    if redis.call('EXISTS', stream) == 0 then return nil end
    redis.call('XGROUP', 'CREATE', stream, 'workers', '0')
    got = redis.call('XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', 1, 'STREAMS', stream, '>')
  end
  return got and got[1][2][1]
end

-- Whether this worker's set settles the camera; one that was moved away is taken out of our order, and is in its own.
local function mine(camera)
  if weights[camera] == nil then
    local state = redis.call('HMGET', prefix .. 'camera:' .. camera, 'weight', 'set')
    if (state[2] or 'main') ~= ARGV[6] then return false end
    weights[camera] = tonumber(state[1] or '1') or 1
  end
  return true
end

-- Taking makes no deadline, so where there is none now there will be none in this call.
local deadlines = redis.call('EXISTS', KEYS[2]) == 1

while frames < max_frames and bytes < max_bytes do
  local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if #head == 0 then break end
  local camera, start = head[1], tonumber(head[2])
  local least = start
  for _, member in ipairs(deadlines and redis.call('ZRANGE', KEYS[2], 0, 15) or {}) do
    local other = string.match(member, '^(.-)|')
    local its = redis.call('ZSCORE', KEYS[1], other)
    if its and tonumber(its) <= least + quantum then
      camera, start = other, tonumber(its)
      break
    end
  end
  local entry = nil
  if mine(camera) then entry = read(camera) end
  if not entry then
    redis.call('ZREM', KEYS[1], camera)
  else
    local id, fields = entry[1], entry[2]
    local meta = redis.call('HGET', prefix .. 'index:' .. camera, id) or ''
    local n = tonumber(string.match(meta, '^(%d+)') or '1')
    local size = tonumber(string.match(meta, '^%d+:%d+:%d+:(%d+)') or '0')
    local finish = start + n / weights[camera]
    if string.sub(meta, -2) ~= ':0' then redis.call('ZREM', KEYS[2], camera .. '|' .. id) end
    redis.call('ZADD', KEYS[1], finish, camera)
    finishes[camera], vtime = finish, least
    frames, bytes = frames + n, bytes + size
    out[#out + 1] = {camera, id, meta, fields or {}}
  end
end
-- Written once a call and not once a message: every write goes into the append-only file.
for camera, finish in pairs(finishes) do
  redis.call('HSET', prefix .. 'camera:' .. camera, 'vfinish', string.format('%.6f', finish))
end
if vtime then redis.call('HSET', KEYS[3], ARGV[7], string.format('%.6f', vtime)) end
return out
