#!lua flags=allow-oom
-- finish_submission(submission, ok|error|lost, units, cost in nano USD, result JSON, error JSON): fal's verdict and its bill. Set
-- once, not fenced. `lost`: fal did the work and no longer has it. Frees the permit; the result is a checkpoint that a later attempt resumes from.
local sub = read_sub(ARGV[1])
if not sub then return 'unknown' end
if sub.status ~= 'accepted' then return sub.status == 'done' and 'done' or 'closed' end
move_sub(sub, 'finished', { done = NOW, outcome = ARGV[2], units = ARGV[3], cost = ARGV[4], error = ARGV[6] })
if ARGV[5] ~= '' then redis.call('SET', sub_key(sub.id) .. ':result', ARGV[5]) end
drop_sub_permit(sub.id)
-- How long one takes, averaged over the last dozens: for forecasts.
local pace = tonumber(redis.call('GET', 'dr:pace') or '') or (NOW - int(sub.opened))
redis.call('SET', 'dr:pace', string.format('%d', pace + 0.05 * (NOW - int(sub.opened) - pace)))
-- 5xx and refusals without a bill cost nothing; good work without one cost something that nobody knows.
batches.settle(sub, tonumber(ARGV[4]) or (ARGV[2] == 'error' and 0 or nil))
if ARGV[2] == 'ok' then trouble_over('run') end
if ARGV[4] ~= '' then usage(sub.account, 'spend_nano_usd', ARGV[4]) end
local job = read_job(sub.job)
if job and not TERMINAL[job.status] and job.sub == sub.id then
  set(job, { rescues = 0, rev = int(job.rev) + 1 })
  if not paid(sub) then -- the grace is over: the job's own deadline, where it has one, counts again
    if job.deadline == '' then redis.call('ZREM', 'dr:deadlines', job.id)
    else redis.call('ZADD', 'dr:deadlines', job.deadline, job.id) end
  end
  if ARGV[2] == 'ok' and job.status == 'running' then
    redis.call('SADD', 'dr:copying', job.id)
    set(job, { stage = 'copying' })
  end
  announce(job)
end
dispatch()
return 'done'
