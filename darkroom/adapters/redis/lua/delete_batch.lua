#!lua flags=allow-oom
-- delete_batch(batch): remove an ended batch's record; its jobs are gone already. Repeatable.
local batch = read_batch(ARGV[1])
drop_timer(ARGV[1], 'purge')
if not batch or not TERMINAL_BATCH[batch.status] then return 0 end
local key = batch_key(batch.id)
for _, id in ipairs(redis.call('LRANGE', key .. ':deliveries', 0, -1)) do
  redis.call('ZREM', 'dr:deliveries:' .. batch.account, id)
  redis.call('ZREM', 'dr:timers', 'deliver:' .. id)
  redis.call('DEL', 'dr:delivery:' .. id, 'dr:delivery:' .. id .. ':attempts')
end
redis.call('DEL', key, key .. ':mistakes', key .. ':causes', key .. ':deliveries')
count_batch(batch.status, -1)
redis.call('ZREM', 'dr:batches:' .. batch.account, batch.id)
redis.call('ZREM', 'dr:ended_batches', batch.id)
return 1
