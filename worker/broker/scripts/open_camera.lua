-- Begin a new epoch of a camera: from now on producers of older epochs are fenced off.
-- KEYS: camera hash, cameras hash, events stream, recent zset
-- ARGV: camera name, JSON settings for a camera that is new, an epoch that the new one is to be beyond (may be left out)
-- include: run_of_server
-- Returns: the epoch.
--
-- An epoch is never given twice: frames are named by it. A server that was started again, or that took another one's place,
-- may have forgotten the newest ones, whose verdicts somebody has read. So the first epoch there is far beyond the last one
-- that it knows of: further than anybody opens a camera within what a power cut or a failover takes.
local FAR = 1000
-- Names become keys, labels and files: what is none is refused at the door.
if #ARGV[1] > 64 or not string.match(ARGV[1], '^[%w][%w._-]*$') then
  return redis.error_reply('ERR this is no camera name')
end
local beyond = ARGV[3] or '0'
if not string.match(beyond, '^%d+$') or tonumber(beyond) >= 2 ^ 53 - 1 then
  return redis.error_reply('ERR open_camera was called with a wrong epoch: ' .. string.sub(beyond, 1, 40))
end
local function refuse_type(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a ' .. wanted)
  end
end
local wrong = refuse_type(KEYS[1], 'hash') or refuse_type(KEYS[2], 'hash') or refuse_type(KEYS[3], 'stream')
if wrong then return wrong end
-- Taking away goes first: it is allowed at a full maxmemory, and makes the writes after it allowed too. A producer may start
-- then, and is told "busy".
redis.call('HDEL', KEYS[1], 'last_seq')
local boot = run_of_server()
local held = redis.call('HMGET', KEYS[1], 'boot', 'epoch')
-- Where all data were lost, whoever sends has higher ones than are known here: it says so, instead of asking until then.
local step = math.max(held[1] and held[1] ~= boot and FAR or 1, tonumber(beyond) + 1 - tonumber(held[2] or '0'))
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', string.format('%.0f', step))
redis.call('HSET', KEYS[1], 'boot', boot)
redis.call('DEL', KEYS[4])
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 1 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '1000', '*', 'kind', 'camera', 'name', ARGV[1])
end
return epoch
