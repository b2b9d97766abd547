#!lua flags=allow-oom
-- drain_batch(batch, up to line, last 0|1, jobs ...): one slice of ending what is not paid. What runs, or may be running at fal, is
-- left: it ends by itself. Natural key: each job's status.
local batch = read_batch(ARGV[1])
if not batch or batch.status ~= 'cancelling' then
  drop_timer(ARGV[1], 'drain')
  return 0
end
for i = 4, #ARGV do
  local job = read_job(ARGV[i])
  if job and not TERMINAL[job.status] then
    local sub = read_sub(job.sub)
    if job.place == 'held' then
      abandon(sub)
      finish(job, 'cancelled', batches.ending(job))
    elseif job.status ~= 'running' and not (sub and (OPEN[sub.status] or paid(sub) or lost(job, sub))) then
      finish(job, 'cancelled', batches.ending(job))
    end
  end
end
set_batch(batch, { cursor = math.max(int(batch.cursor), tonumber(ARGV[2])) })
if ARGV[3] == '1' then
  drop_timer(batch.id, 'drain')
  if int(redis.call('HGET', batch_key(batch.id), 'left')) == 0 then outcome_due(batch) end
else
  keep_timer(batch.id, 'drain')
end
dispatch()
return 1
