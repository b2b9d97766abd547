#!lua
-- create_account(account, name, webhook secret). Natural key: the account's id.
local key = 'dr:account:' .. ARGV[1]
if redis.call('EXISTS', key) == 1 then return 0 end
redis.call('HSET', key, 'v', 1, 'name', ARGV[2], 'webhook_secret', ARGV[3], 'created', NOW)
redis.call('ZADD', 'dr:accounts', NOW, ARGV[1])
return 1
