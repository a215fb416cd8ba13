-- Trim the verdict stream: what every registered subscriber has acknowledged and is old enough goes; at the hard bound the
-- stated policy acts, and is counted.
-- KEYS: verdicts stream, subscribers hash, totals hash
-- ARGV: least age in us, hard bound in bytes, policy (trim | refuse), what subscribers' cursors begin with
-- Returns: {entries trimmed, of them unread by somebody, bytes left}
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: trimming frees it.
redis.call('HDEL', KEYS[3], '')
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
local function parts(id)
  local ms, n = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(n)
end
-- A subscriber may write what it likes into its cursor, and whoever registers it beside that: what is no entry id has
-- acknowledged nothing, and holds up nobody but itself.
local function entry(id)
  return id and #id <= 41 and string.match(id, '^%d+%-%d+$') and id or nil
end
local function before_or_at(a, b)
  local am, an = parts(a)
  local bm, bn = parts(b)
  return am < bm or (am == bm and an <= bn)
end
local acked = nil
local registered = redis.call('HGETALL', KEYS[2])
for i = 1, #registered, 2 do
  local id, own = entry(registered[i + 1]) or '0-0', entry(redis.call('GET', ARGV[4] .. registered[i]))
  if own and before_or_at(id, own) then id = own end
  if not acked or before_or_at(id, acked) then acked = id end
end
local young_ms = (now_us - tonumber(ARGV[1])) / 1000
local held = tonumber(redis.call('HGET', KEYS[3], 'verdict_bytes') or '0')
local trimmed, unread, full = 0, 0, '0'
for _ = 1, 2000 do
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not first then
    held = 0
    break
  end
  local read = not acked or before_or_at(first[1], acked)
  local over = held > tonumber(ARGV[2])
  local old = parts(first[1]) < young_ms
  if not (read and old) then
    if not over then break end
    if ARGV[3] == 'refuse' and not read then
      full = '1'
      break
    end
    if not read then unread = unread + 1 end
  end
  local size = 100
  for i = 1, #first[2], 2 do if first[2][i] == 'json' then size = size + #first[2][i + 1] end end
  redis.call('XDEL', KEYS[1], first[1])
  held = held - size
  trimmed = trimmed + 1
end
if redis.call('EXISTS', KEYS[3]) == 1 or trimmed > 0 or full == '1' then
  redis.call('HSET', KEYS[3], 'verdict_bytes', held, 'verdicts_full', full)
end
if unread > 0 then redis.call('HINCRBY', KEYS[3], 'verdicts_lost', unread) end
return {trimmed, unread, held}
