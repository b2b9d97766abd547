#!lua flags=allow-oom
-- finish_job(job, token, completed|rejected|exhausted|expired|cancelled, error JSON): end a running job. Natural key: the token.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2])
if held ~= 'held' then return held and 1 or 0 end
finish(job, ARGV[3], ARGV[4])
dispatch()
return 1
