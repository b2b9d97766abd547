#!lua flags=allow-oom
-- rescue_job(job, token, max rescues, error JSON): take a job back from a worker that is gone. The caller has seen
-- the lease unchanged for a lease's length on its own monotonic clock. Natural key: the token.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2], 'rescue')
if held ~= 'held' then return held and 1 or 0 end
if int(redis.call('ZSCORE', 'dr:leases', job.id)) > NOW then return 0 end
local sub = read_sub(job.sub)
local rescues = int(job.rescues) + 1
set(job, { rescues = rescues })
if rescues >= tonumber(ARGV[3]) and not awaits_reply(sub) then
  finish(job, 'exhausted', ARGV[4])
elseif sub and sub.status == 'intended' then
  -- The POST may have left: nobody knows. The permit stays with the submission.
  move_sub(sub, 'doubted', { doubted = NOW })
  release(job, 'rescued', 'reconciling')
  place(job, 'reconcile', NOW)
else
  release(job, 'rescued', job.stage)
  requeue(job, sub)
end
dispatch()
return 1
