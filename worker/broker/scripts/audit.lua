-- Find messages that nobody would ever read or claim again, and bring them back: those whose entry was deleted behind our
-- back, and those that were acknowledged by somebody who did not settle them.
-- KEYS: cameras hash, ready zset of the worker's set
-- ARGV: key prefix, consumer, most frames, most bytes, camera to go on with ('' from the first), cursor in its index,
--       most index fields to look at, the worker's set
-- Returns: {camera to go on with, cursor, list of {camera, entry id, index metadata, fields or false, deliveries, crashes}}
--
-- What is in the index is admitted and not settled. So its entry is in the stream, and either nobody has read it yet (it is
-- behind the group's last delivered id) or it is pending. Take, claim and settle keep that in one step each; what is found
-- otherwise here is so for good.
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: who empties the memory must get at it.
redis.call('ZREM', KEYS[2], '')
local prefix, consumer = ARGV[1], ARGV[2]
local max_frames, max_bytes, most = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[7])
local cameras = redis.call('HKEYS', KEYS[1])
table.sort(cameras)
local at, cursor = 1, ARGV[6]
for i, name in ipairs(cameras) do
  if name >= ARGV[5] then at = i break end
end
if cameras[at] ~= ARGV[5] then cursor = '0' end
local out, frames, bytes, looked = {}, 0, 0, 0

local function parts(id)
  local ms, n = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(n)
end

local function delivered(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if type(groups) ~= 'table' or groups.err then return nil end
  for _, group in ipairs(groups) do
    local named, last = false, nil
    for i = 1, #group, 2 do
      if group[i] == 'name' then named = group[i + 1] == 'workers' end
      if group[i] == 'last-delivered-id' then last = group[i + 1] end
    end
    if named then return last end
  end
end

local function bring_back(camera, id, meta, fields)
  local crashes = tonumber(redis.call('HGET', prefix .. 'crashes:' .. camera, id) or '0')
  frames = frames + tonumber(string.match(meta, '^(%d+)'))
  bytes = bytes + tonumber(string.match(meta, '^%d+:%d+:%d+:(%d+)'))
  out[#out + 1] = {camera, id, meta, fields, 2, crashes}
end

-- A name that came into the hash by another way than open_camera is nobody's.
local function is_name(name) return #name <= 64 and string.match(name, '^[%w][%w._-]*$') ~= nil end

local function audit(camera)
  if not is_name(camera) then return '0' end
  if (redis.call('HGET', prefix .. 'camera:' .. camera, 'set') or 'main') ~= ARGV[8] then return '0' end
  local stream, index = prefix .. 'frames:' .. camera, prefix .. 'index:' .. camera
  local held, entries = redis.call('HLEN', index), 0
  if redis.call('EXISTS', stream) == 1 then entries = redis.call('XLEN', stream) end
  local last = delivered(stream)
  local pending = last and redis.call('XPENDING', stream, 'workers')[1] or 0
  local gone = held > entries
  -- Nothing unread, all that is held is pending, every entry is there: the usual case costs no more than this.
  if held == 0 or (not gone and held <= pending and not redis.call('ZSCORE', KEYS[2], camera)) then return '0' end
  local ms, n = parts(last or '0-0')
  local page = redis.call('HSCAN', index, cursor, 'COUNT', 256)
  for i = 1, #page[2], 2 do
    local id, meta = page[2][i], page[2][i + 1]
    looked = looked + 1
    local its_ms, its_n = parts(id)
    local read = last and (its_ms < ms or (its_ms == ms and its_n <= n))
    if frames >= max_frames or bytes >= max_bytes then
      -- The rest of this page waits for the next round; nothing is given up by that.
      return page[1]
    end
    if read or gone then
      local owned = read and #redis.call('XPENDING', stream, 'workers', id, id, 1) > 0
      if not owned then
        local found = redis.call('XRANGE', stream, id, id)
        local fields = found[1] and found[1][2] or false
        if fields and read then
          redis.call('XCLAIM', stream, 'workers', consumer, 0, id, 'RETRYCOUNT', 2, 'FORCE', 'JUSTID')
          bring_back(camera, id, meta, fields)
        elseif not fields then
          bring_back(camera, id, meta, false)
        end
      end
    end
  end
  return page[1]
end

while at <= #cameras and looked < most and frames < max_frames and bytes < max_bytes do
  cursor = audit(cameras[at])
  looked = looked + 1
  if cursor == '0' then at = at + 1 end
end
return {cameras[at] or '', cursor, out}
