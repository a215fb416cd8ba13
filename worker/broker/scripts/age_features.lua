-- Let feature events go that are older than they may be, whether a learner has passed them or not; the gap is recorded.
-- KEYS: feature log of one model, totals hash
-- ARGV: model, oldest time that stays in ms, most entries
-- Returns: entries that went
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too.
redis.call('HDEL', KEYS[2], '')
local gone, bytes, last = 0, 0, nil
for _ = 1, tonumber(ARGV[3]) do
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not first or tonumber(string.match(first[1], '^(%d+)')) >= tonumber(ARGV[2]) then break end
  redis.call('XDEL', KEYS[1], first[1])
  gone, bytes, last = gone + 1, bytes + #(first[2][2] or ''), first[1]
end
if gone > 0 then
  redis.call('HINCRBY', KEYS[2], 'features_bytes:' .. ARGV[1], -bytes)
  redis.call('HINCRBY', KEYS[2], 'features_dropped:' .. ARGV[1], gone)
  redis.call('HSET', KEYS[2], 'features_gap:' .. ARGV[1], last)
end
return gone
