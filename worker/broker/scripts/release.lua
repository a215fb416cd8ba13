-- Hand unprocessed messages back: claimable at once by anybody, and not counted as a crash.
-- KEYS: frames stream
-- ARGV: consumer, entry ids
local mine = {}
for i = 2, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], 'workers', ARGV[i], ARGV[i], 1)
  if pending[1] and pending[1][2] == ARGV[1] then mine[#mine + 1] = ARGV[i] end
end
for _, id in ipairs(mine) do
  redis.call('XCLAIM', KEYS[1], 'workers', 'released', 0, id, 'IDLE', 86400000, 'JUSTID')
end
return #mine
