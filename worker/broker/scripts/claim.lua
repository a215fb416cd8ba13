-- Claim messages whose worker is dead, or too slow, beginning at a camera where the last call left off.
-- KEYS: cameras hash
-- ARGV: key prefix, consumer, idle ms for a dead worker, idle ms for a living one, most frames, most bytes,
--       camera to begin after, most cameras to look at, the worker's set
-- Returns: {camera to go on after, list of {camera, entry id, index metadata or '', fields or false, deliveries, crashes}, ms
--   until the next message that a dead worker holds may be claimed, -1 where none of those that were looked at does}
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: who empties the memory must get at it.
redis.call('ZREM', ARGV[1] .. 'ready', '')
local prefix, consumer = ARGV[1], ARGV[2]
local dead_ms, slow_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local max_frames, max_bytes, most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local PAGE = 64
-- A name that came into the hash by another way than open_camera is nobody's.
local function is_name(name) return #name <= 64 and string.match(name, '^[%w][%w._-]*$') ~= nil end
local cameras = redis.call('HKEYS', KEYS[1])
table.sort(cameras)
local from = 1
for i, name in ipairs(cameras) do
  if name > ARGV[7] then from = i break end
end
local out, frames, bytes, after, due_ms = {}, 0, 0, '', -1
local looked = 0

local function full() return frames >= max_frames or bytes >= max_bytes end

-- After an outage nobody counts as dead before everybody had time to say that it lives; see beat.lua.
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
local amnesty_us = tonumber(redis.call('HGET', prefix .. 'line', 'amnesty_us') or '0')
local amnesty = now_us < amnesty_us and amnesty_us - now_us < 60000000

local alive = {}
local function lives(owner)
  if alive[owner] == nil then
    alive[owner] = owner == consumer or redis.call('EXISTS', prefix .. 'worker:' .. owner) == 1
      or (amnesty and owner ~= 'released')
  end
  return alive[owner]
end

local function claim(camera, stream, owner, id, delivered)
  local meta = redis.call('HGET', prefix .. 'index:' .. camera, id) or ''
  local found = redis.call('XRANGE', stream, id, id)
  local fields = found[1] and found[1][2] or false
  if not fields and meta == '' then
    redis.call('XACK', stream, 'workers', id)
    return
  end
  local deliveries, crashes = delivered + 1, 0
  if fields and not lives(owner) and owner ~= 'released' then
    crashes = redis.call('HINCRBY', prefix .. 'crashes:' .. camera, id, 1)
  else
    crashes = tonumber(redis.call('HGET', prefix .. 'crashes:' .. camera, id) or '0')
  end
  -- A deleted entry is not claimed: Redis 7 would drop it from the pending list, and settling acknowledges it there.
  -- JUSTID alone would leave the delivery count as it was.
  if fields then redis.call('XCLAIM', stream, 'workers', consumer, 0, id, 'RETRYCOUNT', deliveries, 'JUSTID') end
  frames = frames + tonumber(string.match(meta, '^(%d+)') or '1')
  bytes = bytes + tonumber(string.match(meta, '^%d+:%d+:%d+:(%d+)') or '0')
  out[#out + 1] = {camera, id, meta, fields, deliveries, crashes}
end

-- Owner by owner: a living worker's many messages must not hide a dead one's behind them.
local function claim_of(camera, stream, owner)
  local start, threshold = '-', lives(owner) and slow_ms or dead_ms
  while not full() do
    local page = redis.call('XPENDING', stream, 'workers', 'IDLE', threshold, start, '+', PAGE, owner)
    for _, item in ipairs(page) do
      if full() then return end
      claim(camera, stream, owner, item[1], item[4])
    end
    if #page < PAGE then break end
    start = '(' .. page[#page][1]
  end
  -- Its death is known before its messages may be claimed: who is told when can be ready for them.
  if full() or lives(owner) or owner == 'released' then return end
  for _, item in ipairs(redis.call('XPENDING', stream, 'workers', '-', '+', PAGE, owner)) do
    local left = math.max(dead_ms - item[3], 0)
    if due_ms < 0 or left < due_ms then due_ms = left end
  end
end

for step = 0, #cameras - 1 do
  if full() or looked >= most then break end
  local camera = cameras[(from - 1 + step) % #cameras + 1]
  local stream = prefix .. 'frames:' .. camera
  looked = looked + 1
  after = camera
  local pending = is_name(camera) and redis.pcall('XPENDING', stream, 'workers')
  -- Another set's cameras are claimed by its own workers: they have another backbone.
  local ours = (redis.call('HGET', prefix .. 'camera:' .. camera, 'set') or 'main') == ARGV[9]
  if ours and type(pending) == 'table' and not pending.err then
    for _, owner in ipairs(pending[4] or {}) do claim_of(camera, stream, owner[1]) end
  end
end
if looked >= #cameras then after = '' end
return {after, out, due_ms}
