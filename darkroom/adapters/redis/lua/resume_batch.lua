#!lua flags=allow-oom
-- resume_batch(batch, budget in nano USD or ''): its jobs get turns again, with a new budget where one is named. Natural key: the
-- status. Answers ok, missing, state, or budget when there is no room in it.
local batch = read_batch(ARGV[1])
if not batch then return 'missing' end
if not FEEDING[batch.status] and batch.status ~= 'paused' then return 'state' end
if ARGV[2] ~= '' then set_batch(batch, { budget = ARGV[2] }) end
if batch.status ~= 'paused' then return 'ok' end
if batch.budget ~= '' and int(batch.spent) + int(batch.reserved) >= int(batch.budget) then return 'budget' end
move_batch(batch, 'resumed', int(batch.not_before) > NOW and 'not_before' or '')
dispatch()
return 'ok'
