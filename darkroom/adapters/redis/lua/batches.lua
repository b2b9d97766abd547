-- Shared by all scripts, after lib.lua: what a batch is, and what its jobs' moves mean to it. Money is in nano USD.
-- A batch's `feeds` says which of its flows have turns: none, canary, or all; only `feed` changes it.

local HOLD_MS = 30000 -- how long a worker that works for a batch is believed to be alive; its next slice renews that
local RATE_MS = 60000 -- the time over which a batch's speed is averaged

local function batch_key(id) return 'dr:batch:' .. id end

local function read_batch(id)
  local batch = read(batch_key(id))
  if batch then batch.id = id end
  return batch
end

local function set_batch(batch, fields) write(batch_key(batch.id), batch, fields) end

-- A batch's timers: intake, open (not_before), close (finish_by), drain, replay, outcome, purge.
local function batch_timer(id, kind, at) redis.call('ZADD', 'dr:timers', at, kind .. ':' .. id) end

local function keep_timer(id, kind) redis.call('ZADD', 'dr:timers', 'XX', NOW + HOLD_MS, kind .. ':' .. id) end

local function drop_timer(id, kind) redis.call('ZREM', 'dr:timers', kind .. ':' .. id) end

-- feeding ------------------------------------------------------------------------------------------------------------

local function wanted_feeds(batch)
  if not FEEDING[batch.status] or batch.waits ~= '' or int(batch.not_before) > NOW then return 'none' end
  return batch.canary_left ~= '' and 'canary' or 'all'
end

-- Gives the batch's flows the turns that its record allows, no others.
local function feed(batch)
  local feeds = wanted_feeds(batch)
  set_batch(batch, { feeds = feeds })
  local accounts = 'dr:ready:bulk'
  local rows = accounts .. ':' .. batch.account
  local turn = redis.call('GET', 'dr:turn') or '0'
  for _, suffix in ipairs({ '.canary', '' }) do
    local flow = batch.id .. suffix
    local open = feeds == 'all' or (feeds == 'canary' and suffix ~= '')
    if open and redis.call('EXISTS', rows .. ':' .. flow) == 1 then
      redis.call('ZADD', rows, 'NX', turn, flow)
      redis.call('ZADD', accounts, 'NX', turn, batch.account)
    else
      redis.call('ZREM', rows, flow)
    end
  end
  if redis.call('EXISTS', rows) == 0 then redis.call('ZREM', accounts, batch.account) end
end

-- Whether a job's flow has turns now.
function batches.feeds(job)
  local feeds = redis.call('HGET', batch_key(job.batch), 'feeds')
  return feeds == 'all' or (feeds == 'canary' and job.canary ~= nil)
end

-- Whether a submission may open for a job of it: its flow has turns, and finish_by is not past.
function batches.open(batch, job)
  if batch.finish_by ~= '' and int(batch.finish_by) <= NOW then return false end
  return batch.feeds == 'all' or (batch.feeds == 'canary' and job.canary ~= nil)
end

-- telling ------------------------------------------------------------------------------------------------------------

-- The event of what became of a batch, with its numbers as they are now, and the delivery owed for it. `told` numbers them.
local function tell_batch(batch, kind)
  local key = batch_key(batch.id)
  local name = string.sub(batch.id, 7) .. '_' .. digits(redis.call('HINCRBY', key, 'told', 1) - 1)
  local seq = log_event(batch.account, 'id', 'evt_' .. name, 'type', 'batch.' .. kind, 'batch', batch.id, 'at', NOW,
    'then', cjson.encode(read_batch(batch.id)))
  if batch.webhook == '' then return end
  owe(name, seq, 'batch.' .. kind, batch.account, 'batch', batch.id, key, batch.webhook)
end

-- Who hears of its jobs' ends one by one: its own receiver where job events were asked for, else nobody ('').
function batches.receiver(job)
  local batch = redis.call('HMGET', batch_key(job.batch), 'job_events', 'webhook')
  return batch[1] == '1' and batch[2] or ''
end

local function count_batch(status, by) redis.call('HINCRBY', 'dr:batch_counts', status, by) end

