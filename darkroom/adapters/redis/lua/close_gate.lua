#!lua flags=allow-oom
-- close_gate(reason, message, first delay ms, longest delay ms, job): fal refuses our key or our balance. A submission that fal
-- takes opens it again.
close_gate(ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], 'submit')
return 1
