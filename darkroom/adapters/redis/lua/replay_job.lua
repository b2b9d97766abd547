#!lua flags=allow-oom
-- replay_job(job, operation id, accept charge 0|1): an ended job starts a new life. What was paid is resumed; where a new
-- submission could charge again, that must have been accepted. Answers ok, missing, state or charge.
local job = read_job(ARGV[1])
if not job then return 'missing' end
if job.replayed_by == ARGV[2] then return 'ok' end
if not allowed(job, 'replayed') then return 'state' end
local sub = read_sub(job.sub)
local resumes = paid(sub)
local charged = false
for _, id in ipairs(redis.call('LRANGE', job_key(job.id) .. ':subs', 0, -1)) do
  local fields = redis.call('HMGET', sub_key(id), 'status', 'cost', 'outcome', 'late_request_id')
  if fields[1] == 'abandoned' or fields[4] or (fields[1] == 'done' and (fields[3] ~= 'error' or int(fields[2]) > 0)) then
    charged = true
  end
end
if charged and not resumes and ARGV[3] ~= '1' then return 'charge' end
redis.call('ZREM', 'dr:ended', job.id)
redis.call('DEL', job_key(job.id) .. ':error')
move(job, 'replayed', 'waiting_for_slot')
set(job, {
  replayed_by = ARGV[2], life = int(job.life) + 1, errored = 0, rescues = 0, cancel = '', finished = '', deadline = '', released = '',
})
if job.idem ~= '' then redis.call('PERSIST', 'dr:idem:' .. job.account .. ':' .. job.idem) end
if resumes then
  set(job, { grace = NOW + DAY_MS })
  redis.call('ZADD', 'dr:deadlines', job.grace, job.id)
end
requeue(job, sub)
dispatch()
return 'ok'
