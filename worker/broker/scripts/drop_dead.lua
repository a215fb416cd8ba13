-- Remove dead letters of one reason: those that are named, or those older than a bound.
-- KEYS: dead letters' stream, dead-stats hash
-- ARGV: reason, counter that they are added to (removed | aged), least time to stay in ms (0: none is removed for age),
--       most letters to remove for age, entry ids
-- Returns: letters removed
local gone = {}
local function remove(entry)
  local size = 200
  for i = 1, #entry[2], 2 do if entry[2][i] == 'data' then size = size + #entry[2][i + 1] end end
  gone[#gone + 1] = {entry[1], size}
end
for i = 5, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if entry then remove(entry) end
end
if tonumber(ARGV[3]) > 0 then
  local last = string.format('(%.0f-0', tonumber(ARGV[3]))
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', last, 'COUNT', ARGV[4])) do remove(entry) end
end
local removed, bytes = 0, 0
for _, one in ipairs(gone) do
  if redis.call('XDEL', KEYS[1], one[1]) == 1 then removed, bytes = removed + 1, bytes + one[2] end
end
if removed > 0 then
  redis.call('HINCRBY', KEYS[2], ARGV[1] .. ':bytes', -bytes)
  redis.call('HINCRBY', KEYS[2], ARGV[1] .. ':' .. ARGV[2], removed)
end
return removed
