#!lua flags=allow-oom
-- delete_job(job): remove an ended job's record and its indexes. Its idempotency key stays until it expires, so that a late
-- repeat of the request does not render again; so do its names at fal, so that no other job adopts its requests. A permit is
-- freed by its timer: fal may still be at it. Answers ok, missing or state.
local job = read_job(ARGV[1])
if not job then return 'missing' end
if not TERMINAL[job.status] then return 'state' end
local key = job_key(job.id)
for _, id in ipairs(redis.call('LRANGE', key .. ':subs', 0, -1)) do
  local request = redis.call('HGET', sub_key(id), 'request_id')
  if request then redis.call('PEXPIRE', 'dr:request:' .. request, OWNED_MS) end
  redis.call('DEL', sub_key(id), sub_key(id) .. ':result')
end
for _, id in ipairs(redis.call('LRANGE', key .. ':deliveries', 0, -1)) do
  redis.call('ZREM', 'dr:deliveries:' .. job.account, id)
  redis.call('ZREM', 'dr:timers', 'deliver:' .. id)
  redis.call('DEL', 'dr:delivery:' .. id, 'dr:delivery:' .. id .. ':attempts')
end
redis.call('DEL', key, key .. ':request', key .. ':error', key .. ':artifacts', key .. ':subs', key .. ':deliveries')
redis.call('ZREM', 'dr:jobs:' .. job.account, job.id)
redis.call('ZREM', 'dr:jobs:' .. job.account .. ':' .. job.status, job.id)
redis.call('ZREM', 'dr:ended', job.id)
redis.call('HINCRBY', 'dr:counts', job.status, -1)
return 'ok'
