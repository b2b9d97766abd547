#!lua flags=allow-oom
-- record_attempt(delivery, token, event, attempt JSON, delay ms): what one delivery attempt met; `event` is of DELIVERY's
-- table, `missed` is tried again after the delay. Natural key: the token.
local key = 'dr:delivery:' .. ARGV[1]
local delivery = read(key)
if not delivery then return 0 end
if delivery.recorded == ARGV[2] then return 1 end
if delivery.token ~= ARGV[2] then return 0 end
local to = (EDGES.delivery[delivery.status] or {})[ARGV[3]]
if not to then return 0 end
local attempt = cjson.decode(ARGV[4])
attempt.number = int(delivery.attempts) + 1
attempt.at = NOW
redis.call('RPUSH', key .. ':attempts', cjson.encode(attempt))
redis.call('HSET', key, 'status', to, 'recorded', ARGV[2], 'token', '', 'busy', 0, 'attempts', attempt.number)
redis.call('HINCRBY', 'dr:counts', 'delivery_' .. ARGV[3], 1)
if to == 'pending' then
  local at = NOW + tonumber(ARGV[5])
  redis.call('HSET', key, 'next', at)
  redis.call('ZADD', 'dr:timers', at, 'deliver:' .. ARGV[1])
else
  redis.call('HSET', key, 'next', '')
  redis.call('ZREM', 'dr:timers', 'deliver:' .. ARGV[1])
end
return 1
