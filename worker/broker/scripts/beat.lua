-- One heartbeat: the key that dies with its worker, and what the worker says of itself.
-- KEYS: heartbeat key, workers hash, totals hash
-- ARGV: time to live in ms, worker, JSON description, a name that nobody else has thought of, this life of the worker
-- Returns: the name of these data: that of whoever beat first since they began. Another one than before: they were lost.
--
-- A command that only takes away goes first: it is allowed at a full maxmemory, and makes the writes after it allowed too.
-- Without it full memory would make living workers look dead, and keep out the new ones that could empty it.
redis.call('HDEL', KEYS[2], '')
-- Where no worker at all was heard of for as long as a heartbeat lives, it was Redis that was away, or its clock that jumped,
-- and not they: until each had time to say that it lives, none counts as dead.
local now = redis.call('TIME')
local now_us, ttl_us = tonumber(now[1]) * 1000000 + tonumber(now[2]), tonumber(ARGV[1]) * 1000
local held = redis.call('HMGET', KEYS[3], 'beat_us', 'born')
local last_us, born = tonumber(held[1] or '0'), held[2] or ARGV[4]
if last_us > 0 and math.abs(now_us - last_us) > ttl_us then
  redis.call('HSET', KEYS[3], 'amnesty_us', string.format('%.0f', now_us + ttl_us))
end
-- A clock that went back (set right at last, or that of another server) leaves times ahead of it: heartbeats that would
-- outlive their workers, and messages that are idle for nothing, for as long as it went back. Both begin anew.
if last_us - now_us > ttl_us then
  local prefix = string.sub(KEYS[1], 1, -#ARGV[5] - 1)
  for _, about in ipairs(redis.call('HVALS', KEYS[2])) do
    local life = string.match(about, '"life":"([%w._-]+)","beat_us":%d+}$')
    if life then redis.call('PEXPIRE', prefix .. life, ARGV[1]) end
  end
  prefix = string.sub(KEYS[3], 1, -5)
  for _, camera in ipairs(redis.call('HKEYS', prefix .. 'cameras')) do
    local stream, start = prefix .. 'frames:' .. camera, '-'
    repeat
      local page = redis.pcall('XPENDING', stream, 'workers', start, '+', 256)
      for _, item in ipairs(page.err and {} or page) do
        local idle_ms = item[2] == 'released' and 86400000 or 0
        redis.call('XCLAIM', stream, 'workers', item[2], 0, item[1], 'IDLE', idle_ms, 'JUSTID')
        start = '(' .. item[1]
      end
    until page.err or #page < 256
  end
end
redis.call('HSET', KEYS[3], 'beat_us', string.format('%.0f', now_us), 'born', born)
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local said = string.sub(ARGV[3], 1, -2) .. (ARGV[3] == '{}' and '' or ',')
redis.call('HSET', KEYS[2], ARGV[2],
  said .. '"life":"' .. ARGV[5] .. '","beat_us":' .. string.format('%.0f', now_us) .. '}')
return born
