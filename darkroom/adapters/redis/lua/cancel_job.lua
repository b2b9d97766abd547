#!lua flags=allow-oom
-- cancel_job(job): the owner wants it to end. At once while nothing was sent; else a flag that the worker acts on.
-- Answers the status, or 'missing'. Repeatable.
local job = read_job(ARGV[1])
if not job then return 'missing' end
if TERMINAL[job.status] then return job.status end
local sub = read_sub(job.sub)
local open = sub and (OPEN[sub.status] or paid(sub))
if job.place == 'held' then
  abandon(sub)
  finish(job, 'cancelled')
  dispatch()
elseif job.status ~= 'running' and not open then
  finish(job, 'cancelled')
  dispatch()
elseif job.cancel ~= '1' then
  set(job, { cancel = '1', rev = int(job.rev) + 1 })
  announce(job)
  redis.call('PUBLISH', 'dr:wake', 'cancel:' .. job.id)
end
return job.status
