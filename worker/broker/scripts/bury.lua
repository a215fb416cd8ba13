-- Put a verdict that its receiver refuses among the bridge's dead letters, once; at the bound the oldest go, and are counted.
-- KEYS: dead letters' stream, bridge hash
-- ARGV: entry, id, why, json, bound in bytes
-- Returns: {written (0: it was there already), letters dropped}
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: the letters are bounded.
redis.call('HDEL', KEYS[2], '')
local function size(fields)
  local bytes = 100
  for i = 2, #fields, 2 do bytes = bytes + #fields[i] end
  return bytes
end
-- A crash between this and the cursor's move repeats what stood in the bridge's window, and no more. Of two servers that were
-- masters beside each other, both may have had the entry, of different frames.
for _, letter in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1024)) do
  local said = {}
  for i = 1, #letter[2], 2 do said[letter[2][i]] = letter[2][i + 1] end
  if said.entry == ARGV[1] and said.id == ARGV[2] then return {0, 0} end
end
local fields = {'entry', ARGV[1], 'id', ARGV[2], 'why', ARGV[3], 'json', ARGV[4]}
redis.call('XADD', KEYS[1], '*', unpack(fields))
local held = redis.call('HINCRBY', KEYS[2], 'dead_bytes', size(fields))
redis.call('HINCRBY', KEYS[2], 'dead_total', 1)
local dropped = 0
while held > tonumber(ARGV[5]) do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not oldest then break end
  redis.call('XDEL', KEYS[1], oldest[1])
  held = redis.call('HINCRBY', KEYS[2], 'dead_bytes', -size(oldest[2]))
  dropped = dropped + 1
end
if dropped > 0 then redis.call('HINCRBY', KEYS[2], 'dead_dropped', dropped) end
return {1, dropped}
