-- Take letters out of a bridge's dead letters.
-- KEYS: dead letters' stream, bridge hash
-- ARGV: letters' entry ids
-- Returns: letters removed
redis.call('HDEL', KEYS[2], '')
local removed = 0
for i = 1, #ARGV do
  local letter = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if letter and redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    local bytes = 100
    for j = 2, #letter[2], 2 do bytes = bytes + #letter[2][j] end
    redis.call('HINCRBY', KEYS[2], 'dead_bytes', -bytes)
    removed = removed + 1
  end
end
return removed
