-- Take a version's artefact out of the registry, if no pointer names its digest at this moment.
-- KEYS: pointers hash, versions hash, artefact manifest, index of artefacts
-- ARGV: model, version, digest, when the artefact was stored last as the caller saw it ('' not seen)
-- Returns: the manifest that was there, or '' where something points at it, it was stored since or it was gone
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  -- Not by cjson: it takes no text with half a surrogate pair, and what a person is called may hold one.
  if string.find(text, '"digest": ?"' .. ARGV[3] .. '"') then return '' end
end
local stored = redis.call('ZSCORE', KEYS[4], 'artefact:' .. ARGV[3])
if ARGV[4] ~= '' and stored and string.format('%.0f', tonumber(stored)) ~= ARGV[4] then return '' end
local manifest = redis.call('GET', KEYS[3])
if not manifest then return '' end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[4], 'artefact:' .. ARGV[3])
return manifest
