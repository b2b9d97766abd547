#!lua
-- create_job(job JSON, request JSON): accept a job: idempotency key, record, ready set, indexes. Natural key: the job's id.
-- Answers {created = bool, id} or {conflict = true, id}.
local new, request = cjson.decode(ARGV[1]), ARGV[2]
local existing = read_job(new.id)
if existing then return cjson.encode({ created = true, id = new.id }) end
if new.idem ~= '' then
  local key = 'dr:idem:' .. new.account .. ':' .. new.idem
  local known = redis.call('HMGET', key, 'job', 'fingerprint')
  if known[1] then return cjson.encode({ created = false, id = known[1], conflict = known[2] ~= new.fingerprint }) end
  redis.call('HSET', key, 'job', new.id, 'fingerprint', new.fingerprint)
end
local job = { id = new.id }
set(job, {
  v = 1, rev = 1, account = new.account, status = 'queued', stage = 'waiting_for_slot', place = 'none', lane = new.lane,
  batch = '', custom = '', model = new.model, est = new.est, created = NOW, started = '', finished = '', deadline = '',
  next = '', attempts = 0, errored = 0, rescues = 0, life = 0, lease = '', released = '', cancel = '', sub = '',
  idem = new.idem, webhook = new.webhook, replayed_by = '',
})
redis.call('SET', job_key(new.id) .. ':request', request)
redis.call('ZADD', 'dr:jobs:' .. new.account, NOW, new.id)
redis.call('ZADD', 'dr:jobs:' .. new.account .. ':queued', NOW, new.id)
redis.call('HINCRBY', 'dr:counts', 'queued', 1)
usage(new.account, 'created', 1)
if new.deadline_seconds then
  set(job, { deadline = NOW + new.deadline_seconds * 1000 })
  redis.call('ZADD', 'dr:deadlines', job.deadline, new.id)
end
place(job, 'ready')
dispatch()
return cjson.encode({ created = true, id = new.id })