local function move_batch(batch, event, reason)
  local to = (EDGES.batch[batch.status] or {})[event]
  if not to then error({ err = 'ILLEGAL batch ' .. batch.id .. ' is ' .. batch.status .. ', event ' .. event }) end
  count_batch(batch.status, -1)
  count_batch(to, 1)
  set_batch(batch, { status = to, reason = reason, rev = int(batch.rev) + 1 })
  feed(batch)
end

-- Nothing more of it is submitted, for a reason that its owner is told.
local function pause(batch, reason)
  set_batch(batch, { waits = '' })
  move_batch(batch, 'paused', reason)
  tell_batch(batch, 'paused')
end

-- What is not paid is being ended, in slices; `as` is how the batch ends then: cancelled or expired.
local function end_batch(batch, as, reason)
  set_batch(batch, { ending = as, waits = '', cursor = 0 })
  move_batch(batch, 'ending', reason)
  drop_timer(batch.id, 'close')
  drop_timer(batch.id, 'open')
  drop_timer(batch.id, 'replay')
  batch_timer(batch.id, 'drain', NOW)
end

-- It has ended, by completed, cancelled, expired or rejected (which its owner knows as failed).
local function close_batch(batch, event, reason)
  for _, kind in ipairs({ 'open', 'close', 'drain', 'replay' }) do drop_timer(batch.id, kind) end
  set_batch(batch, { finished = NOW })
  move_batch(batch, event, reason)
  redis.call('ZADD', 'dr:ended_batches', NOW, batch.id)
  if batch.idem ~= '' then
    local key = 'dr:batch_idem:' .. batch.account .. ':' .. batch.idem
    redis.call('PEXPIREAT', key, math.max(int(batch.created) + 7 * DAY_MS, NOW + 3600000))
  end
  tell_batch(batch, batch.status)
end

-- Every job has ended: a worker writes the outcome, then the batch ends too.
local function outcome_due(batch)
  local walking = redis.call('ZSCORE', 'dr:timers', 'replay:' .. batch.id)
  if batch.status ~= 'validating' and not TERMINAL_BATCH[batch.status] and not walking then batch_timer(batch.id, 'outcome', NOW) end
end

-- jobs' moves --------------------------------------------------------------------------------------------------------

function batches.count(job, from, to)
  if job.batch == '' then return end
  redis.call('HINCRBY', batch_key(job.batch), 'n_' .. from, -1)
  redis.call('HINCRBY', batch_key(job.batch), 'n_' .. to, 1)
end

-- A job of it got a turn.
function batches.began(job)
  if job.batch == '' or redis.call('HGET', batch_key(job.batch), 'status') ~= 'queued' then return end
  local batch = read_batch(job.batch)
  if batch.started == '' then set_batch(batch, { started = NOW }) end
  move_batch(batch, 'began', '')
end

local ENDING = {
  cancelled = cjson.encode({ code = 'batch_cancelled', message = 'its batch was cancelled before this job was paid' }),
  expired = cjson.encode({ code = 'batch_expired', message = "its batch's finish_by passed before this job was paid" }),
}

-- The error that an unpaid job of it ends with now, nil while it does not end.
function batches.ending(job)
  if job.batch == '' then return nil end
  return ENDING[redis.call('HGET', batch_key(job.batch), 'ending')]
end

-- Events a millisecond, exponentially averaged: `rate` was right at `rate_at`.
local function tick_rate(key)
  local was = redis.call('HMGET', key, 'rate', 'rate_at')
  local faded = int(was[1]) * math.exp(-math.max(0, NOW - int(was[2])) / RATE_MS)
  redis.call('HSET', key, 'rate_at', NOW, 'rate', string.format('%.9g', faded + 1 / RATE_MS))
end

-- The canary has ended: it goes on by itself where few enough failed, else it waits for its owner.
local function judge_canary(batch)
  local share = int(batch.canary_failed) / int(batch.canary)
  set_batch(batch, { canary_left = '' })
  if batch.canary_max ~= '' and share <= tonumber(batch.canary_max) then feed(batch)
  elseif FEEDING[batch.status] and int(batch.left) > 0 then pause(batch, 'canary')
  end
end

