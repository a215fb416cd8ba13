-- Write down feedback on a frame that the line knows of; of any other frame nothing is written.
-- KEYS: feedback stream, camera hash, kept zset
-- ARGV: frame id, epoch, sequence, 1 where the caller has found its verdict, most entries, then fields and values
-- Returns: {'written', entry id}, or {why not, what is known}: unknown_camera, unknown_epoch, unknown_sequence, forgotten
local kinds = {'stream', 'hash', 'zset'}
for i = 1, 3 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= kinds[i] then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a ' .. kinds[i])
  end
end
local epoch, seq = tonumber(ARGV[2]), tonumber(ARGV[3])
if ARGV[4] ~= '1' and not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  local state = redis.call('HMGET', KEYS[2], 'epoch', 'last_seq')
  if not state[1] then return {'unknown_camera', ''} end
  if epoch > tonumber(state[1]) then return {'unknown_epoch', state[1]} end
  if epoch < tonumber(state[1]) then return {'forgotten', state[1]} end
  if seq > tonumber(state[2] or '-1') then return {'unknown_sequence', state[2] or ''} end
end
local fields = {}
for i = 6, #ARGV do fields[#fields + 1] = ARGV[i] end
return {'written', redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[5], '*', unpack(fields))}
