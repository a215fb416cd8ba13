-- Count frames that a producer dropped by its policy: each telling once, however often it is sent.
-- KEYS: camera hash, the telling (a string with a time to live)
-- ARGV: frames, seconds for which the telling is remembered
-- Returns: 1 counted, 0 it had been
if not redis.call('SET', KEYS[2], '', 'NX', 'EX', ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'dropped', ARGV[1])
return 1
