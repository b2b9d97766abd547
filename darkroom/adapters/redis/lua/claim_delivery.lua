#!lua flags=allow-oom
-- claim_delivery(delivery, token, ms): the right to make the next attempt, for so long. Natural key: the token.
local key = 'dr:delivery:' .. ARGV[1]
local delivery = read(key)
if not delivery or delivery.status ~= 'pending' then return 0 end
if delivery.token == ARGV[2] then return 1 end
if int(delivery.busy) > NOW or int(delivery.next) > NOW then return 0 end
redis.call('HSET', key, 'token', ARGV[2], 'busy', NOW + tonumber(ARGV[3]))
redis.call('ZADD', 'dr:timers', NOW + tonumber(ARGV[3]), 'deliver:' .. ARGV[1])
return 1
