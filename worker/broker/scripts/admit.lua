-- Admit one message, or say why not. Atomic: nothing is written unless everything is.
-- KEYS: camera hash, frames stream, index hash, recent zset, totals hash, ready zset, due zset, bell list,
--       the payload on its way (a string, set with a time to live just before this call)
-- ARGV: camera, epoch, first sequence, frames, prefix of payload keys, deadline in us (0: none),
--       camera budget in bytes, line budget in bytes, contract version,
--       sequence that must be in before this message (-1: none), so that a pipeline cannot overtake itself
-- Returns: {status, entry id or epoch or bytes}
-- The payload is no argument: Lua would hash and copy every byte of it. It is renamed from its way to its place instead.
local camera, epoch, seq, frames = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local deadline = tonumber(ARGV[6])
local camera_budget, line_budget = tonumber(ARGV[7]), tonumber(ARGV[8])
-- Names become keys, labels and files: what is none is refused at the door.
if #camera > 64 or not string.match(camera, '^[%w][%w._-]*$') then
  return redis.error_reply('ERR this is no camera name')
end
-- What stands in the index is read as whole numbers by everybody, and counts memory.
for _, place in ipairs({2, 3, 4, 6}) do
  if not string.match(ARGV[place], '^%d+$') or tonumber(ARGV[place]) >= 2 ^ 53 then
    return redis.error_reply('ERR admit was called with wrong arguments: ' .. string.sub(ARGV[place], 1, 40))
  end
end
if frames > 1024 then return redis.error_reply('ERR a message has 1,024 frames at most') end
local kinds = {'hash', 'stream', 'hash', 'zset', 'hash', 'zset', 'zset', 'list', 'string'}
for i = 1, 9 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= kinds[i] then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a ' .. kinds[i])
  end
end
if not (epoch and seq and frames and deadline and camera_budget and line_budget) or frames < 1 then
  return redis.error_reply('ERR admit was called with wrong arguments')
end
local function refused(status, what)
  redis.pcall('UNLINK', KEYS[9])
  return {status, what}
end
local state = redis.call('HMGET', KEYS[1], 'epoch', 'last_seq', 'bytes', 'vfinish', 'admitted', 'admitted_messages',
  'group', 'set', 'copy')
local known = tonumber(state[1] or '0')
if epoch < known then
  redis.pcall('HINCRBY', KEYS[1], 'fenced', 1) -- the answer matters more than its count, at a full maxmemory too
  return refused('fenced', known)
end
if epoch > known then return refused('unknown_epoch', known) end
-- Duplicate comes before busy: a producer that lost our answer must learn that its frame is in, however full it is.
local last = tonumber(state[2] or '-1')
if seq <= last then
  local first = redis.call('ZRANGEBYSCORE', KEYS[4], seq, seq, 'LIMIT', 0, 1)
  redis.pcall('HINCRBY', KEYS[1], 'duplicates', 1)
  return refused('duplicate', first[1] or '')
end
-- A message whose forerunner in the same pipeline was refused is refused too: admitted, it would make the forerunner look
-- like a duplicate when that is sent again.
if last < tonumber(ARGV[10]) then return refused('busy', 'order') end
-- Without a payload Redis had no memory for it, or was held up for longer than it lives: to be sent again, in both cases.
local size = redis.call('STRLEN', KEYS[9])
if size == 0 then return {'busy', 'memory'} end
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
-- Which set of workers settles the camera: each has its own order of service.
local ready, due, bell, vtime = KEYS[6], KEYS[7], KEYS[8], 'vtime'
if state[8] then
  ready, due, bell, vtime = ready .. ':' .. state[8], due .. ':' .. state[8], bell .. ':' .. state[8], 'vtime:' .. state[8]
end
local line = redis.call('HMGET', KEYS[5], 'bytes', 'memory_us', 'memory_full', vtime, 'verdicts_full')
local line_bytes = tonumber(line[1] or '0')
local memory_full = line[3] == '1'
-- Redis's own memory: looked at ten times a second, and admission stops at 90 %, so that settling never has to.
local stale = math.abs(now_us - tonumber(line[2] or '0')) > 100000 -- the clock may have gone back
if stale then
  local info = redis.call('INFO', 'memory')
  local limit = tonumber(string.match(info, 'maxmemory:(%d+)'))
  memory_full = limit > 0 and tonumber(string.match(info, 'used_memory:(%d+)')) > 0.9 * limit
