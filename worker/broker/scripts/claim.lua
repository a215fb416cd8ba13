-- Claim messages whose worker is dead, or too slow, beginning at a camera where the last call left off.
-- KEYS: cameras hash
-- ARGV: key prefix, consumer, idle ms for a dead worker, idle ms for a living one, most frames, most bytes,
--       camera to begin after, most cameras to look at
-- Returns: {camera to go on after, list of {camera, entry id, index metadata or '', fields or false, deliveries, crashes}}
local prefix, consumer = ARGV[1], ARGV[2]
local dead_ms, slow_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local max_frames, max_bytes, most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local cameras = redis.call('HKEYS', KEYS[1])
table.sort(cameras)
local from = 1
for i, name in ipairs(cameras) do
  if name > ARGV[7] then from = i break end
end
local out, frames, bytes, after = {}, 0, 0, ''
local alive = {}
local looked = 0
for step = 0, #cameras - 1 do
  if frames >= max_frames or bytes >= max_bytes or looked >= most then break end
  local camera = cameras[(from - 1 + step) % #cameras + 1]
  local stream = prefix .. 'frames:' .. camera
  looked = looked + 1
  after = camera
  local pending = redis.pcall('XPENDING', stream, 'workers', 'IDLE', dead_ms, '-', '+', 64)
  if type(pending) == 'table' and not pending.err then
    for _, item in ipairs(pending) do
      if frames >= max_frames or bytes >= max_bytes then break end
      local id, owner, idle = item[1], item[2], item[3]
      if alive[owner] == nil then
        alive[owner] = owner == consumer or redis.call('EXISTS', prefix .. 'worker:' .. owner) == 1
      end
      if not alive[owner] or idle >= slow_ms then
        local index = prefix .. 'index:' .. camera
        local meta = redis.call('HGET', index, id) or ''
        local found = redis.call('XRANGE', stream, id, id)
        local fields = found[1] and found[1][2] or false
        local crashes = tonumber(redis.call('HGET', prefix .. 'crashes:' .. camera, id) or '0')
        if not alive[owner] and owner ~= 'released' then
          crashes = redis.call('HINCRBY', prefix .. 'crashes:' .. camera, id, 1)
        end
        -- A deleted entry is not claimed: Redis 7 would drop it from the pending list, and settling acknowledges it there.
        if fields then redis.call('XCLAIM', stream, 'workers', consumer, 0, id, 'JUSTID') end
        if fields or meta ~= '' then
          frames = frames + tonumber(string.match(meta, '^(%d+)') or '1')
          bytes = bytes + tonumber(string.match(meta, '^%d+:%d+:%d+:(%d+)') or '0')
          out[#out + 1] = {camera, id, meta, fields, item[4] + 1, crashes}
        else
          redis.call('XACK', stream, 'workers', id)
        end
      end
    end
  end
end
if looked >= #cameras then after = '' end
return {after, out}
