#!lua
-- create_key(hash of the key, key id, account, hint). Natural key: the hash. Answers 0 when the account does not exist.
if redis.call('EXISTS', 'dr:account:' .. ARGV[3]) == 0 then return 0 end
local key = 'dr:key:' .. ARGV[1]
if redis.call('EXISTS', key) == 1 then return 1 end
redis.call('HSET', key, 'v', 1, 'id', ARGV[2], 'account', ARGV[3], 'hint', ARGV[4], 'created', NOW, 'revoked', '')
redis.call('ZADD', 'dr:account:' .. ARGV[3] .. ':keys', NOW, ARGV[1])
return 1
