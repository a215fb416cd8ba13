-- Settle whole messages: publish what was decided of them, once, whoever else tries.
-- KEYS: verdicts stream, totals hash, dead-stats hash, kept zset
-- ARGV: key prefix, msgpack of bounds, then one msgpack a message
-- Returns: one answer a message: 1 settled, 0 somebody else had settled it or it is another message by now, or a text that
-- says what is wrong with it.
--
-- Scripts do not roll back. So everything that could fail is looked at before the first write of a message; XACK is that
-- first write, because it is allowed at a full maxmemory and makes the writes after it allowed too.
local prefix, bounds = ARGV[1], cmsgpack.unpack(ARGV[2])
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])

local function rfc3339(seconds, micros)
  -- Days to a civil date (proleptic Gregorian), in eras of 400 years that begin on the first of March.
  local days, left = math.floor(seconds / 86400), seconds % 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(left / 3600), math.floor(left % 3600 / 60), left % 60, micros)
end
local judged_at = ',"judged_at":"' .. rfc3339(tonumber(now[1]), tonumber(now[2])) .. '"}'

-- Looked at once a call: nobody but this script can make a key meanwhile, and it makes none of another type.
local types = {}
local function is(key, wanted)
  local kind = types[key]
  if kind == nil then
    kind = redis.call('TYPE', key).ok
    types[key] = kind
  end
  if kind ~= 'none' and kind ~= wanted then return key .. ' is a ' .. kind .. ', not a ' .. wanted end
end

local function wrong_with(m)
  if type(m) ~= 'table' or type(m.camera) ~= 'string' or type(m.id) ~= 'string' or type(m.verdicts) ~= 'table' then
    return 'settle was called with a malformed message'
  end
  if not string.match(m.id, '^%d+%-%d+$') then return 'entry id ' .. m.id .. ' is malformed' end
  local problem = is(KEYS[1], 'stream') or is(KEYS[2], 'hash') or is(KEYS[3], 'hash') or is(KEYS[4], 'zset')
    or is(prefix .. 'camera:' .. m.camera, 'hash') or is(prefix .. 'index:' .. m.camera, 'hash')
    or is(prefix .. 'frames:' .. m.camera, 'stream') or is(prefix .. 'crashes:' .. m.camera, 'hash')
    or is(prefix .. 'due', 'zset')
  if problem then return problem end
  local frames = 0
  for _, v in ipairs(m.verdicts) do
    if type(v[1]) ~= 'string' or type(v[2]) ~= 'string' or type(v[3]) ~= 'string' then return 'a verdict is malformed' end
    if v[2] ~= 'pass' and v[2] ~= 'fail' and v[2] ~= 'not_judged' then return 'a verdict decides ' .. v[2] end
    frames = frames + 1
  end
  for _, d in ipairs(m.dead) do
    if type(d.reason) ~= 'string' or type(d.data) ~= 'string' then return 'a dead letter is malformed' end
    problem = is(prefix .. 'dead:' .. d.reason, 'stream')
    if problem then return problem end
  end
  for _, e in ipairs(m.events) do
    if type(e[1]) ~= 'string' or type(e[2]) ~= 'string' then return 'a feature event is malformed' end
    problem = is(prefix .. 'features:' .. e[1], 'stream')
    if problem then return problem end
  end
  for _, k in ipairs(m.kept) do
    if type(k[1]) ~= 'string' or type(k[2]) ~= 'string' then return 'a kept frame is malformed' end
    problem = is(prefix .. 'kept:' .. k[1], 'string') or is(prefix .. 'kept-verdict:' .. k[1], 'string')
    if problem then return problem end
  end
  local meta = redis.call('HGET', prefix .. 'index:' .. m.camera, m.id)
  m.meta = meta
  if m.unadmitted then
    if meta then return 'entry ' .. m.id .. ' was admitted' end
    if frames ~= 0 then return 'an entry without admission has no verdicts' end
  elseif meta then
    local n, seq, epoch = string.match(meta, '^(%d+):(%d+):(%d+):')
    -- Ids come from the clock: where another server was the master when it was taken, this one may have given the id to
    -- other frames. They are not decided here.
    local first = m.camera .. ':' .. epoch .. ':' .. seq
    m.other = frames > 0 and m.verdicts[1][1] ~= first
    if m.other then return end
    n = tonumber(n)
    if n ~= frames then return 'entry ' .. m.id .. ' holds ' .. tostring(n) .. ' frames, not ' .. frames end
  end
end

local function bury(d)
  local key, reason = prefix .. 'dead:' .. d.reason, d.reason
  local size = #d.data + 200
  redis.call('XADD', key, '*', 'id', d.id, 'camera', d.camera, 'reason', reason, 'detail', d.detail,
    'frames', d.frames, 'deliveries', d.deliveries, 'data', d.data)
  redis.call('HINCRBY', KEYS[3], reason .. ':total', d.frames)
  local held = redis.call('HINCRBY', KEYS[3], reason .. ':bytes', size)
  local oldest_ms = (now_us - bounds.dead_max_age_us) / 1000
  for _ = 1, 64 do
    local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
    if not first then break end
    local over = held > bounds.dead_max_bytes
    if not over and tonumber(string.match(first[1], '^(%d+)')) >= oldest_ms then break end
    local data = 0
    for i = 1, #first[2], 2 do if first[2][i] == 'data' then data = #first[2][i + 1] end end
    redis.call('XDEL', key, first[1])
    held = redis.call('HINCRBY', KEYS[3], reason .. ':bytes', -(data + 200))
    redis.call('HINCRBY', KEYS[3], reason .. (over and ':dropped' or ':aged'), 1)
  end
