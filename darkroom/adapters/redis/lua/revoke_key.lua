#!lua flags=allow-oom
-- revoke_key(hash of the key): it opens nothing from now on. Repeatable. Answers 0 when there is no such key.
local key = 'dr:key:' .. ARGV[1]
if redis.call('EXISTS', key) == 0 then return 0 end
if redis.call('HGET', key, 'revoked') == '' then redis.call('HSET', key, 'revoked', NOW) end
return 1
