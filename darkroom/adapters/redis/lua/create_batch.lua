#!lua
-- create_batch(batch JSON, token): its upload lies in the bucket; from here on it will end. Natural key: the batch's id. Answers
-- {created}, {busy} when another uploads under this key, or {known, batch, fingerprint}.
local new = cjson.decode(ARGV[1])
if redis.call('EXISTS', batch_key(new.id)) == 1 then return { 'created' } end
if new.idem ~= '' then
  local key = 'dr:batch_idem:' .. new.account .. ':' .. new.idem
  local known = redis.call('HMGET', key, 'batch', 'fingerprint', 'token')
  if known[1] then return { 'known', known[1], known[2] } end
  if known[3] and known[3] ~= ARGV[2] then return { 'busy' } end
  redis.call('HSET', key, 'batch', new.id, 'fingerprint', new.fingerprint)
  redis.call('HDEL', key, 'token')
  redis.call('PERSIST', key)
end
local batch = { id = new.id }
set_batch(batch, {
  v = 1, rev = 1, account = new.account, name = new.name, status = 'validating', reason = '', created = NOW, started = '',
  finished = '', on_invalid = new.on_invalid, budget = new.budget, spent = 0, reserved = 0, unknown = 0, factor = 1, waits = '',
  not_before = new.not_before, finish_by = new.finish_by, canary = new.canary, canary_max = new.canary_max, canary_left = '',
  canary_failed = 0, webhook = new.webhook, job_events = new.job_events, idem = new.idem, bytes = new.bytes, lines = new.lines,
  judged = '', valid = '', invalid = '', est = 0, pictures = 0, last_line = 0, added = 0, left = 0, feeds = 'none', ending = '', cursor = 0, told = 0,
  rate = 0, rate_at = 0, n_total = 0, n_queued = 0, n_running = 0, n_retrying = 0, n_held = 0, n_succeeded = 0, n_failed = 0,
  n_cancelled = 0,
})
count_batch('validating', 1)
redis.call('ZADD', 'dr:batches:' .. new.account, NOW, new.id)
batch_timer(new.id, 'intake', NOW)
return { 'created' }