end

-- Verdicts may be trimmed long before the kept frames are; so a kept frame has its own. Empty data lies in another store.
local function keep(id, data, text)
  if #data > 0 then redis.call('SET', prefix .. 'kept:' .. id, data) end
  redis.call('SET', prefix .. 'kept-verdict:' .. id, text)
  redis.call('ZADD', KEYS[4], string.format('%.0f', now_us), id)
  local held = redis.call('HINCRBY', KEYS[2], 'kept_bytes', #data + #text)
  for _ = 1, 64 do
    local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
    if not first[1] then break end
    local over = held > bounds.kept_max_bytes
    if not over and tonumber(first[2]) >= now_us - bounds.kept_max_age_us then break end
    local old, said = prefix .. 'kept:' .. first[1], prefix .. 'kept-verdict:' .. first[1]
    held = redis.call('HINCRBY', KEYS[2], 'kept_bytes', -redis.call('STRLEN', old) - redis.call('STRLEN', said))
    redis.call('UNLINK', old, said)
    redis.call('ZREM', KEYS[4], first[1])
    redis.call('HINCRBY', KEYS[2], over and 'kept_dropped' or 'kept_aged', 1)
  end
end

local function note(model, data)
  local key = prefix .. 'features:' .. model
  local held = redis.call('HINCRBY', KEYS[2], 'features_bytes:' .. model, #data)
  redis.call('XADD', key, '*', 'e', data)
  for _ = 1, 64 do
    if held <= bounds.features_max_bytes then break end
    local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
    if not first then break end
    redis.call('XDEL', key, first[1])
    held = redis.call('HINCRBY', KEYS[2], 'features_bytes:' .. model, -#first[2][2])
    redis.call('HINCRBY', KEYS[2], 'features_dropped:' .. model, 1)
    redis.call('HSET', KEYS[2], 'features_gap:' .. model, first[1])
  end
end

-- Counters are added up and written once a call: every write goes into the append-only file.
local sums = {}
local function add(key, field, amount)
  sums[key] = sums[key] or {}
  sums[key][field] = (sums[key][field] or 0) + amount
end

local answers = {}
for i = 3, #ARGV do
  local m = cmsgpack.unpack(ARGV[i])
  local problem = wrong_with(m)
  if problem then
    answers[#answers + 1] = problem
  elseif m.other then
    answers[#answers + 1] = 0
  else
    local stream, index = prefix .. 'frames:' .. m.camera, prefix .. 'index:' .. m.camera
    local camera = prefix .. 'camera:' .. m.camera
    local acked = redis.pcall('XACK', stream, 'workers', m.id)
    -- A server that takes no writes (demoted, cut off from its replicas) refuses the first of them, which this one is. That
    -- is no answer to "has somebody settled it?": the worker must ask again.
    if type(acked) == 'table' then return acked end
    local won = acked == 1
    -- Deleted behind our back and pending no more: the index alone still knows of it, and giving it up is the guard.
    if not won and m.lost and #redis.call('XRANGE', stream, m.id, m.id) == 0 then
      won = redis.call('HEXISTS', index, m.id) == 1
    end
    if won then
      local texts = {}
      local meta = m.meta
      redis.call('XDEL', stream, m.id)
      if meta then
        local size = tonumber(string.match(meta, '^%d+:%d+:%d+:(%d+)'))
        redis.call('HDEL', index, m.id)
        redis.call('UNLINK', prefix .. 'payload:' .. m.camera .. ':' .. m.id)
        add(camera, 'bytes', -size)
        add(KEYS[2], 'bytes', -size)
        if string.sub(meta, -2) ~= ':0' then
          local set = redis.call('HGET', camera, 'set')
          redis.call('ZREM', set and (prefix .. 'due:' .. set) or (prefix .. 'due'), m.camera .. '|' .. m.id)
        end
        local crashes = prefix .. 'crashes:' .. m.camera
        if types[crashes] ~= 'none' then redis.call('HDEL', crashes, m.id) end
        for _, v in ipairs(m.verdicts) do
          local text = v[3] .. judged_at
          texts[v[1]] = text
          redis.call('XADD', KEYS[1], '*', 'id', v[1], 'camera', m.camera, 'decision', v[2], 'json', text)
          add(camera, v[2], 1)
          add(KEYS[2], 'verdict_bytes', #text + 100)
        end
        add(camera, 'settled_messages', 1)
      else
        add(camera, 'unadmitted', 1)
      end
      for _, d in ipairs(m.dead) do bury(d) end
      for _, k in ipairs(m.kept) do keep(k[1], k[2], texts[k[1]] or '') end
      for _, e in ipairs(m.events) do note(e[1], e[2]) end
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = 0
    end
  end
end
-- A counter that somebody made no number of must not keep the others from what is published already.
local failed = nil
for key, fields in pairs(sums) do
  for field, amount in pairs(fields) do
    local counted = redis.pcall('HINCRBY', key, field, string.format('%.0f', amount))
    if type(counted) == 'table' then failed = counted end
  end
end
return failed or answers
