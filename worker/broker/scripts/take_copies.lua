-- Take copies of frames for one worker of a set: they are gone from the stream at once, and nobody is owed a verdict of them.
-- Their payloads, which no script is to touch, are fetched by the caller, and go by themselves where it dies before.
-- KEYS: copies stream, state hash of the set
-- ARGV: prefix of the copies' payload keys, most frames, most bytes, life of what was taken and not fetched in s
-- Returns: a list of {entry id, fields}
local max_frames, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local out, frames, bytes = {}, 0, 0
while frames < max_frames and bytes < max_bytes do
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not first then break end
  local about = {}
  for i = 1, #first[2], 2 do about[first[2][i]] = first[2][i + 1] end
  -- Taking away goes first: it is allowed at a full maxmemory, and makes the writes after it allowed too.
  redis.call('XDEL', KEYS[1], first[1])
  redis.call('EXPIRE', ARGV[1] .. first[1], ARGV[4])
  frames, bytes = frames + (tonumber(about.n or '1') or 1), bytes + (tonumber(about.size or '0') or 0)
  out[#out + 1] = {first[1], first[2]}
end
if #out > 0 then
  redis.call('HINCRBY', KEYS[2], 'bytes', -bytes)
  redis.call('HINCRBY', KEYS[2], 'taken', frames)
end
return out
