-- Hand back everything that a worker still holds, at its end: what it took and never heard of, too, because an answer was
-- lost. Claimable at once by anybody, and not counted as a crash.
-- KEYS: cameras hash
-- ARGV: key prefix, consumer
-- Returns: messages handed back
local count = 0
for _, camera in ipairs(redis.call('HKEYS', KEYS[1])) do
  local stream, start = ARGV[1] .. 'frames:' .. camera, '-'
  repeat
    local page = redis.pcall('XPENDING', stream, 'workers', start, '+', 256, ARGV[2])
    for _, item in ipairs(page.err and {} or page) do
      redis.call('XCLAIM', stream, 'workers', 'released', 0, item[1], 'IDLE', 86400000, 'JUSTID')
      start = '(' .. item[1]
      count = count + 1
    end
  until page.err or #page < 256
end
return count