function batches.ended(job, error_json)
  if job.batch == '' then return end
  local key = batch_key(job.batch)
  local left = redis.call('HINCRBY', key, 'left', -1)
  if job.status ~= 'cancelled' then tick_rate(key) end
  if job.status == 'failed' and error_json and error_json ~= '' then
    local code = cjson.decode(error_json).code
    redis.call('HINCRBY', key .. ':causes', code, 1)
    redis.call('HSETNX', key .. ':causes', code .. '.example', job.id)
  end
  if left > 0 and not job.canary then return end
  local batch = read_batch(job.batch)
  if job.canary and batch.canary_left ~= '' then
    if job.status == 'failed' then set_batch(batch, { canary_failed = int(batch.canary_failed) + 1 }) end
    set_batch(batch, { canary_left = int(batch.canary_left) - 1 })
    if batch.canary_left == 0 then judge_canary(batch) end
  end
  if left == 0 then outcome_due(batch) end
end

-- An ended job is about to start a new life; `error_json` is what it had failed with. An ended batch opens again.
function batches.replayed(job, error_json)
  if job.batch == '' then return end
  local batch = read_batch(job.batch)
  if not batch then return end
  set_batch(batch, { left = int(batch.left) + 1 })
  if job.status == 'failed' and error_json then
    redis.call('HINCRBY', batch_key(batch.id) .. ':causes', cjson.decode(error_json).code, -1)
  end
  drop_timer(batch.id, 'outcome')
  if TERMINAL_BATCH[batch.status] then
    set_batch(batch, { ending = '', finished = '', finish_by = int(batch.finish_by) > NOW and batch.finish_by or '' })
    redis.call('ZREM', 'dr:ended_batches', batch.id)
    if batch.idem ~= '' then redis.call('PERSIST', 'dr:batch_idem:' .. batch.account .. ':' .. batch.idem) end
    if batch.finish_by ~= '' then batch_timer(batch.id, 'close', batch.finish_by) end
    move_batch(batch, 'reopened', '')
  end
end

-- money --------------------------------------------------------------------------------------------------------------

-- What a submission of this job may cost at most: its estimate, raised once a bill was above one.
local function bound_of(batch, job)
  return math.ceil(tonumber(job.est) * 1e9 * (tonumber(batch.factor) or 1) - 1e-6)
end

-- Reserves what a submission may cost. Answers the bound, or nil when the budget has no room for it: the batch then waits for
-- what is reserved to be settled, and is paused when that leaves no room either.
function batches.reserve(batch, job)
  local bound = bound_of(batch, job)
  local taken = int(batch.spent) + int(batch.reserved)
  if batch.budget ~= '' and taken + bound > int(batch.budget) then
    if FEEDING[batch.status] then
      if int(batch.reserved) > int(batch.unknown) then
        set_batch(batch, { waits = digits(bound), reason = 'budget' })
        feed(batch)
      else
        pause(batch, 'budget')
      end
    end
    return nil
  end
  redis.call('HINCRBY', batch_key(batch.id), 'reserved', digits(bound))
  return bound
end

-- A submission's outcome is known: its reservation goes, its bill stays. `cost` nil: fal did the work and its bill is unknown, so
-- the reservation is kept for good.
function batches.settle(sub, cost)
  if not sub.bound or sub.bound == '' then return end
  local job = redis.call('HMGET', job_key(sub.job), 'batch', 'est')
  local batch = job[1] and job[1] ~= '' and read_batch(job[1])
  if not batch then return end
  local bound = int(sub.bound)
  if cost == nil then
    set_batch(batch, { unknown = digits(int(batch.unknown) + bound) })
  else
    redis.call('HSET', sub_key(sub.id), 'bound', '')
    set_batch(batch, { reserved = digits(int(batch.reserved) - bound), spent = digits(int(batch.spent) + cost) })
    if cost > bound then
      set_batch(batch, { factor = string.format('%.4f', math.ceil(cost / (tonumber(job[2]) * 1e9) * 1e4) / 1e4) })
      if FEEDING[batch.status] and batch.budget ~= '' then pause(batch, 'bill_above_bound') end
    end
  end
  if batch.waits ~= '' and FEEDING[batch.status] then
    if int(batch.spent) + int(batch.reserved) + int(batch.waits) <= int(batch.budget) then
      set_batch(batch, { waits = '', reason = '' })
      feed(batch)
    elseif int(batch.reserved) <= int(batch.unknown) then
      pause(batch, 'budget')
    end
  end
end
