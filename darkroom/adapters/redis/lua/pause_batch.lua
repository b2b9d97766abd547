#!lua flags=allow-oom
-- pause_batch(batch): no submission of it opens from now on; what runs finishes. Natural key: the status. Answers ok, missing or state.
local batch = read_batch(ARGV[1])
if not batch then return 'missing' end
if batch.status == 'paused' then return 'ok' end
if not FEEDING[batch.status] then return 'state' end
pause(batch, 'requested')
return 'ok'
