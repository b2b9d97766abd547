#!lua flags=allow-oom
-- settle_submission(submission, verdict, argument): what a look for a lost reply ended with.
--   later      look again after `argument` ms
--   absent     proven not to exist: the job may submit anew (or is cancelled, if that is wanted)
--   hold       the window is over: wait for an operator, a late callback or the deadline (or be cancelled likewise)
--   resubmit   the window is over: abandon it and submit anew
--   fail       the window is over: abandon it and end the job with the error `argument` (JSON)
-- Natural key: the submission and the job's place.
local ENDED = { absent = 'absent', resubmit = 'abandoned', fail = 'abandoned', hold = 'abandoned' }
local sub = read_sub(ARGV[1])
if sub and sub.status == ENDED[ARGV[2]] then return 1 end
local job = sub and read_job(sub.job)
if not job or job.sub ~= sub.id or sub.status ~= 'uncertain' then return 0 end
if job.place ~= 'reconcile' and job.place ~= 'held' then return 0 end
local verdict = ARGV[2]
if verdict == 'later' then
  if job.place == 'reconcile' then
    redis.call('ZADD', 'dr:timers', NOW + tonumber(ARGV[3]), 'reconcile:' .. job.id)
    redis.call('HINCRBY', sub_key(sub.id), 'looks', 1)
  end
  return 1
elseif verdict == 'hold' and job.cancel ~= '1' then
  if job.place == 'reconcile' then
    move(job, 'held', 'held')
    place(job, 'held')
  end
  return 1
end
if verdict == 'absent' then
  move_sub(sub, 'disproved', { closed = NOW })
  drop_sub_permit(sub.id)
  batches.settle(sub, 0)
else
  abandon(sub)
end
if verdict == 'fail' then finish(job, 'exhausted', ARGV[3])
else
  move(job, 'settled', 'waiting_for_slot')
  requeue(job, sub)
end
dispatch()
return 1
