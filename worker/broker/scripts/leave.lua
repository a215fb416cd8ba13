-- Hand back everything that a worker holds, but for what it knows to be in its hands: what it took and never heard of, because
-- an answer was lost. Claimable at once by anybody, and not counted as a crash.
-- KEYS: cameras hash
-- ARGV: key prefix, consumer, then `camera|entry id` of each message that it keeps
-- Returns: messages handed back
local count, kept = 0, {}
for i = 3, #ARGV do kept[ARGV[i]] = true end
for _, camera in ipairs(redis.call('HKEYS', KEYS[1])) do
  local stream, start = ARGV[1] .. 'frames:' .. camera, '-'
  repeat
    local page = redis.pcall('XPENDING', stream, 'workers', start, '+', 256, ARGV[2])
    for _, item in ipairs(page.err and {} or page) do
      if not kept[camera .. '|' .. item[1]] then
        redis.call('XCLAIM', stream, 'workers', 'released', 0, item[1], 'IDLE', 86400000, 'JUSTID')
        count = count + 1
      end
      start = '(' .. item[1]
    end
  until page.err or #page < 256
end
return count
