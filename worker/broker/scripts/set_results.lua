-- Write what a set says of copies, and let its oldest results go that are over their bounds; without results: only that.
-- KEYS: results stream of the set, state hash of the set
-- ARGV: bound in bytes, bound in age in ms, then of each result: frame id, camera, decision, JSON
-- Returns: results that went
-- A set that was removed meanwhile says nothing any more.
if not redis.call('HGET', KEYS[2], 'max_bytes') then return 0 end
local function size_of(fields)
  local size = 100
  for i = 2, #fields, 2 do size = size + #fields[i] end
  return size
end
local added, new = 0, {}
for i = 3, #ARGV, 4 do
  local fields = {'id', ARGV[i], 'camera', ARGV[i + 1], 'decision', ARGV[i + 2], 'json', ARGV[i + 3]}
  new[#new + 1] = fields
  added = added + size_of(fields)
end
local now = redis.call('TIME')
local oldest_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - tonumber(ARGV[2])
local held = tonumber(redis.call('HGET', KEYS[2], 'results_bytes') or '0')
-- Taking away goes first: it is allowed at a full maxmemory, and makes the writes after it allowed too.
local gone, freed = 0, 0
for _ = 1, 1000 do
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not first then
    freed = held
    break
  end
  local young = tonumber(string.match(first[1], '^(%d+)')) >= oldest_ms
  if young and held - freed + added <= tonumber(ARGV[1]) then break end
  redis.call('XDEL', KEYS[1], first[1])
  gone, freed = gone + 1, freed + size_of(first[2])
end
for _, fields in ipairs(new) do redis.call('XADD', KEYS[1], '*', unpack(fields)) end
if #new > 0 then redis.call('HINCRBY', KEYS[2], 'results', #new) end
-- Results that an earlier release wrote were not counted: what they free must not make the count negative.
local change = math.max(added - freed, -held)
if change ~= 0 then redis.call('HINCRBY', KEYS[2], 'results_bytes', change) end
return gone
