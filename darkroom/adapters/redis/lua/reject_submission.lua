#!lua flags=allow-oom
-- reject_submission(submission, error JSON, judged 0|1): the fact that nothing was sent or fal said no. Set once, not fenced.
-- Frees the permit. `judged`: fal refused the input itself, so it takes our key and balance, and the gate opens.
local sub = read_sub(ARGV[1])
if not sub then return 'unknown' end
if sub.status == 'rejected' then return 'rejected' end
if sub.status ~= 'intended' and sub.status ~= 'uncertain' then return 'closed' end
move_sub(sub, 'rejected', { error = ARGV[2], closed = NOW })
drop_sub_permit(sub.id)
batches.settle(sub, 0)
if ARGV[3] == '1' then trouble_over('submit') end
local job = read_job(sub.job)
if job and (job.place == 'reconcile' or job.place == 'held') and job.sub == sub.id then
  -- The worker was frozen, rescued, and now says that it never sent anything.
  move(job, 'settled', 'waiting_for_slot')
  requeue(job, sub)
end
dispatch()
return 'rejected'
