#!lua flags=allow-oom
-- open_submission(job, token, submission, fingerprint, permit ms): the one place that decides whether a paid POST may go,
-- and writes its intent. Natural key: the submission's id. Answers 'opened', or why not: lease, cancel, deadline, gate,
-- cooldown, s3, permit, open, batch (its batch's jobs have no turn now), budget (its batch's has no room).
local job = read_job(ARGV[1])
if not job or job.status ~= 'running' or job.lease ~= ARGV[2] then return 'lease' end
local sub = read_sub(job.sub)
if sub and sub.id == ARGV[3] then return sub.status == 'intended' and 'opened' or 'open' end
if job.cancel == '1' then return 'cancel' end
if job.deadline ~= '' and int(job.deadline) <= NOW then return 'deadline' end
if sub and (OPEN[sub.status] or paid(sub) or lost(job, sub)) then return 'open' end
local batch = job.batch ~= '' and read_batch(job.batch)
if batch and not batches.open(batch, job) then return 'batch' end
local why = closed(job.id)
if why then return why end
if not redis.call('ZSCORE', 'dr:permits', 'job:' .. job.id) then return 'permit' end
local bound = batch and batches.reserve(batch, job)
if batch and not bound then return 'budget' end
redis.call('ZREM', 'dr:permits', 'job:' .. job.id)
redis.call('ZADD', 'dr:permits', NOW, 'sub:' .. ARGV[3])
redis.call('ZADD', 'dr:timers', NOW + tonumber(ARGV[5]), 'permit:' .. ARGV[3])
redis.call('HSET', sub_key(ARGV[3]), 'v', 1, 'status', 'intended', 'job', job.id, 'account', job.account, 'model', job.model,
  'opened', NOW, 'fingerprint', ARGV[4], 'life', job.life)
if bound then redis.call('HSET', sub_key(ARGV[3]), 'bound', digits(bound)) end
redis.call('SADD', 'dr:open:' .. ARGV[4], ARGV[3])
redis.call('RPUSH', job_key(job.id) .. ':subs', ARGV[3])
set(job, { sub = ARGV[3], attempts = int(job.errored) + 1, stage = 'submitting', rev = int(job.rev) + 1 })
announce(job)
return 'opened'
