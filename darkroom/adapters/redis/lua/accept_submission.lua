#!lua flags=allow-oom
-- accept_submission(submission, request id, status url, response url, cancel url, source, grace ms): the fact that fal took
-- it. Set once, not fenced by a lease: a worker that was frozen and wakes up with a request id has the most valuable fact
-- there is. `source` is reply, callback, listing or operator. Answers
--   accepted   recorded (or was, with this same request id)
--   owned      the request id belongs to another submission; nothing changed
--   double     this submission has another request id already: recorded as a second charge
--   late       the submission was closed: recorded as a charge
--   busy       found by listing while another submission of the same input waits for its reply; nothing changed
--   unknown    no such submission
local sub = read_sub(ARGV[1])
if not sub then return 'unknown' end
local request = ARGV[2]
-- A callback means that fal is done: whoever watches this request looks at once.
if ARGV[6] == 'callback' then redis.call('PUBLISH', 'dr:wake', 'look:' .. sub.job) end
if sub.request_id == request then
  if ARGV[6] == 'callback' and drop_sub_permit(sub.id) then dispatch() end
  return 'accepted'
end
local owner = redis.call('GET', 'dr:request:' .. request)
if owner and owner ~= sub.id then return 'owned' end
if sub.request_id or sub.status == 'rejected' or sub.status == 'absent' or sub.status == 'abandoned' then
  if not owner then
    redis.call('SET', 'dr:request:' .. request, sub.id, 'PX', OWNED_MS)
    redis.call('HSET', sub_key(sub.id), 'late_request_id', request, 'late_at', NOW)
  end
  redis.call('ZADD', 'dr:double_charges', 'NX', NOW, sub.id .. ':' .. request)
  return sub.request_id and 'double' or 'late'
end
if ARGV[6] == 'listing' then
  for _, other in ipairs(redis.call('SMEMBERS', 'dr:open:' .. sub.fingerprint)) do
    if other ~= sub.id and redis.call('HGET', sub_key(other), 'status') == 'intended' then return 'busy' end
  end
end
redis.call('SET', 'dr:request:' .. request, sub.id)
move_sub(sub, 'accepted', {
  request_id = request, status_url = ARGV[3], response_url = ARGV[4], cancel_url = ARGV[5], accepted = NOW, source = ARGV[6],
})
-- fal calls back when a request has ended: its permit is free, though nobody may be watching it.
if ARGV[6] == 'callback' then drop_sub_permit(sub.id) end
-- Only a reply shows that fal takes submissions now; the others tell of an earlier time.
if ARGV[6] == 'reply' then trouble_over('submit') end
local job = read_job(sub.job)
if not job or TERMINAL[job.status] or job.sub ~= sub.id then
  dispatch()
  return 'accepted'
end
redis.call('ZADD', 'dr:deadlines', NOW + tonumber(ARGV[7]), job.id)
set(job, { rescues = 0, stage = 'generating', grace = NOW + tonumber(ARGV[7]) })
if job.place == 'reconcile' or job.place == 'held' then
  move(job, 'settled', 'generating')
  place(job, 'resume')
else
  set(job, { rev = int(job.rev) + 1 })
  announce(job)
end
dispatch()
return 'accepted'
