-- Shared by all scripts; EDGES, TERMINAL and OPEN come before it, generated from darkroom/domain/lifecycle.py.
-- One job is always in exactly one place; `place` is the only function that moves it, `move` the only one that
-- changes its status. Times are milliseconds of the server's clock.

local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)
local REPUBLISH_MS = 3000 -- a dispatched job's message: there are never more of them than permits and copies
local DELIVER_AGAIN_MS = 15000 -- a due delivery's message: there may be thousands
local DISPATCH_BATCH = 64
local DAY_MS = 86400000
local batches = {} -- what a batch's jobs mean to their batch: filled by batches.lua, which comes after
local OWNED_MS = 30 * DAY_MS -- how long a request stays known that no record leads to

local function int(value) return tonumber(value) or 0 end

local function digits(number) return string.format('%d', number) end

local function read(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  return record
end

local function job_key(id) return 'dr:job:' .. id end

-- What a record does not say: a batch's jobs are written without it, for there may be very many of them.
local UNSAID = { __index = {
  v = 1, batch = '', custom = '', started = '', finished = '', deadline = '', next = '', attempts = 0, errored = 0, rescues = 0,
  life = 0, lease = '', released = '', cancel = '', sub = '', idem = '', webhook = '', replayed_by = '',
} }

local function read_job(id)
  local job = read(job_key(id))
  if not job then return nil end
  job.id = id
  return setmetatable(job, UNSAID)
end

local function sub_key(id) return 'dr:sub:' .. id end

local function read_sub(id)
  if not id or id == '' then return nil end
  local sub = read(sub_key(id))
  if sub then sub.id = id end
  return sub
end

-- A job as it is handed out, false where there is none: its hash, request, error, artifacts, and then for each submission its id,
-- hash and result. Hashes are flat.
local function whole(id)
  local key = job_key(id)
  local hash = redis.call('HGETALL', key)
  if #hash == 0 then return false end
  local row = { hash, redis.call('GET', key .. ':request'), redis.call('GET', key .. ':error'), redis.call('HGETALL', key .. ':artifacts') }
  for _, sub in ipairs(redis.call('LRANGE', key .. ':subs', 0, -1)) do
    row[#row + 1] = sub
    row[#row + 1] = redis.call('HGETALL', sub_key(sub))
    row[#row + 1] = redis.call('GET', sub_key(sub) .. ':result')
  end
  return row
end

-- Writes fields of a hash and of the table at hand.
local function write(key, record, fields)
  local flat = {}
  for name, value in pairs(fields) do
    record[name] = value
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  redis.call('HSET', key, unpack(flat))
end

local function set(job, fields) write(job_key(job.id), job, fields) end

-- fal took it, and its pictures are there or to come.
local function paid(sub)
  return sub and (sub.status == 'accepted' or (sub.status == 'done' and sub.outcome == 'ok'))
end

-- fal did the work of this life and no longer has it: the job ends with that, it is not submitted again by itself.
local function lost(job, sub)
  return sub and sub.status == 'done' and sub.outcome == 'lost' and int(sub.life) == int(job.life)
end

-- The POST's outcome is not known yet: only `doubted` may take such a job from its worker.
local function awaits_reply(sub) return sub and (sub.status == 'intended' or sub.status == 'uncertain') end

-- places -------------------------------------------------------------------------------------------------------------

local TIMER = { republish = true, retry = true, reconcile = true }

-- A flow is what shares one turn: lane, then account, then batch (a batch's canary is a flow of its own). Within it, first
-- accepted is first served. A flow has turns only while it is in its account's row: a batch that may not run is not.
local function flow_keys(job)
  local accounts = 'dr:ready:' .. job.lane
  local rows = accounts .. ':' .. job.account
  local batch = job.batch == '' and '-' or job.batch .. (job.canary or '')
  return accounts, rows, batch, rows .. ':' .. batch
end

local function ready_add(job)
  local accounts, rows, batch, flow = flow_keys(job)
  local turn = redis.call('GET', 'dr:turn') or '0'
  redis.call('ZADD', flow, job.created, job.id)
  if job.batch ~= '' and not batches.feeds(job) then return end
  redis.call('ZADD', rows, 'NX', turn, batch)
  redis.call('ZADD', accounts, 'NX', turn, job.account)
end

local function ready_remove(job)
  local accounts, rows, batch, flow = flow_keys(job)
  redis.call('ZREM', flow, job.id)
  if redis.call('EXISTS', flow) == 0 then redis.call('ZREM', rows, batch) end
  if redis.call('EXISTS', rows) == 0 then redis.call('ZREM', accounts, job.account) end
end

-- The job whose turn it is in a lane; its account and batch go to the end of their rows.
local function ready_next(lane)
  local accounts = 'dr:ready:' .. lane
  local account = redis.call('ZRANGE', accounts, 0, 0)[1]
  if not account then return nil end
  local rows = accounts .. ':' .. account
  local batch = redis.call('ZRANGE', rows, 0, 0)[1]
  local turn = redis.call('INCR', 'dr:turn')
  redis.call('ZADD', accounts, turn, account)
  redis.call('ZADD', rows, turn, batch)
  return redis.call('ZRANGE', rows .. ':' .. batch, 0, 0)[1]
end

local function unplace(job)
  local at = job.place
  if TIMER[at] then redis.call('ZREM', 'dr:timers', at .. ':' .. job.id)
  elseif at == 'ready' then ready_remove(job)
  elseif at == 'resume' then redis.call('ZREM', 'dr:ready:resume', job.id)
  elseif at == 'lease' then redis.call('ZREM', 'dr:leases', job.id)
  elseif at == 'held' then
    redis.call('ZREM', 'dr:held', job.id)
    batches.count(job, 'held', 'queued')
  end
end

-- `at` is the due time of a timer or the expiry of a lease.
local function place(job, where, at)
  unplace(job)
  if TIMER[where] then redis.call('ZADD', 'dr:timers', at, where .. ':' .. job.id)
  elseif where == 'ready' then ready_add(job)
  elseif where == 'resume' then redis.call('ZADD', 'dr:ready:resume', NOW, job.id)
  elseif where == 'lease' then redis.call('ZADD', 'dr:leases', at, job.id)
  elseif where == 'held' then
    redis.call('ZADD', 'dr:held', NOW, job.id)
    batches.count(job, 'queued', 'held')
  end
  set(job, { place = where })
end

-- transitions --------------------------------------------------------------------------------------------------------

local function announce(job) redis.call('PUBLISH', 'dr:changed:' .. job.id, job.rev) end

local function allowed(job, event) return (EDGES.job[job.status] or {})[event] end

local function move(job, event, stage)
  local to = allowed(job, event)
  if not to then error({ err = 'ILLEGAL job ' .. job.id .. ' is ' .. job.status .. ', event ' .. event }) end
  if to ~= job.status then
    redis.call('ZREM', 'dr:jobs:' .. job.account .. ':' .. job.status, job.id)
    redis.call('ZADD', 'dr:jobs:' .. job.account .. ':' .. to, job.created, job.id)
    redis.call('HINCRBY', 'dr:counts', job.status, -1)
    redis.call('HINCRBY', 'dr:counts', to, 1)
    batches.count(job, job.status, to)
  end
  set(job, { status = to, stage = stage, rev = int(job.rev) + 1 })
  announce(job)
end

local function move_sub(sub, event, fields)
  local to = (EDGES.submission[sub.status] or {})[event]
  if not to then error({ err = 'ILLEGAL submission ' .. sub.id .. ' is ' .. sub.status .. ', event ' .. event }) end
  sub.status = to
  redis.call('HSET', sub_key(sub.id), 'status', to)
  for name, value in pairs(fields or {}) do
    sub[name] = value
    redis.call('HSET', sub_key(sub.id), name, value)
  end
  if to ~= 'intended' and to ~= 'uncertain' then redis.call('SREM', 'dr:open:' .. sub.fingerprint, sub.id) end
end

-- permits ------------------------------------------------------------------------------------------------------------

-- A permit belongs to the job from its dispatch to the intent, and from the intent on to the submission.
local function drop_job_permit(id) redis.call('ZREM', 'dr:permits', 'job:' .. id) end

-- Answers whether there was one.
local function drop_sub_permit(id)
  redis.call('ZREM', 'dr:timers', 'permit:' .. id)
  return redis.call('ZREM', 'dr:permits', 'sub:' .. id) == 1
end

-- Dispatches that were stopped give no permit: why, or nil when submissions may open.
local function closed(job_id)
  if redis.call('EXISTS', 'dr:gate:s3') == 1 then return 's3' end
  local until_ms = int(redis.call('GET', 'dr:cooldown'))
  if until_ms > NOW then return 'cooldown', until_ms end
  local gate = redis.call('HMGET', 'dr:gate:fal', 'reason', 'probe_at', 'probe')
  if gate[1] and not (job_id and gate[3] == job_id) then
    if not job_id and int(gate[2]) <= NOW then return nil, nil, true end
    return 'gate', int(gate[2])
  end
  return nil
end

local function send(job, entry)
  redis.call('RPUSH', 'dr:outbox', entry .. ':' .. job.lane .. ':' .. job.id)
end

-- Nothing is submitted but one probe at a time, at growing distances. `job_id` met the fault: what else was on its way when
-- the gate closed changes nothing any more. `opens_by` is the success that opens it: submit or run.
local function close_gate(reason, message, first, longest, job_id, opens_by)
  local gate = read('dr:gate:fal')
  local delay = first
  if gate then
    if gate.probe ~= job_id then return end
    delay = math.min(int(gate.delay) * 2, longest)
  end
  redis.call('HSET', 'dr:gate:fal', 'reason', reason, 'message', message, 'since', gate and gate.since or NOW, 'delay', delay,
    'probe_at', NOW + delay, 'probe', '', 'opens_by', opens_by)
end

-- fal did this again, submit or run: a row of faults is over, and a gate that waited for it opens.
local function trouble_over(kind)
  redis.call('DEL', 'dr:trouble:' .. kind)
  if redis.call('HGET', 'dr:gate:fal', 'opens_by') == kind then redis.call('DEL', 'dr:gate:fal') end
end

local function hand_out(job)
  move(job, 'dispatched', job.stage)
  place(job, 'republish', NOW + REPUBLISH_MS)
  batches.began(job)
  send(job, 'run')
end

-- Hands out permits while there are any, and answers in how many milliseconds it is worth trying again (-1: unknown).
-- Jobs that are already paid come first and need no permit; a cap on those being copied bounds both.
local function dispatch()
  local limits = read('dr:limits')
  if not limits then return -1 end
  for _ = 1, DISPATCH_BATCH do
    local id = redis.call('ZRANGE', 'dr:ready:resume', 0, 0)[1]
    if not id or redis.call('SCARD', 'dr:copying') >= int(limits.copying) then break end
    redis.call('SADD', 'dr:copying', id)
    hand_out(read_job(id))
  end
  local why, again, probing = closed(nil)
  if why then return again and again - NOW or -1 end
  local interval = int(limits.rate_interval)
  for _ = 1, probing and 1 or DISPATCH_BATCH do
    local free = int(limits.permits) - redis.call('ZCARD', 'dr:permits')
    if free <= 0 or redis.call('SCARD', 'dr:copying') >= int(limits.copying) then return -1 end
    local lane = 'interactive'
    if redis.call('EXISTS', 'dr:ready:interactive') == 0 then
      if free <= int(limits.reserve) or redis.call('EXISTS', 'dr:ready:bulk') == 0 then return -1 end
      lane = 'bulk'
    end
    if interval > 0 then
      -- GCRA with no burst: the next submission may go at `dr:rate`.
      local at = tonumber(redis.call('GET', 'dr:rate') or '0')
      if at > NOW then return at - NOW end
      redis.call('SET', 'dr:rate', NOW + interval, 'PX', math.ceil(interval) + 60000)
    end
    local job = read_job(ready_next(lane) or '')
    if not job then return -1 end
    redis.call('ZADD', 'dr:permits', NOW, 'job:' .. job.id)
    if probing then redis.call('HSET', 'dr:gate:fal', 'probe', job.id, 'probe_at', NOW + 60000) end
    hand_out(job)
  end
  return probing and -1 or 0
end

-- the end ------------------------------------------------------------------------------------------------------------

local function usage(account, field, by)
  redis.call('HINCRBY', 'dr:usage:' .. account .. ':' .. digits(math.floor(NOW / DAY_MS)), field, by)
end

-- Appends to an account's log; answers the event's number.
local function log_event(account, ...)
  local seq = redis.call('INCR', 'dr:events:' .. account .. ':seq')
  redis.call('XADD', 'dr:events:' .. account, digits(seq) .. '-0', ...)
  return seq
end

-- Owes the event `evt_<name>` to a receiver; `owner` is 'job' or 'batch', `key` its record's.
local function owe(name, seq, kind, account, owner, id, key, url)
  local delivery = 'dlv_' .. name
  redis.call('HSET', 'dr:delivery:' .. delivery, 'v', 1, 'account', account, 'event', 'evt_' .. name, 'seq', seq,
    'type', kind, owner, id, 'url', url, 'status', 'pending', 'created', NOW, 'next', NOW, 'attempts', 0)
  redis.call('ZADD', 'dr:deliveries:' .. account, NOW, delivery)
  redis.call('RPUSH', key .. ':deliveries', delivery)
  redis.call('ZADD', 'dr:timers', NOW + DELIVER_AGAIN_MS, 'deliver:' .. delivery)
  redis.call('RPUSH', 'dr:outbox', 'deliver::' .. delivery)
end

-- The event of a job's end and the delivery owed for it. Their names follow from the job and its life, so that a
-- repeat could only write the same again.
local function tell(job, error_json)
  local name = string.sub(job.id, 5) .. '_' .. job.life
  local kind = 'job.' .. job.status
  local seq = log_event(job.account, 'id', 'evt_' .. name, 'type', kind, 'job', job.id, 'at', NOW,
    'attempts', job.attempts, 'life', job.life, 'error', error_json or '')
  local url = ''
  if job.webhook == '1' then url = cjson.decode(redis.call('GET', job_key(job.id) .. ':request')).webhook_url
  elseif job.batch ~= '' then url = batches.receiver(job)
  end
  if url ~= '' then owe(name, seq, kind, job.account, 'job', job.id, job_key(job.id), url) end
end

-- The lease ends. `released` names it and the transition that ended it, so that a repeat of that one, and no other,
-- is recognised.
local function let_go(job)
  if job.lease ~= '' then set(job, { released = job.lease .. ':' .. (job.by or ''), lease = '' }) end
end

-- Ends a job: status, counters, event, delivery and indexes in one step.
local function finish(job, event, error_json)
  move(job, event, '')
  place(job, 'none')
  drop_job_permit(job.id)
  redis.call('SREM', 'dr:copying', job.id)
  redis.call('ZREM', 'dr:deadlines', job.id)
  if job.batch == '' then redis.call('ZADD', 'dr:ended', NOW, job.id) end -- a batch's jobs are swept with their batch
  let_go(job)
  set(job, { finished = NOW, next = '' })
  if error_json and error_json ~= '' then redis.call('SET', job_key(job.id) .. ':error', error_json)
  else redis.call('DEL', job_key(job.id) .. ':error') end
  usage(job.account, job.status, 1)
  if job.idem ~= '' then
    redis.call('PEXPIREAT', 'dr:idem:' .. job.account .. ':' .. job.idem, math.max(int(job.created) + 7 * DAY_MS, NOW + 3600000))
  end
  tell(job, error_json)
  batches.ended(job, error_json)
end

-- Unknown for good: nobody looks any more. The permit goes with it.
local function abandon(sub)
  if sub and sub.status == 'uncertain' then
    move_sub(sub, 'abandoned')
    batches.settle(sub, nil)
  end
  if sub and sub.status == 'abandoned' then drop_sub_permit(sub.id) end
end

-- Leaves `running`.
local function release(job, event, stage)
  move(job, event, stage)
  redis.call('SREM', 'dr:copying', job.id)
  let_go(job)
end

-- Where a job goes that may be worked on again: what needs no permit resumes, others want one. A cancellation that
-- waited for the worker takes effect here, unless fal has taken the request: then a worker must tell fal.
local function requeue(job, sub)
  if paid(sub) or lost(job, sub) then
    place(job, 'resume')
    set(job, { stage = sub.outcome == 'ok' and 'copying' or 'generating' })
  elseif job.cancel == '1' then
    finish(job, 'cancelled')
  elseif batches.ending(job) then
    finish(job, 'cancelled', batches.ending(job))
  else
    drop_job_permit(job.id)
    place(job, 'ready')
    set(job, { stage = 'waiting_for_slot' })
  end
end

-- An ended job starts a new life: ok, state or charge, as replay_job's head says. Natural key: the operation.
local function replay(job, operation, accept_charge)
  if job.replayed_by == operation then return 'ok' end
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
  if charged and not resumes and accept_charge ~= '1' then return 'charge' end
  redis.call('ZREM', 'dr:ended', job.id)
  batches.replayed(job, redis.call('GET', job_key(job.id) .. ':error'))
  redis.call('DEL', job_key(job.id) .. ':error')
  move(job, 'replayed', 'waiting_for_slot')
  set(job, {
    replayed_by = operation, life = int(job.life) + 1, errored = 0, rescues = 0, cancel = '', finished = '', deadline = '', released = '',
  })
  if job.idem ~= '' then redis.call('PERSIST', 'dr:idem:' .. job.account .. ':' .. job.idem) end
  if resumes then
    set(job, { grace = NOW + DAY_MS })
    redis.call('ZADD', 'dr:deadlines', job.grace, job.id)
  end
  requeue(job, sub)
  return 'ok'
end

-- The caller holds the lease, or did and ended it by this same transition, which is being repeated: 'held', 'released'
-- or nil. `by` is the transition's name.
local function fence(job, token, by)
  if job and job.status == 'running' and job.lease == token then
    job.by = by
    return 'held'
  end
  if job and job.released == token .. ':' .. by then return 'released' end
  return nil
end
