#!lua flags=allow-oom
-- tick(limit, hold ms): apply or hand out what is due. Retries and republishing are applied here; the others are put
-- `hold` ms ahead (their own script removes them when it performs the effect) and their names answered.
local due = redis.call('ZRANGE', 'dr:timers', '-inf', NOW, 'BYSCORE', 'LIMIT', 0, ARGV[1])
local others = {}
for _, entry in ipairs(due) do
  local kind, id = string.match(entry, '^(%a+):(.+)$')
  if kind == 'republish' then
    local job = read_job(id)
    redis.call('ZADD', 'dr:timers', NOW + REPUBLISH_MS, entry)
    send(job, 'run')
  elseif kind == 'retry' then
    local job = read_job(id)
    move(job, 'due', 'waiting_for_slot')
    set(job, { next = '' })
    requeue(job, read_sub(job.sub))
  elseif kind == 'deliver' then
    redis.call('ZADD', 'dr:timers', NOW + DELIVER_AGAIN_MS, entry)
    redis.call('RPUSH', 'dr:outbox', 'deliver::' .. id)
  elseif kind == 'open' or kind == 'close' then
    redis.call('ZREM', 'dr:timers', entry)
    local batch = read_batch(id)
    if batch and kind == 'close' and not TERMINAL_BATCH[batch.status] and batch.status ~= 'cancelling' then
      end_batch(batch, 'expired', 'finish_by')
    elseif batch and kind == 'open' and FEEDING[batch.status] then
      set_batch(batch, { reason = '' })
      feed(batch)
    end
  elseif kind == 'permit' then
    -- Start timeout and longest run have passed: what is still unknown cannot be running any more.
    -- A job that ended meanwhile (cancelled, its workers crashed) has nobody who would say when fal was done.
    local sub = read_sub(id)
    local job = sub and sub.status == 'accepted' and read_job(sub.job)
    if job and not TERMINAL[job.status] then redis.call('ZADD', 'dr:timers', NOW + 60000, entry)
    else drop_sub_permit(id) end
  else
    redis.call('ZADD', 'dr:timers', NOW + tonumber(ARGV[2]), entry)
    others[#others + 1] = entry
  end
end
local expired = redis.call('ZRANGE', 'dr:deadlines', '-inf', NOW, 'BYSCORE', 'LIMIT', 0, ARGV[1])
for _, id in ipairs(expired) do
  redis.call('ZADD', 'dr:deadlines', NOW + 5000, id)
  others[#others + 1] = 'deadline:' .. id
end
dispatch()
return others
