#!lua flags=allow-oom
-- expire_job(job, deadline error JSON, unknown error JSON, grace error JSON): its deadline, or a paid job's grace, has passed.
-- Ends a job only while nothing was paid, or after the grace. Repeatable: an ended job is left alone.
local job = read_job(ARGV[1])
if not job or TERMINAL[job.status] then
  redis.call('ZREM', 'dr:deadlines', ARGV[1])
  return 0
end
local sub = read_sub(job.sub)
if paid(sub) then
  if int(job.grace) <= NOW then
    if sub.status == 'accepted' then
      move_sub(sub, 'finished', { done = NOW, outcome = 'lost', error = ARGV[4] })
      drop_sub_permit(sub.id)
      batches.settle(sub, nil)
    end
    finish(job, 'exhausted', ARGV[4])
  else redis.call('ZADD', 'dr:deadlines', job.grace, job.id) end
elseif job.deadline == '' or int(job.deadline) > NOW then
  if job.deadline ~= '' then redis.call('ZADD', 'dr:deadlines', job.deadline, job.id)
  else redis.call('ZREM', 'dr:deadlines', job.id) end
elseif job.place == 'held' then
  abandon(sub)
  finish(job, 'expired', ARGV[3])
elseif sub and OPEN[sub.status] then
  -- Its POST is on its way or being looked for; the reconciling ends that.
  redis.call('ZADD', 'dr:deadlines', NOW + 1000, job.id)
elseif job.status ~= 'running' then
  finish(job, 'expired', ARGV[2])
end
dispatch()
return 1
