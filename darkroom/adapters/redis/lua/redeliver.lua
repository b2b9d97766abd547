#!lua flags=allow-oom
-- redeliver(delivery): owe it again from now on, with the same webhook id. Repeatable.
local key = 'dr:delivery:' .. ARGV[1]
local delivery = read(key)
if not delivery then return 0 end
redis.call('HSET', key, 'status', EDGES.delivery[delivery.status].redelivered, 'next', NOW, 'first', delivery.attempts)
redis.call('ZADD', 'dr:timers', NOW + DELIVER_AGAIN_MS, 'deliver:' .. ARGV[1])
redis.call('RPUSH', 'dr:outbox', 'deliver::' .. ARGV[1])
return 1
