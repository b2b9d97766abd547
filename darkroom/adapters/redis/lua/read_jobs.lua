#!lua flags=no-writes
-- read_jobs(jobs ...): each job's record and what lies beside it, false where there is none.
local found = {}
for i = 1, #ARGV do found[i] = whole(ARGV[i]) end
return found
