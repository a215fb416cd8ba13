-- Take a version's artefact out of the registry, if no pointer names its digest at this moment.
-- KEYS: pointers hash, versions hash, artefact manifest, index of artefacts
-- ARGV: model, version, digest
-- Returns: the manifest that was there, or '' where something points at it or it was gone
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  if cjson.decode(text).digest == ARGV[3] then return '' end
end
local manifest = redis.call('GET', KEYS[3])
if not manifest then return '' end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[4], 'artefact:' .. ARGV[3])
return manifest