end
local camera_bytes = tonumber(state[3] or '0')
local why = nil
if camera_bytes > 0 and camera_bytes + size > camera_budget then why = 'camera'
elseif line_bytes > 0 and line_bytes + size > line_budget then why = 'line'
elseif memory_full then why = 'memory'
elseif line[5] == '1' then why = 'verdicts' end
if why then
  -- pcall: at a full maxmemory even this count may be refused, and the answer matters more than the count.
  redis.pcall('HINCRBY', KEYS[1], 'busy', 1)
  if stale then redis.pcall('HSET', KEYS[5], 'memory_us', now_us, 'memory_full', memory_full and '1' or '0') end
  return refused('busy', why)
end
local added = redis.pcall('XADD', KEYS[2], '*', 'v', ARGV[9], 'n', frames, 'seq', ARGV[3], 'epoch', ARGV[2],
  'at', string.format('%.0f', now_us))
if type(added) == 'table' and added.err then
  if string.find(added.err, 'OOM', 1, true) then return refused('busy', 'memory') end
  return added
end
local id = added
redis.call('RENAME', KEYS[9], ARGV[5] .. id)
redis.call('PERSIST', ARGV[5] .. id)
if not state[7] then
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], 'workers', '0')
  if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  redis.call('HSET', KEYS[1], 'group', '1')
end
redis.call('HSET', KEYS[3], id,
  string.format('%d:%s:%s:%d:%.0f:%.0f', frames, ARGV[3], ARGV[2], size, now_us, deadline))
-- One write a hash, of sums made here: every write goes into the append-only file by itself.
redis.call('HSET', KEYS[1], 'last_seq', string.format('%.0f', seq + frames - 1), 'last_id', id,
  'last_us', string.format('%.0f', now_us), 'bytes', string.format('%.0f', camera_bytes + size),
  'admitted', string.format('%.0f', tonumber(state[5] or '0') + frames),
  'admitted_messages', string.format('%.0f', tonumber(state[6] or '0') + 1))
if stale then
  redis.call('HSET', KEYS[5], 'bytes', string.format('%.0f', line_bytes + size),
    'memory_us', string.format('%.0f', now_us), 'memory_full', '0')
else
  redis.call('HSET', KEYS[5], 'bytes', string.format('%.0f', line_bytes + size))
end
redis.call('ZADD', KEYS[4], ARGV[3], id)
if redis.call('ZCARD', KEYS[4]) > 1088 then redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1025) end
if not redis.call('ZSCORE', ready, camera) then
  redis.call('ZADD', ready, math.max(tonumber(line[4] or '0'), tonumber(state[4] or '0')), camera)
end
if deadline > 0 then redis.call('ZADD', due, string.format('%.0f', deadline), camera .. '|' .. id) end
if redis.call('LLEN', bell) < 16 then redis.call('LPUSH', bell, '1') end
-- A copy for another set of workers, which may look at it and settles nothing. It is lossy: what is over the set's bound is
-- shed and counted, and no trouble with it may touch the admission.
if state[9] then
  local prefix, other = string.sub(KEYS[5], 1, -5), state[9]
  local about = prefix .. 'set:' .. other
  local held = redis.pcall('HMGET', about, 'bytes', 'max_bytes')
  local copied = false
  if not held.err and tonumber(held[1] or '0') + size <= tonumber(held[2] or '0') then
    local put = redis.pcall('XADD', prefix .. 'copies:' .. other, '*', 'camera', camera, 'n', frames, 'seq', ARGV[3],
      'epoch', ARGV[2], 'at', string.format('%.0f', now_us), 'size', size)
    if type(put) == 'string' then
      copied = redis.pcall('COPY', ARGV[5] .. id, prefix .. 'copy:' .. other .. ':' .. put) == 1
      if not copied then redis.pcall('XDEL', prefix .. 'copies:' .. other, put) end
    end
  end
  redis.pcall('HINCRBY', about, copied and 'copied' or 'shed', frames)
  if copied then
    redis.pcall('HINCRBY', about, 'bytes', size)
    bell = KEYS[8] .. ':' .. other
    local waiting = redis.pcall('LLEN', bell)
    if type(waiting) == 'number' and waiting < 16 then redis.pcall('LPUSH', bell, '1') end
  end
end
return {'admitted', id}
